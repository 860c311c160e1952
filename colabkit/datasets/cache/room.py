"""Whether a disk has room for a dataset, before its first byte is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from colabkit.errors import DiskFullError
from colabkit.notebook import bytes_words


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a disk has left.

    Attributes:
        free_bytes: Bytes an ordinary user may still write.
        free_files: Files and folders that may still be made, None where there is no limit.
        block_bytes: What a file's size is rounded up to.
    """

    free_bytes: int
    free_files: int | None
    block_bytes: int


def room_at(folder: Path) -> Room:
    """Returns what the disk has left that a folder lies on, or will lie on."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    status = os.statvfs(existing)
    return Room(
        free_bytes=status.f_bavail * status.f_frsize,
        free_files=status.f_favail if status.f_files else None,
        block_bytes=max(1, status.f_frsize),
    )


def bytes_on_disk(sizes: Iterable[int], block_bytes: int) -> int:
    """Returns what files take up, each rounded up to whole blocks."""
    return sum(-(-nbytes // block_bytes) for nbytes in sizes) * block_bytes


def check_room(
    room: Room, *, folder: Path, needed_bytes: int, needed_files: int, is_exact: bool = True
) -> None:
    """Refuses what does not fit; ``is_exact`` says whether no more will be needed.

    Raises:
        DiskFullError: Too few bytes or files are left; it says how many are missing.
    """
    missing_bytes = needed_bytes - room.free_bytes
    free_files = needed_files if room.free_files is None else room.free_files
    if missing_bytes <= 0 and needed_files <= free_files:
        return
    least = "" if is_exact else "at least "
    if missing_bytes > 0:
        what = (
            f"{least}{bytes_words(needed_bytes)} are needed"
            f" and {bytes_words(room.free_bytes)} are free:"
            f" {least}{bytes_words(missing_bytes)} are missing"
        )
    else:
        what = (
            f"room for {needed_files:,} files is needed and there is room for {free_files:,}:"
            f" {needed_files - free_files:,} are missing"
        )
    message = f"The disk of {folder} has too little room: {what}."
    raise DiskFullError(
        message,
        path=folder,
        needed_bytes=needed_bytes,
        free_bytes=room.free_bytes,
        needed_files=needed_files,
        free_files=free_files,
        hint="Pass evict=True to delete older unpacked datasets, members= to take fewer files,"
        " or dest= on another disk. Nothing was written.",
    )
