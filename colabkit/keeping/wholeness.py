"""The newest whole thing of a kept folder that a training can go on from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from colabkit.keeping.formats import is_torn
from colabkit.keeping.looking import Stamp, look_at
from colabkit.keeping.open_files import writers_in
from colabkit.keeping.settling import FOLDER_REST_S, kinds_of
from colabkit.keeping.units import by_unit, missing_in, natural_key


def is_whole(folder: Path, name: str, files: Mapping[str, Stamp]) -> bool:
    """Whether nothing of a unit is missing, as far as its files and its writer's signs tell."""
    if name not in files and missing_in([path.removeprefix(f"{name}/") for path in files]):
        return False
    try:
        return not any(is_torn(folder / path) for path in files)
    except OSError:
        return False


def latest_in(
    folder: Path,
    pattern: str,
    *,
    whole: tuple[str, ...],
    skip: tuple[str, ...],
    known: Mapping[str, Stamp],
) -> str | None:
    """Returns the newest whole file or folder that a pattern fits, by its path in the folder.

    Args:
        folder: The kept folder.
        pattern: What to look for; without "/" at any depth.
        whole: What folders that count as a whole are called.
        skip: What is left out.
        known: Files that are as they were kept, with their stamps.
    """
    units = _matching(folder, pattern, whole, skip)
    if not units:
        return None
    writers = writers_in(folder)
    best: tuple[tuple[object, ...], str] | None = None
    kinds: dict[str, list[frozenset[str]]] = {}
    fit = []
    for name, files in units.items():
        is_known = all(known.get(path) == stamp for path, stamp in files.items())
        if not is_known:
            if writers.paths & files.keys() or not is_whole(folder, name, files):
                continue
            if not writers.sees_all and _age_s(files) < FOLDER_REST_S:
                continue
        fit.append((name, is_known))
        if name not in files:
            inner = kinds_of(path.removeprefix(f"{name}/") for path in files)
            kinds.setdefault(name.rpartition("/")[0], []).append(inner)
    for name, is_known in fit:
        files = units[name]
        if name not in files and not is_known and _lacks(name, files, kinds):
            continue
        key = (max(stamp.mtime_ns for stamp in files.values()), natural_key(name))
        if best is None or key > best[0]:
            best = (key, name)
    return best[1] if best is not None else None


def _lacks(
    name: str, files: Mapping[str, Stamp], kinds: Mapping[str, list[frozenset[str]]]
) -> bool:
    """Whether a folder lacks what all others beside it have."""
    mine = kinds_of(path.removeprefix(f"{name}/") for path in files)
    others = list(kinds[name.rpartition("/")[0]])
    others.remove(mine)
    return bool(others) and all(each - mine for each in others)


def _age_s(files: Mapping[str, Stamp]) -> float:
    return time.time() - max(stamp.mtime_ns for stamp in files.values()) / 1e9


def _matching(
    folder: Path, pattern: str, whole: tuple[str, ...], skip: tuple[str, ...]
) -> dict[str, dict[str, Stamp]]:
    """Returns the units that a pattern fits, or the folders that it names, with their files."""
    files = look_at(folder, skip).files
    found: dict[str, dict[str, Stamp]] = {}
    for path in files:
        for each in (PurePosixPath(path), *PurePosixPath(path).parents):
            if each.name and _fits(each, pattern):
                found.setdefault(str(each), {})[path] = files[path]
    units = by_unit(files, whole)
    for name in list(found):
        inside = next((n for n in units if n != name and name.startswith(f"{n}/")), None)
        if inside is not None:
            # A file of a checkpoint is whole when the checkpoint is.
            found[name] = dict(units[inside]) if is_whole(folder, inside, units[inside]) else {}
    return {name: inner for name, inner in found.items() if inner}


def _fits(path: PurePosixPath, pattern: str) -> bool:
    if "/" not in pattern.rstrip("/"):
        return path.match(pattern.rstrip("/"))
    wanted = PurePosixPath(pattern).parts
    return len(path.parts) == len(wanted) and path.match(pattern)
