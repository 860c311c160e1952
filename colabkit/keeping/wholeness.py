"""The newest whole thing of a kept folder that a training can go on from."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path, PurePosixPath

from colabkit.keeping.formats import is_torn
from colabkit.keeping.open_files import Writers, writers_in
from colabkit.keeping.scanning import FolderScan, Stamp, led_to, scan_folder
from colabkit.keeping.settling import FOLDER_REST_S, kinds_of, lacking_beside, series_of
from colabkit.keeping.units import by_unit, folder_of, missing_in, natural_key, patterns_by


@dataclasses.dataclass(frozen=True, slots=True)
class Latest:
    """What was found.

    Attributes:
        name: The newest whole file or folder, by its path in the folder, None for none.
        passed_over: What is newer and seems torn, and why; "" where nothing is.
    """

    name: str | None = None
    passed_over: str = ""


def is_whole(folder: Path, name: str, files: Mapping[str, Stamp]) -> bool:
    """Whether nothing of a unit is missing, as far as its files and its writer's signs tell."""
    if name not in files and missing_in([path.removeprefix(f"{name}/") for path in files], name):
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
    revisions: Mapping[str, int],
    inputs: Mapping[str, Stamp],
) -> Latest:
    """Returns the newest whole file or folder that a pattern fits.

    Args:
        folder: The kept folder.
        pattern: What to look for; without "/" at any depth, "**" fits any folders or none.
        whole: What folders that count as a whole are called.
        skip: What is left out.
        known: The files of the newest version, with the stamps they had when they were kept.
        revisions: Which version each of them came with.
        inputs: What was there before anything was kept.
    """
    scan = scan_folder(folder, skip)
    names = _names_that_fit(scan, pattern)
    whole = patterns_by([*scan.files, *known], whole)
    seen = _Seen(folder, scan, by_unit(scan.files, whole), known, by_unit(known, whole))
    units = _matching(seen, set(names.values()))
    fit = {name: files for name, files in units.items() if seen.is_fit(name, files)}
    lacking = {name: _lacking(name, fit) for name in fit}

    ages = _ages(fit, known, revisions, inputs)

    def key(name: str) -> tuple[object, ...]:
        # Of a link and what it leads to, the name with a number in it tells more.
        return (ages[names[name]], name == names[name], natural_key(name))

    found = sorted((name for name, led in names.items() if led in fit), key=key, reverse=True)
    for number, name in enumerate(found):
        if not lacking[names[name]]:
            newest = found[0]
            why = f"{newest} lacks {lacking[names[newest]]}, which the others have"
            return Latest(name, why if number else "")
    return Latest()


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """A folder as it is seen, and what is known of it."""

    folder: Path
    scan: FolderScan
    units: Mapping[str, Mapping[str, Stamp]]
    known: Mapping[str, Stamp]
    kept: Mapping[str, Mapping[str, Stamp]]
    together: Mapping[str, str] = dataclasses.field(init=False)
    writers: Writers = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        together = {
            path: name
            for name, files in self.units.items()
            if name not in files and not folder_of(name, files)
            for path in files
        }
        object.__setattr__(self, "together", together)
        object.__setattr__(self, "writers", writers_in(self.folder))

    def is_fit(self, name: str, files: Mapping[str, Stamp]) -> bool:
        """Whether something is whole, as far as it alone tells."""
        if self._is_gutted(name, files):
            return False
        if all(self.known.get(path) == stamp for path, stamp in files.items()):
            return True
        if self.writers.paths & files.keys() or not is_whole(self.folder, name, files):
            return False
        return self.writers.sees_all or not 0 <= _age_s(files) < FOLDER_REST_S

    def _is_gutted(self, name: str, files: Mapping[str, Stamp]) -> bool:
        """Whether a checkpoint's folder lost what it had when it was kept."""
        kept = self.kept.get(name, {})
        if name in files or kept.keys() <= files.keys():
            return False
        if all(self.known.get(path) == stamp for path, stamp in files.items()):
            return True
        return bool(lacking_beside(_inner(name, files), [_kinds(name, kept)]))


def _ages(
    units: Mapping[str, Mapping[str, Stamp]],
    known: Mapping[str, Stamp],
    revisions: Mapping[str, int],
    inputs: Mapping[str, Stamp],
) -> dict[str, tuple[int, int]]:
    """Returns what is larger for what is newer: by its version, and in one by the clock.

    What is in no version yet is newer than what is. Of an input the clock alone tells.
    """
    upcoming = max(revisions.values(), default=0) + 1
    ages: dict[str, tuple[int, int]] = {}
    only_inputs: dict[str, int] = {}
    for name, files in units.items():
        newest_ns = max(stamp.mtime_ns for stamp in files.values())
        if all(inputs.get(path) == stamp for path, stamp in files.items()):
            only_inputs[name] = newest_ns
            continue
        came = [
            revisions.get(path, upcoming) if known.get(path) == stamp else upcoming
            for path, stamp in files.items()
        ]
        ages[name] = (max(came), newest_ns)
    older = sorted(ages.values(), key=itemgetter(1))
    for name, newest_ns in only_inputs.items():
        before = [revision for revision, at_ns in older if at_ns <= newest_ns]
        ages[name] = (max(before, default=-1), newest_ns)
    return ages


def _lacking(name: str, units: Mapping[str, Mapping[str, Stamp]]) -> str:
    """Returns what a folder lacks that all others beside it have, "" for nothing.

    Two that lack it are meant so.
    """
    files = units[name]
    series = series_of(name)
    others = [
        _kinds(each, inner)
        for each, inner in units.items()
        if each not in (name, *inner) and series_of(each) == series
    ]
    return "" if name in files else lacking_beside(_inner(name, files), others)


def _inner(unit: str, files: Iterable[str]) -> list[str]:
    return [path.removeprefix(f"{unit}/") for path in files]


def _kinds(unit: str, files: Iterable[str]) -> frozenset[str]:
    return kinds_of(_inner(unit, files))


def _age_s(files: Mapping[str, Stamp]) -> float:
    return time.time() - max(stamp.mtime_ns for stamp in files.values()) / 1e9


def _names_that_fit(scan: FolderScan, pattern: str) -> dict[str, str]:
    """Returns the files, folders and links that a pattern fits, and where each leads."""
    found: dict[str, str] = {}
    wanted = PurePosixPath(pattern).parts
    for path in (*scan.files, *scan.links):
        for each in (PurePosixPath(path), *PurePosixPath(path).parents):
            if each.name and _fits(each, wanted):
                found[str(each)] = led_to(str(each), scan.links)
    return found


def _matching(seen: _Seen, names: Collection[str]) -> dict[str, Mapping[str, Stamp]]:
    """Returns the files of units or of other folders that are named."""
    found: dict[str, dict[str, Stamp]] = {}
    for path, stamp in seen.scan.files.items():
        for each in (path, *map(str, PurePosixPath(path).parents)):
            if each in names:
                found.setdefault(each, {})[path] = stamp
    whole: dict[str, Mapping[str, Stamp]] = {}
    for name, files in found.items():
        above = map(str, PurePosixPath(name).parents)
        inside = next(
            (each for each in (*above, seen.together.get(name)) if each in seen.units), None
        )
        if inside is None:
            whole[name] = files
        elif seen.is_fit(inside, seen.units[inside]):
            # A file of a checkpoint is whole when the checkpoint is.
            whole[name] = seen.units[inside]
    return whole


def _fits(path: PurePosixPath, wanted: tuple[str, ...]) -> bool:
    if len(wanted) == 1:
        return _fits_name(path.name, wanted[0])
    return _fits_parts(path.parts, wanted)


def _fits_parts(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits_parts(parts[n:], wanted[1:]) for n in range(len(parts) + 1))
    return bool(parts) and _fits_name(parts[0], wanted[0]) and _fits_parts(parts[1:], wanted[1:])


def _fits_name(name: str, pattern: str) -> bool:
    # A run may be called "run[1]", and whoever asks for it by its name means just that.
    return name == pattern or fnmatchcase(name, pattern)
