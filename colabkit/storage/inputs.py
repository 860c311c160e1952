"""Where something to be read lies; on Kaggle, by its name alone among the inputs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from colabkit.errors import ArgumentError
from colabkit.runtime import Platform, detect_platform
from colabkit.storage.places import drive_part, locate

_KAGGLE_INPUT, _KAGGLE_WORKING = Path("/kaggle/input"), Path("/kaggle/working")
# /kaggle/input/NAME, or /kaggle/input/datasets/OWNER/NAME; what is looked for may lie in it.
_DEPTH = 5
_ENTRIES_MAX = 2_000
_NAMES_SHOWN = 5


def locate_input(path: str | Path, *, platform: Platform | None = None) -> Path:
    """Returns where something to be read lies on this machine.

    As ``locate`` does; and on Kaggle, where a relative path or a name of Drive leads to
    nothing, it is looked for by its last parts below ``/kaggle/input``. Kaggle unpacks the
    archives that it is given, so that "cats.zip" may be the folder "cats" there.

    Args:
        path: As the user wrote it: "MyDrive/cats.zip", "cats".
        platform: The kind of machine; found out by default.

    Raises:
        ArgumentError: Several inputs have that name.

    Example:
        >>> locate_input("cats", platform=Platform.OTHER)
        PosixPath('cats')
    """
    platform = detect_platform() if platform is None else platform
    where = locate(path, platform=platform)
    if platform is not Platform.KAGGLE or where.exists():
        return where
    name = drive_part(path)
    if name is None and (where.is_absolute() or ".." in where.parts):
        return where
    found = find_below(_KAGGLE_INPUT, str(where) if name is None else name)
    if len(found) > 1:
        message = f"{path} may be {found[0]} or {found[1]}."
        raise ArgumentError(message, argument="path", hint="Pass one of them as it is.")
    return found[0] if found else where


def attached_runs(folder: Path, *, inputs: Path = _KAGGLE_INPUT) -> list[Path]:
    """Returns where the inputs of a notebook hold what an earlier session left in a folder.

    A saved version of a notebook keeps its working folder, and is attached to the next session
    as an input: the same path below it is the same folder.

    Args:
        folder: A folder below ``/kaggle/working``; of any other there is nothing.
        inputs: The folder of all inputs, for tests.

    Example:
        >>> attached_runs(Path("/elsewhere/runs/cats"))
        []
    """
    if not folder.is_relative_to(_KAGGLE_WORKING) or not inputs.is_dir():
        return []
    inside = folder.relative_to(_KAGGLE_WORKING)
    # An input is /kaggle/input/NAME or /kaggle/input/notebooks/OWNER/NAME.
    tops = [e for e in itertools.islice(_entries(inputs, 3), _ENTRIES_MAX) if e.is_dir()]
    return [top / inside for top in tops if (top / inside / "checkpoints").is_dir()]


def find_below(root: Path, name: str) -> list[Path]:
    """Returns the inputs that a name means: those of the very path, else of its last part.

    Args:
        root: The folder of all inputs.
        name: A relative path: "cats", "project/cats.zip".
    """
    parts = Path(name).parts
    if not parts or set(parts) & {"..", "/"}:
        return []
    entries = list(itertools.islice(_entries(root, _DEPTH), _ENTRIES_MAX))
    for wanted in (parts, parts[-1:]):
        stem = (*wanted[:-1], Path(wanted[-1]).stem.removesuffix(".tar"))
        for ending, must_be_folder in ((wanted, False), (stem, True)):
            found = [
                entry
                for entry in entries
                if entry.parts[-len(ending) :] == ending and (entry.is_dir() or not must_be_folder)
            ]
            if found:
                return _outermost(found)
    return []


def _outermost(found: list[Path]) -> list[Path]:
    """An archive that was unpacked leaves "cats/cats": the outer one is the dataset."""
    least = min(len(path.parts) for path in found)
    return [path for path in found if len(path.parts) == least]


def _entries(folder: Path, depth: int) -> Iterator[Path]:
    """Yields what lies below a folder, the nearest level first."""
    folders = [folder]
    for _ in range(depth):
        inner: list[Path] = []
        for each in folders:
            for name in sorted(names_in(each)):
                entry = each / name
                yield entry
                if entry.is_dir():
                    inner.append(entry)
        folders = inner


def names_in(folder: Path) -> list[str]:
    """Returns the names in a folder, [] when it cannot be read."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are wanted
    except OSError:
        return []


def near_names(wanted: str, names: Sequence[str]) -> list[str]:
    """Returns the names most like the one wanted, the nearest first.

    Example:
        >>> near_names("cat.zip", ["Cats.zip", "dogs.zip", "notes.txt"])[0]
        'Cats.zip'
    """
    by_folded: dict[str, str] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), name)
    import difflib  # only what is not there is compared

    near = difflib.get_close_matches(wanted.casefold(), list(by_folded), _NAMES_SHOWN, 0.6)
    return [by_folded[folded] for folded in near]
