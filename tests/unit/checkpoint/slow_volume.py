"""A volume like Drive's in a plain folder: uploads later, is lost, forgets; and a session on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from colabkit.checkpoint import CheckpointStore, Lease, SaveFacts, Saver, Uploader
from colabkit.errors import DriveLostError
from colabkit.storage import Bytes, LocalVolume
from tests.unit.checkpoint.numpy_backend import NumpyBackend
from tests.unit.checkpoint.saving import Machine, weights_of


class SlowVolume(LocalVolume):
    """Blobs that are uploaded when ``uploads`` says so, unless the mount is ``lost``."""

    is_slow = True

    def __init__(self, root: Path) -> None:
        super().__init__(root, empty_first=True)
        self.is_slow = True
        self.lost = False
        self.silent = False
        self.uploads = True
        self.uploaded: set[str] = set()
        self.manifests: list[str] = []
        self.failure: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        self.gate.wait()
        self._require()
        super().write(name, parts)
        if name.startswith("checkpoints/"):
            self.manifests.append(name)

    def read(self, name: str) -> Bytes:
        self._require()
        return super().read(name)

    def list(self, folder: str) -> dict[str, int]:
        self._require()
        return super().list(folder)

    def delete(self, names: Iterable[str]) -> None:
        self._require()
        super().delete(names)

    def confirmed(self, names: Iterable[str]) -> bool | None:
        self._require()
        if self.silent:
            return None
        asked = set(names)
        if self.uploads:
            self.uploaded |= {name for name in asked if (self.root / name).exists()}
        return asked <= self.uploaded

    def forget(self, name: str) -> None:
        """Loses what was written and not uploaded, as a cache that dies does."""
        (self.root / name).unlink()

    def _require(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.lost:
            raise DriveLostError("Drive is not mounted any more.", path=self.root)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class StagingMachine(Machine):
    """A session whose saves go to a spool, and from there to a slow volume."""

    def __init__(self, folder: Path, *, clock: Callable[[], float], size: int = 64) -> None:
        super().__init__(folder / "spool", size=size)
        self.backend = NumpyBackend()
        self.drive = SlowVolume(folder / "drive")
        self.far = CheckpointStore(self.drive, keep=2)
        self.clock = clock
        self.uploader: Uploader | None = None

    def open(self) -> Saver:
        lease = Lease(self.drive)
        lease.acquire(max((n.generation for n in self.far.names()), default=0))
        self.uploader = Uploader(
            self.store, self.far, lease=lease, trusted=set(), clock=self.clock, poll_s=0.002
        )
        self.saver = Saver(
            self.store,
            self.backend,
            lease=lease,
            attempt=1,
            uploader=self.uploader,
            clock=self.clock,
        )
        return self.saver

    def save(self, step: int, **facts: object) -> None:
        assert self.saver is not None
        self.weights.values[:] = weights_of(step, size=self.size)
        accepted = self.saver.offer(
            self.sections(step), SaveFacts(step=step, **facts), is_guarded=lambda _: False
        )
        assert accepted
        self.saver.flush()
        self.saver.settle()

    def far_steps(self) -> list[int]:
        return [self.far.manifest(name).facts.step for name in self.far.names()]

    def staged_steps(self) -> list[int]:
        return [self.store.manifest(name).facts.step for name in self.store.names()]


def eventually(holds: Callable[[], bool], *, timeout_s: float = 300.0) -> None:
    """Waits for what another thread is about to do."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.002)
