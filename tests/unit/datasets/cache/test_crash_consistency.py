"""Whatever instant the machine dies at while a dataset gets its name, the next call has it whole.

The process is killed before each operation of publishing. Then the disk is made as a crash of the
machine may leave it: of renamings in folders that were not fsynced some have never been, and files
that were not fsynced are torn or missing. (Of the process alone: ``test_sharing.py``.)
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import colabkit
from colabkit.datasets import making
from colabkit.datasets.cache import manifest, publishing
from colabkit.datasets.cache.publishing import Durability
from colabkit.storage import files
from tests.abilities import SOAK
from tests.unit.datasets.sources import content_of, make_zip, put, some_files

FILES, OLD = some_files(9), some_files(4, seed=1)
NOTES, THEIRS = "notes.txt", "an older one, with a file of the user's"
LONG = (pytest.mark.soak, pytest.mark.needs(SOAK))


@dataclasses.dataclass(frozen=True)
class Operation:
    """One step of publishing that was done.

    Attributes:
        kind: "rename", "fsync" of a file or folder, or "sync" of all.
        number: That on the file system of what was renamed or fsynced.
        source: The number of the folder it was in before, and its name there.
        target: The same of where it was renamed to.
        replaced: A copy of the file that was there, "" where there was none.
    """

    kind: str
    number: int
    source: tuple[int, str] = (0, "")
    target: tuple[int, str] = (0, "")
    replaced: str = ""


def entry(path: Path) -> tuple[int, str]:
    return os.lstat(path.parent).st_ino, path.name


class Recorder:
    """Notes each operation in a file, and ends the process before one of them."""

    def __init__(self, log: Path, dies_before: int) -> None:
        self._log = log
        self._left = dies_before

    def _before(self) -> None:
        if not self._left:
            os._exit(9)
        self._left -= 1

    def _note(self, *fields: Any) -> None:
        with self._log.open("a") as file:
            file.write(json.dumps(fields) + "\n")

    def synced(self, real: Callable[..., None], kind: str = "fsync") -> Callable[..., None]:
        def step(place: Any, *more: Any) -> None:
            self._before()
            # A file is given by its descriptor, behind what it is a method of.
            at = more[0] if more else place
            number = (os.fstat(at) if isinstance(at, int) else os.lstat(at)).st_ino
            real(place, *more)
            self._note(kind, number)

        return step

    def renamed(self, real: Callable[..., Path]) -> Callable[..., Path]:
        def step(source: Path, target: Path) -> Path:
            self._before()
            number, came_from, replaced = os.lstat(source).st_ino, entry(source), ""
            if target.is_file():
                replaced = shutil.copy2(target, f"{self._log}.{self._left}")
            made = real(source, target)
            self._note("rename", number, came_from, entry(target), replaced)
            return made

        return step

    def hook(self) -> None:
        """Has all that publishing does to the disk pass here."""
        for owner, name in ((Path, "rename"), (Path, "replace")):
            setattr(owner, name, self.renamed(getattr(owner, name)))
        for owner, name in (
            (files.Files, "fsync"),
            (files.Files, "fsync_folder"),
            (publishing, "sync_folder"),
        ):
            setattr(owner, name, self.synced(getattr(owner, name)))
        everything = publishing.sync_file_system
        publishing.sync_file_system = self.synced(everything, "sync")


def died_before(
    point: int, archive: Path, dest: Path, durability: Durability
) -> tuple[list[Operation], bool]:
    """Returns what publishing has done in a process that then died, and whether that was all."""
    log = dest.parent / "log"
    for thread in threading.enumerate():
        if thread.name == "colabkit-delete":
            thread.join()  # a child has no thread but this one
    child = os.fork()
    if not child:
        publish = making.publish

        def recorded(*args: Any) -> Any:
            Recorder(log, point).hook()
            publish(*args[:-1], durability)
            os._exit(0)

        making.publish = recorded
        try:
            colabkit.dataset(archive, dest, progress=False)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, 9}
    rows = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    return [Operation(r[0], r[1], *map(tuple, r[2:4]), *r[4:]) for r in rows], not code


def crash(dest: Path, done: list[Operation], chooser: random.Random) -> None:
    """Leaves of a disk what may be left of it when the machine goes down."""
    root, durable = dest.parent, set[int]()
    made = {o.number for o in done if o.kind == "rename" and o.target[1] == dest.name}
    made |= {path.stat().st_ino for path in root.glob(".colabkit/out/work/tree-*")}
    if not any(operation.kind == "sync" for operation in done):
        for number in made:
            tear(path_of(number, root), chooser)
    for operation in reversed(done):
        if operation.kind == "sync":
            break
        if operation.kind == "fsync":
            durable.add(operation.number)
        elif not {operation.source[0], operation.target[0]} & durable and chooser.random() < 0.5:
            undo(operation, root)


def path_of(number: int, root: Path) -> Path:
    return next(path for path in [root, *root.rglob("*")] if os.lstat(path).st_ino == number)


def undo(operation: Operation, root: Path) -> None:
    """Takes a renaming back, wherever the folders lie by now, where nothing stands in its way."""
    back = path_of(operation.source[0], root) / operation.source[1]
    if os.path.lexists(back):
        return
    path_of(operation.number, root).rename(back)
    if operation.replaced:
        shutil.copy2(operation.replaced, path_of(operation.target[0], root) / operation.target[1])


def tear(folder: Path, chooser: random.Random) -> None:
    """Takes from files what nobody has waited for."""
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        match chooser.randrange(5):
            case 0:
                os.truncate(path, chooser.randrange(path.stat().st_size + 1))
            case 1:
                path.write_bytes(bytes(path.stat().st_size))
            case 2:
                path.unlink()


def begin(folder: Path, before: str) -> tuple[Path, Path]:
    """Returns a new archive, and a destination that holds an older one or nothing."""
    folder.mkdir(parents=True)
    dest = folder / "out"
    if before:
        archive = make_zip(folder / "a.zip", OLD)
        publishing.let_go(colabkit.dataset(archive, dest, progress=False))
    if before == THEIRS:
        put(dest / NOTES, b"mine")
    return make_zip(folder / "a.zip", FILES), dest


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=LONG) for n in range(1, 20))])
@pytest.mark.parametrize("durability", [Durability.MANIFEST, Durability.ALL])
@pytest.mark.parametrize("before", ["", "an older one", THEIRS])
def test_a_machine_that_dies_before_any_step_of_publishing_loses_nothing(
    before, durability, seed, tmp_path, monkeypatch
):
    boot = tmp_path / "boot"
    monkeypatch.setattr(manifest, "_BOOT_ID", boot)
    for point in range(30):
        if durability is Durability.MANIFEST:
            boot.write_bytes(b"before")
        archive, dest = begin(tmp_path / f"{point}", before)
        done, is_all = died_before(point, archive, dest, durability)
        crash(dest, done, random.Random(f"{seed} {point}"))
        if durability is Durability.MANIFEST:
            boot.write_bytes(b"after")
        assert colabkit.dataset(archive, dest, progress=False) == dest
        assert content_of(dest) == FILES
        kept = [path.read_bytes() for path in dest.parent.glob(f"out*/{NOTES}")]
        assert kept == ([b"mine"] if before == THEIRS else [])
        assert not (dest.parent / ".colabkit/out/work").exists()
        if is_all:
            break
    assert {"rename", "fsync"} <= {operation.kind for operation in done}
    assert point >= (8 if before else 7)
