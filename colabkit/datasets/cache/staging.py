"""The folder that a dataset is built in, and the journal of what is whole in it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from colabkit.datasets.cache.checking import boot_id, damaged_members, walk_sizes
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.cache.slots import Slot

_TREE = "tree-"


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
        self.tree = slot.work / f"{_TREE}{uuid.uuid4().hex[:8]}"
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
        aside = self._journal_path.with_suffix(f".{os.getpid()}-{uuid.uuid4().hex[:8]}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND
        descriptor = os.open(aside, flags, 0o644)
        try:
            first = json.dumps({"key": key, "boot": boot_id()}).encode() + b"\n"
            _write_all(descriptor, first + b"".join(map(_line, self.done.values())))
            aside.replace(self._journal_path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                aside.unlink()
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
    gone = slot.trash / uuid.uuid4().hex
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
    row = [member.path, member.nbytes, member.crc32, member.mtime_ns]
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


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
