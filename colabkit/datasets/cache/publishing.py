"""Giving a finished dataset its name, and deleting what had it before."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.cache.checking import folder_state, folder_times, foreign_files
from colabkit.datasets.cache.durability import Durability, sync_file_system, sync_folder
from colabkit.datasets.cache.manifest import (
    FolderState,
    Header,
    Manifest,
    Member,
    encode,
    pack_members,
    read_manifest,
)
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.cache.staging import move_to_trash, staged_tree
from colabkit.datasets.cache.use import alone_with, let_go
from colabkit.errors import DestinationTakenError
from colabkit.storage import write_whole

_STAGED_MANIFEST = "manifest"


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What lies in a dataset's place.

    Attributes:
        manifest: What was published there, None where nothing was or something else lies there.
        state: How the folder looks beside it.
    """

    manifest: Manifest | None
    state: FolderState


@dataclasses.dataclass(frozen=True, slots=True)
class Swap:
    """What publishing did with the folder that was there before.

    Attributes:
        trash: Where it waits to be deleted, None when there was none.
        kept: Where it was put because it holds files that are not the dataset's.
    """

    trash: Path | None = None
    kept: Path | None = None


def look(slot: Slot) -> Published:
    """Returns what lies in a dataset's place; looks at no file of it."""
    found = Published(None, folder_state(slot.folder, None))
    for path in (slot.manifest, slot.work / _STAGED_MANIFEST):
        # A call killed between its last two renames left the manifest where it was written.
        manifest = read_manifest(path)
        if manifest is not None:
            state = folder_state(slot.folder, manifest)
            if state in {FolderState.WHOLE, FolderState.TOUCHED}:
                return Published(manifest, state)
            if state is FolderState.MOVED:
                found = Published(manifest, state)
    return found


def write_manifest(path: Path, manifest: Manifest, durability: Durability) -> None:
    """Writes a manifest aside, makes it durable, and gives it its name."""
    write_whole(path, encode(manifest), durable=durability is not Durability.NONE)


def publish(
    slot: Slot, tree: Path, members: Sequence[Member], header: Header, durability: Durability
) -> Swap:
    """Gives a finished tree the dataset's name; whoever looks sees all of it or none.

    Args:
        slot: The dataset's place; the caller holds its lock.
        tree: The finished tree, on the same file system.
        members: Every file in it.
        header: What it is; its inode is filled in here.
        durability: What to wait for.

    Raises:
        DestinationTakenError: Something that is not colabkit's came to lie there.
    """
    if durability is Durability.ALL:
        sync_file_system(tree)
    header = dataclasses.replace(
        header,
        inode=os.lstat(tree).st_ino,
        synced=durability is Durability.ALL,
        published_s=time.time(),
    )
    before = look(slot)
    swap = _move_away(slot, before)
    staged = slot.work / _STAGED_MANIFEST
    manifest = Manifest(header, folder_times(tree), pack_members(members))
    write_manifest(staged, manifest, durability)
    try:
        tree.rename(slot.folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY}:
            raise taken(slot) from error
        raise
    if durability is not Durability.NONE:
        sync_folder(slot.folder.parent)
    finish(slot)
    return swap


def finish(slot: Slot) -> None:
    """Takes the last step of publishing where a killed call left it undone."""
    staged = slot.work / _STAGED_MANIFEST
    manifest = read_manifest(staged)
    if manifest is None or staged_tree(slot) is not None:
        return
    staged.replace(slot.manifest)
    move_to_trash(slot, slot.work)


def taken(slot: Slot) -> DestinationTakenError:
    """Returns the error for a place that is somebody else's."""
    message = f"{slot.folder} holds something that colabkit did not unpack there."
    return DestinationTakenError(
        message,
        path=slot.folder,
        hint="It is left as it is: pass another dest, or move it away yourself.",
    )


def empty_trash(slot: Slot) -> None:
    """Deletes in the background what waits in the trash, save what a process still uses."""
    if slot.trash.is_dir() and any(slot.trash.iterdir()):
        threading.Thread(
            target=_delete_all, args=(slot.trash,), name="colabkit-delete", daemon=True
        ).start()


def delete_now(slot: Slot) -> None:
    """Deletes what waits in the trash, save what a process still uses."""
    _delete_all(slot.trash)


def _move_away(slot: Slot, before: Published) -> Swap:
    if before.state in {FolderState.FOREIGN, FolderState.MOVED}:
        raise taken(slot)
    if before.manifest is None:
        return Swap()
    let_go(slot.folder)
    if foreign_files(slot.folder, before.manifest.members()):
        kept = slot.folder.with_name(f"{slot.folder.name}.kept-{time.strftime('%Y%m%d-%H%M%S')}")
        slot.folder.rename(kept)
        return Swap(kept=kept)
    return Swap(trash=move_to_trash(slot, slot.folder))


def _delete_all(trash: Path) -> None:
    with contextlib.suppress(OSError):
        for folder in list(trash.iterdir()):
            with alone_with(folder) as alone:
                if alone:
                    shutil.rmtree(folder, ignore_errors=True)
