"""Room on a disk: asked for before a dataset's first byte, made by what may go."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from colabkit.datasets.cache.manifest import FolderState, foreign_files
from colabkit.datasets.cache.publishing import (
    delete_now,
    durability_here,
    finish,
    move_to_trash,
    published_in,
)
from colabkit.datasets.cache.slots import SIDE_NAME, Slot, alone_at, alone_with
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


@dataclasses.dataclass(frozen=True, slots=True)
class Evicted:
    """A dataset that was deleted to make room.

    Attributes:
        folder: Where it lay.
        nbytes: Its files' sizes added up.
    """

    folder: Path
    nbytes: int


def mark_used(slot: Slot) -> None:
    """Notes that a dataset was used now: the longest unused goes first."""
    with contextlib.suppress(OSError):
        os.utime(slot.manifest)


def evict(slot: Slot, *, enough: Callable[[], bool]) -> list[Evicted]:
    """Deletes the datasets beside a slot, the longest unused first, until it is enough.

    What a process uses or works on stays, and so does a folder that holds anything but what
    was unpacked there.

    Args:
        slot: The dataset that needs room.
        enough: Whether there is room by now.
    """
    delete_now(slot)
    evicted: list[Evicted] = []
    for other in _others(slot):
        if enough():
            break
        gone = _evict_one(other)
        if gone is not None:
            delete_now(slot)
            evicted.append(gone)
    return evicted


def sweep(slot: Slot) -> None:
    """Throws away what a killed call left beside a whole dataset, unless somebody works on it."""
    if not slot.work.exists():
        return
    # Sweeping helps nobody who may not write there.
    with contextlib.suppress(OSError), alone_at(slot.lock) as is_ours:
        if is_ours:
            finish(slot, durability_here())
            move_to_trash(slot, slot.work)


def _others(slot: Slot) -> Iterator[Slot]:
    beside = slot.folder.parent
    manifests = []
    for path in (beside / SIDE_NAME).glob("*/manifest"):
        other = Slot(beside / path.parent.name)
        if other != slot:
            with contextlib.suppress(FileNotFoundError):
                manifests.append((path.stat().st_mtime_ns, other))
    for _, other in sorted(manifests, key=lambda item: item[0]):
        yield other


def _evict_one(slot: Slot) -> Evicted | None:
    with alone_at(slot.lock) as is_ours:
        published = published_in(slot)
        manifest = published.manifest
        if not is_ours or manifest is None or published.state is FolderState.MOVED:
            return None
        with alone_with(slot.folder) as alone:
            if not alone or foreign_files(slot.folder, manifest.members()):
                return None
            move_to_trash(slot, slot.folder)
        slot.manifest.unlink(missing_ok=True)
        return Evicted(slot.folder, manifest.header.nbytes)
