"""Whatever befalls a call at any of its file operations: nothing half made gets the name.

Each call is a process of its own that something befalls before one operation: it is killed,
interrupted once or twice, its disk becomes full, or its source goes or changes. What lies there
then is whole, and the next call has all and leaves nothing beside it. (Of publishing step by step:
``cache/test_crash_consistency.py``; reads that hang: ``tests/integration/test_dataset_waits.py``.)
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import colabkit
from colabkit import errors
from colabkit.errors import ColabKitError
from tests.abilities import SEVEN_ZIP, SOAK
from tests.unit.datasets.building import side_by_side, stored_rar
from tests.unit.datasets.sources import content_of, make_folder, make_tar, make_zip, put

Content = Mapping[str, bytes]
Before = Callable[[int, str, tuple[Any, ...]], None]
"""Is told an operation's number, name and arguments."""
Fault = Callable[["Scene", int], Before]
_draw = random.Random(5)
_SIZES = (0, 5, 3_000, 40_000)
NEW = {f"c{n % 3}/{n}.bin": _draw.randbytes(_draw.choice(_SIZES)) for n in range(10)}
OLD = {name: data[::-1] for name, data in NEW.items()} | {"c0/old.txt": b"old"}
POINTS = 1
LONG = (pytest.mark.soak, pytest.mark.needs(SOAK))
OPERATIONS = (
    *("open", "mkdir", "rename", "replace", "unlink", "rmdir", "write", "pread", "link", "utime"),
    *("stat", "lstat", "scandir", "listdir"),
)
# A renaming takes no room.
_WRITING = frozenset({"mkdir", "write", "link"})
_write = os.write
# What lies beside a dataset while nobody makes it.
_BESIDE = {
    *(".colabkit", ".colabkit/.trash", ".colabkit/out"),
    *(f".colabkit/out/{name}" for name in ("lock", "manifest")),
    "tmp",
}


def put_7z(path: Path, files: Content) -> Path:
    folder = make_folder(path.with_name("in7z"), files)
    path.unlink(missing_ok=True)
    subprocess.run(["7z", "a", "-bd", path, "."], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder)
    return put(path, path.read_bytes())


def put_folder(path: Path, files: Content) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return make_folder(path, files)


def put_parts(path: Path, files: Content) -> Path:
    data = make_zip(path.with_name("whole"), files).read_bytes()
    path.with_name("whole").unlink()
    third = len(data) // 3 + 1
    for n in range(3):
        put(path / f"a.zip.00{n + 1}", data[n * third : (n + 1) * third])
    return path / "a.zip.002"


def put_shards(path: Path, files: Content) -> list[Path]:
    path.mkdir(exist_ok=True)
    names = sorted(files)
    return [make_zip(path / f"{n}.zip", {k: files[k] for k in names[n::3]}) for n in range(3)]


def put_nested(path: Path, files: Content) -> Path:
    inner = make_zip(path.with_name("inner"), files)
    make_zip(path, {"x/inner.zip": inner.read_bytes()})
    inner.unlink()
    return path


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
        put: Writes it.
        name: What it is called.
        options: How ``dataset`` is called.
        below: The folder in which its files come out.
    """

    put: Callable[[Path, Content], Any]
    name: str
    options: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    below: str = ""


KINDS = {
    "zip": Kind(make_zip, "a.zip"),
    "zip by threads": Kind(make_zip, "a.zip"),
    "tar.gz": Kind(functools.partial(make_tar, mode="w:gz"), "a.tar.gz"),
    "7z": Kind(put_7z, "a.7z"),
    "rar": Kind(lambda path, files: put(path, stored_rar(dict(files))), "a.rar"),
    "folder": Kind(put_folder, "cats"),
    "packed": Kind(put_folder, "cats", {"pack": True}),
    "shards": Kind(put_shards, "shards"),
    "parts": Kind(put_parts, "parts"),
    "nested": Kind(put_nested, "a.zip", {"nested": True}, "x/inner/"),
}


class Scene:
    """A source of one kind, and a place for the dataset that may hold an older one."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.base, self.dest = folder, folder / "out"
        (folder / "tmp").mkdir(parents=True)
        self._kind, self._by_threads = KINDS[kind], kind.endswith("threads")
        self._source: Any = None

    def put(self, files: Content) -> None:
        """Writes the source with these files."""
        self._source = self._kind.put(self.base / self._kind.name, files)

    def remove(self) -> None:
        """Removes the source."""
        path = self.base / self._kind.name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def content(self) -> Content | None:
        """Returns the files that were published, None where nothing was."""
        made = content_of(self.dest) if self.dest.is_dir() else None
        if made is None:
            return None
        return {path.removeprefix(self._kind.below): data for path, data in made.items()}

    def left(self) -> set[str]:
        """Returns what lies beside source and dataset."""
        own = (self.dest.name, self._kind.name, f"{self._kind.name}.packed.zip")
        paths = (path.relative_to(self.base) for path in self.base.rglob("*"))
        left = {str(path) for path in paths if path.parts[0] not in own}
        # Another machine may be at a pack on Drive: it is old before it is taken away.
        return {name for name in left - _BESIDE if not name.startswith(".colabkit-pack-")}

    def call(self, before: Before | None = None) -> tuple[str, int]:
        """Calls in a process of its own.

        Args:
            before: Is called before each file operation.

        Returns:
            "done", what was raised, or "killed"; and how many operations there were.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                tempfile.tempdir = str(self.base / "tmp")
                watch = Operations(before)
                said = self._outcome()
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                for thread in threading.enumerate():
                    if thread.name == "colabkit-delete":
                        thread.join()
                _write(writing, json.dumps([said, watch.count]).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as answer:  # noqa: PTH123 - a descriptor
            told = answer.read()
        os.waitpid(child, 0)
        said, count = json.loads(told) if told else ("killed", 0)
        return said, count

    def _outcome(self) -> str:
        try:
            with side_by_side(really=self._by_threads):
                colabkit.dataset(self._source, self.dest, progress=False, **self._kind.options)
        except (ColabKitError, KeyboardInterrupt) as error:
            return type(error).__name__
        except BaseException as error:
            return repr(error)
        return "done"


class Operations:
    """Has each file operation of this process pass by, and counts them."""

    def __init__(self, before: Before | None) -> None:
        self.count = 0
        self._before = before
        self._guard = threading.Lock()
        for name in OPERATIONS:
            setattr(os, name, functools.partial(self._pass_by, name, getattr(os, name)))

    def _pass_by(self, name: str, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        with self._guard:
            number, self.count = self.count, self.count + 1
        if self._before is not None:
            self._before(number, name, args)
        return real(*args, **options)


def once(act: Callable[[Scene], object], *places: int) -> Fault:
    """Returns what does something before one operation, and before some further ones."""

    def fault(scene: Scene, at: int) -> Before:
        def before(number: int, _name: str, _args: tuple[Any, ...]) -> None:
            if number - at in (0, *places):
                act(scene)

        return before

    return fault


def full(_scene: Scene, at: int) -> Before:
    """The disk takes nothing any more."""

    def before(number: int, name: str, args: tuple[Any, ...]) -> None:
        makes = name == "open" and len(args) > 1 and args[1] & os.O_CREAT
        if number >= at and (makes or name in _WRITING):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a disk")

    return before


def interrupt(_scene: Scene) -> None:
    os.kill(os.getpid(), signal.SIGINT)


FAULTS: Mapping[str, Fault] = {
    "killed": once(lambda _: os._exit(9)),
    "interrupted": once(interrupt),
    "interrupted twice": once(interrupt, 3),
    "full": full,
    "gone": once(Scene.remove),
    "changed": once(lambda scene: scene.put(OLD)),
}
# What a call may say that the fault has reached; any error of colabkit's where there is none.
SAYS = {
    "killed": {"killed"},
    "interrupted": {"KeyboardInterrupt", "killed"},
    "interrupted twice": {"KeyboardInterrupt", "killed"},
    "full": {"DiskFullError"},
}


@functools.cache
def operations_of(kind: str, *, had_one: bool) -> int:
    """Returns how many operations a call has that nothing befalls."""
    with tempfile.TemporaryDirectory() as folder:
        said, count = begun(kind, Path(folder) / "x", had_one=had_one).call()
    assert said == "done"
    return count


def points_of(kind: str, fault: str, *, had_one: bool) -> Sequence[int]:
    """Returns before which operations the fault comes: some of them, or all in a sweep."""
    every = range(operations_of(kind, had_one=had_one))
    return every if not SOAK.lack() else random.Random(f"{kind} {fault}").sample(every, POINTS)


def begun(kind: str, folder: Path, *, had_one: bool) -> Scene:
    """Returns a scene with a new source, beside what was made of an old one."""
    scene = Scene(kind, folder)
    if had_one:
        scene.put(OLD)
        assert scene.call()[0] == "done"
    scene.put(NEW)
    return scene


@pytest.mark.parametrize("had_one", [pytest.param(False, marks=LONG), True], ids=["first", "again"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_befalls_a_call_leaves_nothing_half_made(tmp_path, kind, fault, had_one):
    if kind == "7z":
        SEVEN_ZIP.require()
        pytest.importorskip("py7zr")
    for at in points_of(kind, fault, had_one=had_one):
        scene = begun(kind, tmp_path / f"{at}", had_one=had_one)
        said, count = scene.call(FAULTS[fault](scene, at))
        was_met = said == "killed" or count > at
        where = f"{kind}, {fault} before operation {at}: {said}"
        assert said == "done" or said in SAYS.get(fault, vars(errors)), where
        may_lie = [NEW] if said == "done" else [NEW, OLD if had_one else None]
        if fault == "gone" and had_one:
            may_lie.append(OLD)  # what was made before is taken where its source cannot be reached
        if fault == "changed":
            may_lie.append(OLD)
        if said == "killed":
            may_lie.append(None)  # the old one has left its place, the new one not come
        assert scene.content() in may_lie, where
        if fault == "gone":
            scene.put(NEW)
        assert scene.call()[0] == "done", where
        assert scene.content() == (OLD if fault == "changed" and was_met else NEW), where
        # The next call takes away what was begun of a source that is another by now.
        assert scene.call()[0] == "done", where
        assert scene.left() == set(), where
        shutil.rmtree(scene.base)


def test_an_older_dataset_stays_where_there_is_no_room_for_the_list_of_a_newer_one(tmp_path):
    scene = begun("zip", tmp_path / "x", had_one=True)

    def before(_number: int, name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and Path(args[0]).name.startswith("manifest."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), args[0])

    assert scene.call(before)[0] == "DiskFullError"
    assert scene.content() == OLD
    assert scene.call()[0] == "done"
    assert scene.content() == NEW


def test_a_disk_that_takes_no_folder_is_called_full(tmp_path):
    scene = begun("zip", tmp_path / "x", had_one=False)
    assert scene.call(full(scene, 0))[0] == "DiskFullError"
    assert scene.content() is None
