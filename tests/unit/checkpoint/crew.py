"""Several writers of one run folder, as processes are, each with tensors and savers of its own."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from colabkit.checkpoint import (
    Company,
    Lease,
    Manifest,
    PartSaver,
    RunFolder,
    SaveFacts,
    Saver,
    Section,
)
from colabkit.checkpoint.store import CheckpointStore
from colabkit.errors import LeaseLostError
from colabkit.storage import Bytes, Files, LocalVolume, Volume
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor
from tests.unit.checkpoint.saving import weights_of

LAYERS = 5


class Desk:
    """What the writers leave for each other."""

    def __init__(self, size: int) -> None:
        self.size, self.gone = size, set[int]()
        self.content: dict[tuple[str, int], str] = {}

    def of(self, rank: int) -> Place:
        return Place(self, rank)


class Place:
    """The desk, as one of them sees it."""

    def __init__(self, desk: Desk, rank: int) -> None:
        self.rank, self.size, self._desk = rank, desk.size, desk

    def post(self, name: str, content: str) -> None:
        if self.rank not in self._desk.gone:
            self._desk.content[name, self.rank] = content

    def posted(self, name: str, rank: int) -> str | None:
        return self._desk.content.pop((name, rank), None)

    def lost(self) -> str:
        others = self._desk.gone - {self.rank}
        return f"process {min(others)} is gone" if others else ""


class Writer:
    """One of them; number 0 publishes."""

    def __init__(self, crew: Crew, rank: int, files: Files | Volume) -> None:
        self.rank, self._crew = rank, crew
        is_folder = isinstance(files, Files)
        self.volume = LocalVolume(crew.root, files, empty_first=True) if is_folder else files
        self.backend = NumpyBackend()
        self.layers = {f"w{number}": Tensor(weights_of(0)) for number in range(LAYERS)}
        self.saver: Saver | None = None
        self.is_torn = False

    def train(self, step: int) -> None:
        for number, tensor in enumerate(self.layers.values()):
            tensor.values[:] = weights_of(100 * step + number, size=tensor.values.size)

    def sections(self, step: int) -> list[Section]:
        run = [Section("run", {"step": step}, weights=False)] if not self.rank else []
        return [Section("model", dict(self.layers), weights=True), *run]

    def offer(self, step: int) -> None:
        assert self.saver is not None
        is_whole, self.is_torn = not self.is_torn, False
        accepted = self.saver.offer(
            self.sections(step),
            SaveFacts(step=step),
            is_guarded=lambda _: True,
            still_valid=lambda _: is_whole,
        )
        assert accepted

    def close(self) -> None:
        if self.saver is not None:
            self.saver.close()


class Crew:
    """All of them, in one session on a run folder.

    Args:
        root: The run folder, or its URL.
        files: What each works with: the files of a folder, or another volume.
    """

    def __init__(self, root: Path | str, files: Sequence[Files | Volume]) -> None:
        self.root, self.desk = root, Desk(len(files))
        self.writers = [Writer(self, rank, each) for rank, each in enumerate(files)]
        for rank, each in enumerate(files):
            if isinstance(each, Doomed):
                each.on_death = functools.partial(self.desk.gone.add, rank)
        self.company = Company(self.desk.of(0))

    def open(self) -> None:
        first = self.writers[0]
        store = CheckpointStore(first.volume, keep=2)
        lease = Lease(first.volume)
        lease.acquire(max((n.generation for n in store.names()), default=0))
        trusted = [store.manifest(name) for name in store.names()[:1]]
        is_folder = first.volume.root is not None
        if is_folder:
            store.sweep()
        first.saver = Saver(
            store, first.backend, lease=lease, attempt=1, trusted=trusted, has_swept=is_folder
        )
        first.saver.share_with(self.company)

    def train(self, step: int) -> None:
        for writer in self.writers:
            writer.train(step)

    def save(self, step: int) -> bool:
        """Saves a step; returns whether it is acknowledged, at once or when it is taken again."""
        first = self.writers[0]
        self.train(step)
        for _ in range(3):
            self._take(step)
            assert first.saver is not None
            first.saver.flush()
            first.saver.settle()
            if not first.saver.status().wants_retake:
                return True
        return False

    def _take(self, step: int) -> None:
        first = self.writers[0]
        assert first.saver is not None
        newest = first.saver.newest
        call = self.company.call(first.saver.next_name, newest.name if newest is not None else None)
        for writer in self.writers[1:]:
            if call is None or writer.rank in self.desk.gone:
                continue
            if writer.saver is None:
                posts = self.desk.of(writer.rank)
                writer.saver = PartSaver(CheckpointStore(writer.volume), writer.backend, posts)
            assert isinstance(writer.saver, PartSaver)
            if writer.saver.begin(call):
                writer.offer(step)
        first.offer(step)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


def loaded_step(root: Path) -> int | None:
    """Returns the step of the newest whole checkpoint, having compared every bit."""
    loaded = RunFolder(root).newest_valid(NumpyBackend())
    if loaded is None:
        return None
    step = loaded.facts.step
    for number in range(LAYERS):
        found = loaded.sections["model"][f"w{number}"].values
        assert np.array_equal(found, weights_of(100 * step + number))
    assert loaded.sections["run"]["step"] == step
    return step


class DeadError(BaseException):
    """A process is no more: nothing of it runs any further."""


class Doomed:
    """Counts what a process does, and lets it do no more from a chosen point on."""

    def __init__(self, dies_at: int = -1) -> None:
        self.count, self._dies_at = 0, dies_at
        self.on_death: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def _act(self) -> None:
        with self._lock:
            is_dead = 0 <= self._dies_at <= self.count
            self.count += 1
        if is_dead:
            self.on_death()
            raise DeadError


class Mortal(Doomed, Files):
    """The files of a process that dies; what it writes last is there by half."""

    def create(self, path: Path) -> int:
        self._act()
        return super().create(path)

    def write(self, descriptor: int, data: np.ndarray) -> None:
        if self.count == self._dies_at:
            super().write(descriptor, data[: len(data) // 2])
        self._act()
        super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._act()
        super().fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._act()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._act()
        super().unlink(path)

    def truncate(self, path: Path) -> None:
        self._act()
        super().truncate(path)

    def fsync_folder(self, path: Path) -> None:
        self._act()
        super().fsync_folder(path)


class MortalVolume(Doomed):
    """A volume with which its process does no more from a chosen point on, none of it by half."""

    def __init__(self, volume: Volume, dies_at: int = -1) -> None:
        super().__init__(dies_at)
        self._volume = volume
        self.location, self.is_slow, self.root = volume.location, volume.is_slow, volume.root

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        self._act()
        self._volume.write(name, parts)

    def read(self, name: str) -> Bytes:
        self._act()
        return self._volume.read(name)

    def list(self, folder: str) -> dict[str, int]:
        self._act()
        return self._volume.list(folder)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._act()
            self._volume.delete([name])


class Full(Files):
    """A disk that is full for one process."""

    is_full = False

    def write(self, descriptor: int, data: np.ndarray) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, data)


def live(crew: Crew, *, saves: int, loaded: Callable[[Path | str], int | None]) -> None:
    """Has a crew save while one of it may die; what is loaded is what was acknowledged.

    Args:
        crew: The crew.
        saves: How often they save.
        loaded: Returns the step of the newest whole checkpoint, having compared every bit.
    """
    acknowledged = None
    try:
        crew.open()
        for step in range(1, saves + 1):
            if crew.save(step):
                acknowledged = step
            assert loaded(crew.root) == acknowledged
    except DeadError:
        assert crew.desk.gone == {0}
    finally:
        for writer in crew.writers[1:]:
            writer.close()
        with contextlib.suppress(DeadError):
            crew.writers[0].close()
    assert (loaded(crew.root) or 0) >= (acknowledged or 0)


def newest(root: Path | str) -> Manifest:
    store = RunFolder(root).store
    return store.manifest(store.names()[0])


def ranks_in(manifest: Manifest) -> set[int]:
    """Returns the numbers of the processes whose files a checkpoint names."""
    found = (re.search(r"-r(\d{4})-", name) for name in manifest.shards)
    return {int(each[1]) if each else 0 for each in found}


def shards(root: Path | str) -> dict[str, int]:
    return RunFolder(root).store.volume.list("shards")


def named_shards(root: Path | str) -> set[str]:
    """Returns the names of all files that some checkpoint refers to."""
    store = RunFolder(root).store
    return {shard for name in store.names() for shard in store.manifest(name).shards}


def taken_over(crew: Crew, newer: Crew) -> None:
    """Has a newer session take a crew's folder: the crew publishes nothing, and leaves nothing."""
    before = shards(crew.root)
    newer.open()
    with pytest.raises(LeaseLostError):
        crew.save(9)
    newer.close()
    assert shards(crew.root) == before
