"""Making a dataset: room, every file, a second look at the source, and the name."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from colabkit.datasets.archives.safety import unanswered
from colabkit.datasets.cache.manifest import FolderState, Header, Member, boot_id
from colabkit.datasets.cache.publishing import (
    Durability,
    Published,
    Staging,
    Swap,
    move_to_trash,
    publish,
)
from colabkit.datasets.cache.room import Evicted, bytes_on_disk, check_room, evict, room_at
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.origins.base import Contents, Origin
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.errors import (
    ArgumentError,
    DatasetChangedError,
    DatasetMismatchError,
    DiskFullError,
)
from colabkit.notebook import bytes_words
from colabkit.storage import FULL

if TYPE_CHECKING:
    from colabkit.datasets.folders.mirroring import Before

_NAMES_SHOWN = 5


@dataclasses.dataclass(frozen=True, slots=True)
class MakeRequest:
    """What to make, and how.

    Attributes:
        slot: Where; its lock is held.
        name: The source's absolute name.
        origin: What it is made from.
        stamp_now: Returns the source's stamp as it is now.
        selection: The members asked for, None for all.
        checksum: What the archive's SHA-256 has to be, or its MD5 after "md5:"; None for any.
        evict: Whether older datasets may go when room is short.
        durability: What to wait for before it gets its name.
    """

    slot: Slot
    name: str
    origin: Origin
    stamp_now: Callable[[], str]
    selection: tuple[str, ...] | None
    checksum: str | None
    evict: bool
    durability: Durability


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """What making a dataset did.

    Attributes:
        verb: What making it is called.
        n_files: Number of files published.
        nbytes: Their sizes added up.
        swap: What became of the folder that was there before.
        evicted: What was deleted to make room.
        files_kept: Files that an earlier call had made whole.
    """

    verb: str
    n_files: int
    nbytes: int
    swap: Swap
    evicted: Sequence[Evicted]
    files_kept: int


def make(
    request: MakeRequest, before: Published, contents: Contents, stamp: str, watch: Watch
) -> Made:
    """Makes a dataset and publishes it.

    Raises:
        DiskFullError: There is too little room; nothing was published.
        DatasetChangedError: The source changed meanwhile.
        DatasetMismatchError: It is not the archive whose SHA-256 was given.
    """
    slot, origin = request.slot, request.origin
    slot.side.mkdir(parents=True, exist_ok=True)
    if contents.files is not None:
        _check_selection(request, contents.files, contents.unfinished)
    with Staging(slot, key=contents.staging_key, planned=contents.files) as staging:
        evicted = _make_room(request, contents, staging)
        files_kept = len(staging.done) + len(staging.unproven)
        try:
            members = origin.fill(staging, _older_copy(slot, request.name, before))
            _check_selection(request, members, contents.unfinished)
        except OSError as error:
            if says_full(error) or says_full(error.__cause__):
                raise full_error(slot) from error
            raise
    actual = origin.checksum()
    if request.checksum is not None and actual != request.checksum:
        move_to_trash(slot, slot.work)
        raise _mismatch(request, actual or "")
    watch.begin(Phase.PUBLISHING, files_total=len(members))
    if stamp and request.stamp_now() != stamp:
        message = f"{request.name} changed while it was read."
        hint = "Run this cell again once nobody writes to it; nothing was published."
        raise DatasetChangedError(message, path=request.name, hint=hint)
    header = Header(
        source=request.name,
        stamp=stamp,
        digest=contents.digest,
        selection=request.selection,
        sha256=request.checksum,
        n_files=len(members),
        nbytes=sum(member.nbytes for member in members),
        inode=0,
        boot=boot_id(),
        synced=False,
        published_s=0.0,
    )
    watch.check()
    swap = publish(slot, staging.tree, members, header, request.durability)
    return Made(contents.verb, header.n_files, header.nbytes, swap, evicted, files_kept)


def _make_room(request: MakeRequest, contents: Contents, staging: Staging) -> list[Evicted]:
    folder = request.slot.folder
    room = room_at(folder.parent)
    needed_bytes, needed_files = contents.nbytes_least, contents.n_folders
    if contents.files is not None:
        left = [file for file in contents.files if file.path not in staging.done]
        needed_bytes = bytes_on_disk((file.nbytes for file in left), room.block_bytes)
        needed_files += len(left)
    elif staging.unproven:
        needed_bytes = 0
    evicted: list[Evicted] = []

    def enough() -> bool:
        now = room_at(folder.parent)
        files_fit = now.free_files is None or now.free_files >= needed_files
        return files_fit and now.free_bytes >= needed_bytes

    if request.evict and not enough():
        evicted = evict(request.slot, enough=enough)
        room = room_at(folder.parent)
    check_room(
        room,
        folder=folder,
        needed_bytes=needed_bytes,
        needed_files=needed_files,
        is_exact=contents.files is not None,
    )
    return evicted


def _older_copy(slot: Slot, name: str, before: Published) -> Before | None:
    if before.manifest is None or before.state is FolderState.FOREIGN:
        return None
    if before.manifest.header.source != name:
        return None
    from colabkit.datasets.folders.mirroring import Before

    members = {member.path: member for member in before.manifest.members()}
    return Before(slot.folder, members)


def _check_selection(
    request: MakeRequest, members: Sequence[Member], unfinished: Sequence[str]
) -> None:
    """Refuses a selection of which a part is not there: a typing error would go unseen."""
    paths = (member.path for member in members)
    nothing = unanswered(request.selection or (), itertools.chain(paths, unfinished))
    if not nothing:
        return
    asked = ", ".join(map(repr, nothing[:_NAMES_SHOWN]))
    if len(nothing) > _NAMES_SHOWN:
        asked += f" and {len(nothing) - _NAMES_SHOWN:,} more"
    message = f"members={asked} names nothing in {request.name}."
    hint = (
        'Give paths as the archive has them: a file, a folder, or a pattern as "train/*"; with a'
        " link also what it leads to."
    )
    raise ArgumentError(message, argument="members", hint=hint)


def says_full(error: BaseException | None) -> bool:
    """Whether an error tells of a disk without room."""
    if isinstance(error, DiskFullError):
        return True
    return isinstance(error, OSError) and error.errno in FULL


def full_error(slot: Slot) -> DiskFullError:
    """Returns what to say of a disk that became full."""
    free_bytes = room_at(slot.side).free_bytes
    message = (
        f"The disk of {slot.folder} became full ({bytes_words(free_bytes)} free);"
        " nothing was published."
    )
    return DiskFullError(
        message,
        path=slot.folder,
        free_bytes=free_bytes,
        hint="Make room and run this cell again: it goes on with what is already whole."
        f" To give up, delete {os.fspath(slot.work)}.",
    )


def _mismatch(request: MakeRequest, actual: str) -> DatasetMismatchError:
    kind = "MD5" if actual.startswith("md5:") else "SHA-256"
    wanted, is_it = (text.removeprefix("md5:") for text in (request.checksum or "", actual))
    message = f"{request.name} has the {kind} {is_it}, not {wanted}."
    return DatasetMismatchError(
        message,
        path=request.name,
        expected=request.checksum or "",
        actual=actual,
        hint="It is another file, or damaged: upload it again. Nothing was published.",
    )
