"""The newest whole thing of a kept folder that a training can go on from."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from colabkit.keeping.formats import is_torn
from colabkit.keeping.looking import Look, Stamp, led_to, look_at
from colabkit.keeping.open_files import writers_in
from colabkit.keeping.settling import FOLDER_REST_S, kinds_of
from colabkit.keeping.units import by_unit, missing_in, natural_key, signed_folders


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
    look = look_at(folder, skip)
    names = _names_that_fit(look, pattern)
    units = _matching(folder, look, set(names.values()), whole)
    if not units:
        return None
    fit = _whole_ones(folder, units, known)
    kinds: dict[str, list[frozenset[str]]] = {}
    for name in fit:
        if name not in units[name]:
            inner = kinds_of(path.removeprefix(f"{name}/") for path in units[name])
            kinds.setdefault(name.rpartition("/")[0], []).append(inner)

    def is_fit(led: str) -> bool:
        is_file_or_known = led in units[led] or fit[led]
        return is_file_or_known or not _lacks(led, units[led], kinds)

    def key(name: str) -> tuple[object, ...]:
        # Of a link and what it leads to, the name with a number in it tells more.
        newest_ns = max(stamp.mtime_ns for stamp in units[names[name]].values())
        return (newest_ns, name == names[name], natural_key(name))

    good = [name for name, led in names.items() if led in fit and is_fit(led)]
    return max(good, key=key, default=None)


def _whole_ones(
    folder: Path, units: Mapping[str, Mapping[str, Stamp]], known: Mapping[str, Stamp]
) -> dict[str, bool]:
    """Returns the units that are whole, and whether each is as it was kept."""
    writers = writers_in(folder)
    fit: dict[str, bool] = {}
    for name, files in units.items():
        is_known = all(known.get(path) == stamp for path, stamp in files.items())
        if not is_known:
            if writers.paths & files.keys() or not is_whole(folder, name, files):
                continue
            if not writers.sees_all and _age_s(files) < FOLDER_REST_S:
                continue
        fit[name] = is_known
    return fit


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


def _names_that_fit(look: Look, pattern: str) -> dict[str, str]:
    """Returns the files, folders and links that a pattern fits, and where each leads."""
    found: dict[str, str] = {}
    for path in (*look.files, *look.links):
        for each in (PurePosixPath(path), *PurePosixPath(path).parents):
            if each.name and _fits(each, pattern):
                found[str(each)] = led_to(str(each), look.links)
    return found


def _matching(
    folder: Path, look: Look, names: Collection[str], whole: tuple[str, ...]
) -> dict[str, dict[str, Stamp]]:
    """Returns the files of units or of other folders that are named."""
    files = look.files
    found: dict[str, dict[str, Stamp]] = {}
    for path in files:
        for each in (path, *map(str, PurePosixPath(path).parents)):
            if each in names:
                found.setdefault(each, {})[path] = files[path]
    units = by_unit(files, (*whole, *signed_folders(files)))
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
