"""Whether files hold what they held, where size and time say so and the inode does not."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.listing import THREADS, FolderReader, Listing
from colabkit.datasets.folders.mirroring import RetriedFile
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.workers import Pool

_READ_BYTES = 4 << 20


def rewritten(
    root: Path,
    files: Sequence[Member],
    crcs: Mapping[str, int | None],
    *,
    reader: FolderReader,
    retry: Callable[[OSError], None],
    watch: Watch,
) -> set[str]:
    """Returns the paths of files that hold something else by now, by reading them.

    ``chmod``, a new hard link or a copy of the whole folder change an inode as well.

    Args:
        root: The folder they lie in.
        files: The files, as listed.
        crcs: The CRC that each had, by path.
        reader: The calls to read the folder by.
        retry: Called on a failure; returns to try again, raises to give up.
        watch: Is told every byte.
    """
    if not files:
        return set()
    nbytes = sum(file.nbytes for file in files)
    watch.begin(Phase.CHECKING, bytes_total=nbytes, files_total=len(files))

    def is_other(file: Member) -> bool:
        source, place, crc32 = RetriedFile(root / file.path, reader, retry), 0, 0
        try:
            while piece := source.read(_READ_BYTES, place):
                place, crc32 = place + len(piece), zlib.crc32(piece, crc32)
                watch.add(nbytes=len(piece))
            watch.add(files=1)
            return crc32 != crcs[file.path] or not source.is_still(file)
        finally:
            source.close()

    with Pool(THREADS, "colabkit-compare") as pool:
        others = list(pool.map(is_other, files))
    return {file.path for file, other in zip(files, others, strict=True) if other}


def touched_since(root: Path, listing: Listing, time_ns: int) -> list[Member]:
    """Returns the files whose content may be newer than a time although their own times are not.

    Args:
        root: The folder.
        listing: What it holds.
        time_ns: In ns since the epoch, by this machine's clock.
    """
    files = [file for file in listing.files if file.ctime_ns is not None]
    if not files:
        return []
    placed = {"": max(map(_placed_ns, {*_and_above(root.absolute()), *_and_above(root.resolve())}))}
    for folder in listing.folders:
        above = folder.rpartition("/")[0]
        placed[folder] = max(placed[above], _placed_ns(root / folder))
    return [
        file
        for file in files
        if max(file.ctime_ns or 0, placed[file.path.rpartition("/")[0]]) >= time_ns
    ]


def _and_above(folder: Path) -> Sequence[Path]:
    return [folder, *folder.parents]


def _placed_ns(path: Path) -> int:
    """Returns when a folder was renamed, or linked to, last; 0 where files alone came and went.

    What lies in it is older then, and another folder's.
    """
    status = os.lstat(path)
    is_moved = stat.S_ISLNK(status.st_mode) or status.st_ctime_ns != status.st_mtime_ns
    return status.st_ctime_ns if is_moved else 0
