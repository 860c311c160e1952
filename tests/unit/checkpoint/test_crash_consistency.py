"""Whatever instant the machine dies at, the newest acknowledged checkpoint or a later one loads.

Every primitive file operation of a series of saves is recorded. For each prefix of the
record the disk is made as a crash may leave it: the last write torn, content that was not
fsynced lost or half there, names that were not fsynced missing.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from colabkit.storage import Files
from tests.unit.checkpoint.saving import Machine, loaded_step


@dataclasses.dataclass(frozen=True)
class Operation:
    kind: str
    path: str = ""
    target: str = ""
    data: bytes = b""
    acknowledged: int = -1


class Recording(Files):
    """The real operations, each noted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[Operation] = []
        self._open: dict[int, str] = {}

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._open[descriptor] = self._name(path)
        self.log.append(Operation("create", self._open[descriptor]))
        return descriptor

    def write(self, descriptor: int, data: np.ndarray) -> None:
        super().write(descriptor, data)
        self.log.append(Operation("write", self._open[descriptor], data=bytes(data)))

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        self.log.append(Operation("fsync", self._open[descriptor]))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.log.append(Operation("rename", self._name(source), self._name(target)))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.log.append(Operation("unlink", self._name(path)))

    def truncate(self, path: Path) -> None:
        super().truncate(path)
        self.log.append(Operation("truncate", self._name(path)))

    def fsync_folder(self, path: Path) -> None:
        super().fsync_folder(path)
        self.log.append(Operation("fsync_folder", self._name(path)))


@dataclasses.dataclass
class Inode:
    content: bytes = b""
    durable: bytes = b""
    synced: bool = False


class Disk:
    """What is in memory and what is durable, after some operations."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        self.pending: list[Operation] = []
        self.durable: dict[str, Inode] = {}

    def apply(self, operation: Operation) -> None:
        match operation.kind:
            case "create":
                self.names[operation.path] = Inode()
                self.pending.append(operation)
            case "write":
                self.names[operation.path].content += operation.data
            case "fsync":
                inode = self.names[operation.path]
                inode.durable, inode.synced = inode.content, True
            case "truncate":
                self.names[operation.path].content = b""
            case "rename":
                self.names[operation.target] = self.names.pop(operation.path)
                self.pending.append(operation)
            case "unlink":
                self.names.pop(operation.path, None)
                self.pending.append(operation)
            case "fsync_folder":
                folder = operation.path
                inside = [o for o in self.pending if str(Path(o.path).parent) == folder]
                self.pending = [o for o in self.pending if o not in inside]
                for o in inside:
                    self._settle(o)

    def _settle(self, operation: Operation) -> None:
        if operation.kind == "unlink":
            self.durable.pop(operation.path, None)
        elif operation.kind == "rename":
            self.durable.pop(operation.path, None)
            if operation.target in self.names:
                self.durable[operation.target] = self.names[operation.target]
        elif operation.path in self.names:
            self.durable[operation.path] = self.names[operation.path]

    def crashed(self, chooser: random.Random) -> dict[str, bytes]:
        """Returns the files after a crash: what was not fsynced may be there or not."""
        survivors = dict(self.durable)
        for operation in self.pending:
            if chooser.random() < 0.5:
                continue
            if operation.kind == "unlink":
                survivors.pop(operation.path, None)
            elif operation.kind == "rename" and operation.target in self.names:
                survivors[operation.target] = self.names[operation.target]
            elif operation.kind == "create" and operation.path in self.names:
                survivors[operation.path] = self.names[operation.path]
        return {name: self._content(inode, chooser) for name, inode in survivors.items()}

    @staticmethod
    def _content(inode: Inode, chooser: random.Random) -> bytes:
        if inode.content == inode.durable and inode.synced:
            return inode.content
        choice = chooser.randrange(3)
        if choice == 0:
            return inode.durable
        if choice == 1:
            return inode.content
        return inode.content[: chooser.randrange(len(inode.content) + 1)]


def record(root: Path) -> tuple[list[Operation], list[tuple[int, int]]]:
    """Returns the operations of two sessions, and (operations done, step acknowledged)."""
    files = Recording(root)
    acknowledged = []
    for steps in ([1, 2, 3, 4], [5, 6, 7]):
        machine = Machine(root, files=files)
        machine.open()
        for step in steps:
            machine.save(step, is_best=step == 2)
            acknowledged.append((len(files.log), step))
        machine.close()
    return files.log, acknowledged


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded")
    return record(root)


def test_the_record_holds_saves_and_prunings(recorded):
    log, acknowledged = recorded
    kinds = {operation.kind for operation in log}
    assert {"create", "write", "fsync", "rename", "truncate", "unlink", "fsync_folder"} <= kinds
    assert [step for _, step in acknowledged] == [1, 2, 3, 4, 5, 6, 7]


def test_a_files_bytes_are_durable_before_its_name_and_its_name_before_it_is_acknowledged(recorded):
    log, acknowledged = recorded
    renames = [place for place, operation in enumerate(log) if operation.kind == "rename"]
    assert any(log[place].target.startswith("checkpoints") for place in renames)
    for place in renames:
        name, target = log[place].path, log[place].target
        mine = [o.kind for o in log[:place] if o.path == name]
        assert mine[-1] == "fsync", target
        told = min((done for done, _ in acknowledged if done > place), default=len(log))
        folders = [o.path for o in log[place:told] if o.kind == "fsync_folder"]
        assert str(Path(target).parent) in folders, target


@pytest.mark.parametrize("seed", range(4))
def test_every_prefix_leaves_the_newest_acknowledged_checkpoint(recorded, seed, tmp_path):
    log, acknowledged = recorded
    chooser = random.Random(seed)
    disk = Disk()
    for count in range(len(log) + 1):
        if count:
            disk.apply(log[count - 1])
        promised = max((step for done, step in acknowledged if done <= count), default=None)
        root = tmp_path / str(count)
        files = disk.crashed(chooser)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (root / "mine").mkdir(parents=True, exist_ok=True)
        (root / "mine" / "notes.txt").write_text("not yours")
        if promised is not None:
            found = loaded_step(root)
            assert found is not None
            assert found >= promised, (count, files.keys())
        assert (root / "mine" / "notes.txt").read_text() == "not yours"


def test_a_session_after_a_crash_goes_on_and_sweeps(recorded, tmp_path):
    log, _ = recorded
    disk = Disk()
    for operation in itertools.islice(log, len(log) // 2):
        disk.apply(operation)
    for name, content in disk.crashed(random.Random(1)).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    machine = Machine(tmp_path)
    machine.open()
    machine.save(9)
    machine.save(10)
    machine.save(11)
    machine.close()
    assert loaded_step(tmp_path) == 11
