"""What lies in a kept folder at one moment: files with their stamps, and links inside it."""

from __future__ import annotations

import dataclasses
import functools
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

# Caches, and what programs write before it gets its name.
NEVER_KEPT = (
    *("__pycache__", ".git", ".ipynb_checkpoints", ".venv", "*.pyc", ".colabkit-tmp-*"),
    *(
        "*.tmp",
        "*.tmp-*",
        ".tmp*",
        "*.part",
        "*.partial",
        "*.incomplete",
        "*.lock",
        "*.swp",
        ".nfs*",
    ),
    *("tmp-checkpoint-*", "*.orbax-checkpoint-tmp*", ".fuse_hidden*"),
    # A database makes it anew, and maps it into memory: it is never the same twice.
    *("*.db-shm", "*.sqlite-shm", "*.sqlite3-shm"),
)


class Stamp(NamedTuple):
    """What tells one state of a file from another; a tuple, as thousands are compared each scan.

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
class FolderScan:
    """One scan at a folder.

    Attributes:
        files: The stamp of every file, by its path in the folder with "/".
        links: Where symbolic links lead that stay inside the folder, as seen from themselves.
        left_out: What cannot be kept, and why.
    """

    files: dict[str, Stamp] = dataclasses.field(default_factory=dict)
    links: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


def scan_folder(folder: Path, skip: Iterable[str] = ()) -> FolderScan:
    """Returns what lies in a folder now; what goes away meanwhile is left out.

    Args:
        folder: The folder; one that is not there is empty.
        skip: Patterns for names or paths that are left out, besides what never is kept.
    """
    names, paths = _compiled((*NEVER_KEPT, *skip))
    scan = FolderScan()
    waiting = [("", os.fspath(folder))]
    while waiting:
        above, place = waiting.pop()
        try:
            entries = os.scandir(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            scan.left_out[above.rstrip("/")] = f"it cannot be read ({error.strerror})"
            continue
        with entries:
            for entry in entries:
                path = above + entry.name
                if names.fullmatch(entry.name) or (paths and paths.fullmatch(path)):
                    continue
                if not _is_text(path):
                    scan.left_out[ascii(path)] = "its name is no text"
                elif entry.is_symlink():
                    _note_link(entry, path, folder, scan)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{path}/", entry.path))
                elif entry.is_file(follow_symlinks=False):
                    _note_file(entry, path, scan.files)
    return scan


@functools.lru_cache(maxsize=16)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """Returns what fits names, and what fits paths: each of thousands is asked once."""
    names = [translate(each) for each in patterns if "/" not in each]
    paths = [translate(each) for each in patterns if "/" in each]
    return re.compile("|".join(names)), re.compile("|".join(paths)) if paths else None


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


def _note_link(entry: os.DirEntry[str], path: str, folder: Path, scan: FolderScan) -> None:
    try:
        target = os.fspath(Path(entry.path).readlink())
    except OSError:
        return
    above = Path(entry.path).parent
    where = Path(os.path.normpath(above / target))
    if not where.is_relative_to(folder) or not _is_text(target):
        scan.left_out[path] = f"it leads out of the folder, to {ascii(target)[1:-1]}"
    elif Path(target).is_absolute():
        # On the next machine the folder may lie elsewhere.
        scan.links[path] = os.path.relpath(where, above)
    else:
        scan.links[path] = target


def led_to(path: str, links: Mapping[str, str]) -> str:
    """Returns where a path leads to in the folder in the end, itself where it is no link.

    Example:
        >>> led_to("best.pt", {"best.pt": "w/last.pt", "w/last.pt": "3.pt"})
        'w/3.pt'
    """
    for _ in links:
        if path not in links:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), links[path]))
    return path
