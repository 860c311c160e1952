"""The folder a dataset is built in, the name it gets when finished, and how durable that is."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import itertools
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from colabkit.datasets.cache.manifest import (
    DatasetManifest,
    FolderState,
    Header,
    Member,
    boot_id,
    damaged_members,
    encode,
    folder_state,
    folder_times,
    foreign_files,
    pack_members,
    read_manifest,
    walk_sizes,
)
from colabkit.datasets.cache.slots import Slot, alone_with, let_go
from colabkit.errors import DestinationTakenError
from colabkit.runtime import detect_platform
from colabkit.storage import write_whole

_TREE = "tree-"
_STAGED_MANIFEST = "manifest"


class Durability(enum.Enum):
    """What is waited for before a dataset gets its name."""

    NONE = "nothing: the disk goes with the machine"
    MANIFEST = "the manifest: after a crash every file is read and compared with it"
    ALL = "every byte: nothing would tell that the machine went down"


def durability_here() -> Durability:
    """Returns what to wait for on this machine."""
    if detect_platform().is_hosted:
        return Durability.NONE
    return Durability.MANIFEST if boot_id() else Durability.ALL


def sync_file_system(folder: Path) -> None:
    """Waits until everything written to a folder's file system is durable."""
    import ctypes  # a hosted machine waits for nothing

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until a folder's names are durable, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Staging:
    """A dataset in the making; what a killed call left whole is kept by the next.

    Args:
        slot: The dataset's place; the caller holds its lock.
        key: Names what is being built; what another key built is thrown away.
        planned: What is to be built: a file there that has the size and the CRC it should
            have is whole, noted or not. None where only reading the source tells.

    Attributes:
        tree: The folder that becomes the dataset.
        done: The files that are whole, by path.
        unproven: Paths of files of a call before, whole or not, where nothing was planned.
    """

    def __init__(self, slot: Slot, *, key: str, planned: Iterable[Member] | None = ()) -> None:
        self._slot = slot
        self._journal_path = slot.work / "journal"
        self._guard = threading.Lock()
        # A process that a killed call left behind may write for a moment yet: not in here.
        self.tree = slot.work / f"{_TREE}{os.urandom(4).hex()}"
        self.done: dict[str, Member] = {}
        self.unproven: set[str] = set()
        begun = _read_journal(self._journal_path)
        staged = staged_tree(slot)
        if begun is not None and begun.key == key and staged is not None:
            staged.rename(self.tree)
            self.done = _still_whole(self.tree, begun, planned or ())
            if planned is None:
                self.unproven = {path for path, _ in walk_sizes(self.tree)} - self.done.keys()
            else:
                _remove_others(self.tree, self.done)
        else:
            move_to_trash(slot, slot.work)
            self.tree.mkdir(parents=True)
        self._descriptor = self._begin_journal(key)

    def note(self, member: Member) -> None:
        """Notes that a file is whole; any thread may say so."""
        with self._guard:
            self.done[member.path] = member
            os.write(self._descriptor, _line(member))

    def drop(self, paths: set[str]) -> None:
        """Forgets and removes files that do not belong to the dataset any more."""
        for path in paths & self.done.keys():
            del self.done[path]
            (self.tree / path).unlink()

    def proven(self, members: Iterable[Member]) -> None:
        """Takes note that files of a call before are whole."""
        for member in members:
            self.unproven.discard(member.path)
            self.note(member)

    def remove(self, paths: Iterable[str]) -> None:
        """Removes files of a call before that are not whole."""
        for path in paths:
            self.unproven.discard(path)
            (self.tree / path).unlink()

    def close(self) -> None:
        """Closes the journal; what is staged stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begin_journal(self, key: str) -> int:
        temporary = self._journal_path.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND
        descriptor = os.open(temporary, flags, 0o644)
        try:
            first = json.dumps({"key": key, "boot": boot_id()}).encode() + b"\n"
            _write_all(descriptor, first + b"".join(map(_line, self.done.values())))
            temporary.replace(self._journal_path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return descriptor


def staged_tree(slot: Slot) -> Path | None:
    """Returns the folder that a call left unfinished, None when there is none."""
    return next(slot.work.glob(f"{_TREE}*"), None)


def move_to_trash(slot: Slot, folder: Path) -> Path | None:
    """Renames a folder of colabkit's own into the trash; returns its new place.

    Deleting first would be slow twice: the unlinks themselves, and the creation after them.
    """
    if not os.path.lexists(folder):
        return None
    slot.trash.mkdir(parents=True, exist_ok=True)
    gone = slot.trash / os.urandom(16).hex()
    folder.rename(gone)
    return gone


class _Journal:
    __slots__ = ("boot", "key", "members")

    def __init__(self, key: str, boot: str, members: dict[str, Member]) -> None:
        self.key, self.boot, self.members = key, boot, members


def _read_journal(path: Path) -> _Journal | None:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    try:
        first = json.loads(lines[0])
        # What comes after the last line's end is a line that a killed call did not finish.
        rows = [json.loads(line) for line in lines[1:-1]]
        return _Journal(first["key"], first["boot"], {row[0]: Member(*row) for row in rows})
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def _line(member: Member) -> bytes:
    return json.dumps(member, separators=(",", ":")).encode() + b"\n"


def _still_whole(tree: Path, begun: _Journal, planned: Iterable[Member]) -> dict[str, Member]:
    sizes = dict(walk_sizes(tree))
    noted = [m for m in begun.members.values() if sizes.get(m.path) == m.nbytes]
    known = {m.path for m in noted}
    to_read = [
        m
        for m in planned
        if m.crc32 is not None and sizes.get(m.path) == m.nbytes and m.path not in known
    ]
    if not begun.boot or begun.boot != boot_id():
        # The machine went down since: a size may be there without the bytes.
        to_read += noted
    damaged = set(damaged_members(tree, to_read))
    return {m.path: m for m in [*noted, *to_read] if m.path not in damaged}


def _remove_others(tree: Path, done: Mapping[str, Member]) -> None:
    for path in [path for path, _ in walk_sizes(tree) if path not in done]:
        (tree / path).unlink()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@dataclasses.dataclass(frozen=True, slots=True)
class Published:
    """What lies in a dataset's place.

    Attributes:
        manifest: What was published there, None where nothing was or something else lies there.
        state: How the folder looks beside it.
    """

    manifest: DatasetManifest | None
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


def published_in(slot: Slot) -> Published:
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


def write_manifest(path: Path, manifest: DatasetManifest, durability: Durability) -> None:
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
    before = published_in(slot)
    manifest = DatasetManifest(header, folder_times(tree), pack_members(members))
    # While there is room for it: a full disk may not cost the dataset that is there.
    write_manifest(slot.work / _STAGED_MANIFEST, manifest, durability)
    swap = _move_away(slot, before)
    try:
        tree.rename(slot.folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY}:
            raise taken(slot) from error
        raise
    if durability is not Durability.NONE:
        sync_folder(slot.folder.parent)
    finish(slot, durability)
    return swap


def finish(slot: Slot, durability: Durability) -> None:
    """Takes the last step of publishing where a killed call left it undone."""
    staged = slot.work / _STAGED_MANIFEST
    manifest = read_manifest(staged)
    if manifest is None or staged_tree(slot) is not None:
        return
    staged.replace(slot.manifest)
    if durability is not Durability.NONE:
        # A crash may keep the next renaming and lose this one: the folder would be nobody's.
        sync_folder(slot.side)
    with contextlib.suppress(OSError):
        # All is published: what is left lies there until the next call.
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
        kept = _free_name(slot.folder)
        slot.folder.rename(kept)
        return Swap(kept=kept)
    return Swap(trash=move_to_trash(slot, slot.folder))


def _free_name(folder: Path) -> Path:
    """Returns where to put a folder that is kept: two may be within one second."""
    first = f"{folder.name}.kept-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([first], (f"{first}-{n}" for n in itertools.count(2)))
    return next(path for path in map(folder.with_name, names) if not os.path.lexists(path))


def _delete_all(trash: Path) -> None:
    import shutil  # with the packers it brings; most calls have no trash

    with contextlib.suppress(OSError):
        for folder in list(trash.iterdir()):
            with alone_with(folder) as alone:
                if alone:
                    shutil.rmtree(folder, ignore_errors=True)
