"""Making room: leftovers go; older datasets go when asked, never one that is in use."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from colabkit.datasets.cache.checking import foreign_files
from colabkit.datasets.cache.locks import alone_at
from colabkit.datasets.cache.manifest import FolderState
from colabkit.datasets.cache.publishing import delete_now, finish, look
from colabkit.datasets.cache.slots import SIDE_NAME, Slot
from colabkit.datasets.cache.staging import move_to_trash
from colabkit.datasets.cache.use import alone_with


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
            finish(slot)
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
        published = look(slot)
        manifest = published.manifest
        if not is_ours or manifest is None or published.state is FolderState.MOVED:
            return None
        with alone_with(slot.folder) as alone:
            if not alone or foreign_files(slot.folder, manifest.members()):
                return None
            move_to_trash(slot, slot.folder)
        slot.manifest.unlink(missing_ok=True)
        return Evicted(slot.folder, manifest.header.nbytes)
