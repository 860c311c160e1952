"""What lies in a project: small files one by one, large folders as a whole."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# What is larger than this is data: it is read where it lies, and colabkit.dataset is for it.
FILE_BYTES_MAX = 50_000_000
FOLDER_BYTES_MAX = 200_000_000
FOLDER_FILES_MAX = 1_000
_ROUNDING_NS = 2_000_000_000
_ROUND_NS = 1_000_000
_FLOAT_NS = 1_000  # what a time in seconds loses as a float
_LEFT_OUT = frozenset({"__pycache__", ".git", ".ipynb_checkpoints", ".Trash", ".venv"})
ASIDE = ".colabkit-tmp-"
# Where what a project's scripts write is kept, with the file that tells whose it is.
KEPT = "kept"
_LEASE = "lease.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another."""

    nbytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp | None:
        """Returns a file's stamp, None when there is no such file."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        return cls(stat.st_size, stat.st_mtime_ns)

    def is_like(self, other: Stamp | None) -> bool:
        """Whether both are of one state; Drive rounds times once a file is uploaded."""
        if other is None or self.nbytes != other.nbytes:
            return False
        return abs(self.mtime_ns - other.mtime_ns) < _ROUNDING_NS

    def is_still(self, other: Stamp | None) -> bool:
        """Whether nothing was written since: times are equal, or this one was rounded."""
        is_rounded = (self.mtime_ns + _FLOAT_NS) % _ROUND_NS <= 2 * _FLOAT_NS
        return self == other or (is_rounded and self.is_like(other))


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """What a project holds.

    Attributes:
        files: What is copied, by its path in the project.
        links: What is read where it lies: large files, and folders with much in them.
        folders: The folders that are copied, empty ones too: a script may write into them.
    """

    files: dict[str, Stamp]
    links: tuple[str, ...]
    folders: tuple[str, ...] = ()


def read_tree(project: Path, *, links_folders: bool = False) -> Tree:
    """Returns what a project holds.

    Args:
        project: The folder.
        links_folders: Whether every folder in it is read where it lies.
    """
    files: dict[str, Stamp] = {}
    links: list[str] = []
    folders: list[str] = []
    with os.scandir(project) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_kept = entry.name == KEPT and Path(entry.path, _LEASE).exists()
            stat = None if is_kept or is_left_out(entry.name) else _status(entry)
            if stat is None:
                continue
            if not entry.is_dir():
                if stat.st_size > FILE_BYTES_MAX:
                    links.append(entry.name)
                else:
                    files[entry.name] = Stamp(stat.st_size, stat.st_mtime_ns)
                continue
            within: list[Path] = []
            inner = None if links_folders else _files_of(Path(entry.path), project, within)
            if inner is None:
                links.append(entry.name)
            else:
                files |= inner
                folders += [str(path.relative_to(project)) for path in within]
    return Tree(files, tuple(links), tuple(folders))


def _files_of(folder: Path, project: Path, folders: list[Path]) -> dict[str, Stamp] | None:
    """Returns what is copied of a folder, None when there is too much in it."""
    found: dict[str, Stamp] = {}
    nbytes = 0
    for path, stat in walk(folder, folders):
        nbytes += stat.st_size
        if stat.st_size > FILE_BYTES_MAX or nbytes > FOLDER_BYTES_MAX:
            return None
        found[str(path.relative_to(project))] = Stamp(stat.st_size, stat.st_mtime_ns)
        if len(found) > FOLDER_FILES_MAX:
            return None
    return found


def walk(folder: Path, folders: list[Path] | None = None) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the files below a folder; follows no link.

    Args:
        folder: Where to look.
        folders: Gets each folder on the way, this one first.
    """
    waiting = [folder]
    while waiting:
        inside = waiting.pop()
        if folders is not None:
            folders.append(inside)
        with os.scandir(inside) as entries:
            for entry in entries:
                if is_left_out(entry.name) or entry.is_symlink():
                    continue
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                elif entry.is_file() and (stat := _status(entry)) is not None:
                    yield Path(entry.path), stat


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Returns what an entry is, None when it went away meanwhile or leads nowhere."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:
            return None
        raise


def is_left_out(name: str) -> bool:
    """Whether a name is of no project: caches, and what is being written."""
    return name in _LEFT_OUT or name.startswith(ASIDE) or name.endswith(".pyc")
