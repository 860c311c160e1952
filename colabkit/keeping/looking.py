"""What lies in a kept folder at one moment: files with their stamps, and links inside it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

# Caches, and what programs write before it gets its name.
NEVER_KEPT = (
    *("__pycache__", ".git", ".ipynb_checkpoints", ".venv", "*.pyc", ".colabkit-tmp-*"),
    *("*.tmp", ".tmp*", "*.part", "*.partial", "*.incomplete", "*.lock", "*.swp", ".nfs*"),
    *("tmp-checkpoint-*", "*.orbax-checkpoint-tmp*", ".fuse_hidden*"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another.

    Attributes:
        nbytes: Its size.
        mtime_ns: When it was written last.
        inode: Which file it is: a rename puts another one in its place.
    """

    nbytes: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Returns the stamp of a file that was looked at."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One look at a folder.

    Attributes:
        files: The stamp of every file, by its path in the folder with "/".
        links: Where symbolic links lead that stay inside the folder.
        unnamed: How many files have names that are no text, and cannot be kept.
    """

    files: dict[str, Stamp]
    links: dict[str, str]
    unnamed: int = 0


def look_at(folder: Path, skip: Iterable[str] = ()) -> Look:
    """Returns what lies in a folder now; what goes away meanwhile is left out.

    Args:
        folder: The folder; one that is not there is empty.
        skip: Patterns for names or paths that are left out, besides what never is kept.
    """
    patterns = (*NEVER_KEPT, *skip)
    look = Look({}, {})
    unnamed = 0
    waiting = [("", os.fspath(folder))]
    while waiting:
        above, place = waiting.pop()
        try:
            entries = os.scandir(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                path = above + entry.name
                if is_skipped(path, entry.name, patterns):
                    continue
                if not _is_text(path):
                    unnamed += 1
                elif entry.is_symlink():
                    _note_link(entry, path, folder, look.links)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{path}/", entry.path))
                elif entry.is_file(follow_symlinks=False):
                    _note_file(entry, path, look.files)
    return dataclasses.replace(look, unnamed=unnamed)


def is_skipped(path: str, name: str, patterns: Iterable[str]) -> bool:
    """Whether a file or folder is left out, by its name or by its path in the folder.

    Example:
        >>> is_skipped("runs/a.tmp", "a.tmp", ["*.tmp"]), is_skipped("a/b", "b", ["a/*"])
        (True, True)
    """
    return any(fnmatchcase(path if "/" in each else name, each) for each in patterns)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _note_file(entry: os.DirEntry[str], path: str, files: dict[str, Stamp]) -> None:
    try:
        files[path] = Stamp.of(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return


def _note_link(entry: os.DirEntry[str], path: str, folder: Path, links: dict[str, str]) -> None:
    try:
        target = os.fspath(Path(entry.path).readlink())
    except OSError:
        return
    where = Path(os.path.normpath(Path(entry.path).parent / target))
    if where.is_relative_to(folder) and not Path(target).is_absolute() and _is_text(target):
        links[path] = target
