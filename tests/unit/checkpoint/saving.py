"""A small run to save and load, for the tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from colabkit.checkpoint import CheckpointStore, Lease, SaveFacts, Saver, Section
from colabkit.storage import Files, LocalVolume
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor


def weights_of(step: int, *, size: int = 64) -> np.ndarray:
    return np.random.default_rng(step).standard_normal(size).astype(np.float32)


class Machine:
    """A session on a run folder: a model that a step replaces, and a frozen part."""

    def __init__(
        self, root: Path | str, *, files: Files | None = None, size: int = 64, volume: Any = None
    ) -> None:
        self.root, self.size = root, size
        self.backend = NumpyBackend()
        self.volume = volume or LocalVolume(root, files, empty_first=True)
        self.store = CheckpointStore(self.volume, keep=2)
        self.frozen = Tensor(weights_of(0, size=4 * size))
        self.weights = Tensor(weights_of(0, size=size))
        self.saver: Saver | None = None

    def open(self) -> Saver:
        # A machine that takes minutes for a test would renew it, at one more write.
        lease = Lease(self.volume, wall_clock=lambda: 0.0)
        names = self.store.names()
        lease.acquire(max((n.generation for n in names), default=0))
        trusted = []
        for name in names[:1]:
            self.store.load(name, self.backend)
            trusted.append(self.store.manifest(name))
        self.saver = Saver(self.store, self.backend, lease=lease, attempt=1, trusted=trusted)
        return self.saver

    def sections(self, step: int) -> list[Section]:
        return [
            Section("model", {"w": self.weights, "frozen": self.frozen}, weights=True),
            Section("run", {"step": step, "log": np.arange(step, dtype=np.float64)}, weights=False),
        ]

    def save(self, step: int, **facts: Any) -> None:
        """Saves a step and waits until it is acknowledged."""
        assert self.saver is not None
        self.weights.values[:] = weights_of(step, size=self.size)
        accepted = self.saver.offer(
            self.sections(step), SaveFacts(step=step, **facts), is_guarded=lambda _: False
        )
        assert accepted
        self.saver.flush()
        self.saver.settle()

    def close(self) -> None:
        assert self.saver is not None
        self.saver.close()


def loaded_step(root: Path | str, *, size: int = 64) -> int | None:
    """Returns the step of the newest whole checkpoint, having compared every bit."""
    from colabkit.checkpoint import RunFolder

    loaded = RunFolder(root).newest_valid(NumpyBackend())
    if loaded is None:
        return None
    step = loaded.facts.step
    model = loaded.sections["model"]
    assert np.array_equal(model["w"].values, weights_of(step, size=size))
    assert np.array_equal(model["frozen"].values, weights_of(0, size=4 * size))
    assert loaded.sections["run"]["step"] == step
    assert np.array_equal(loaded.sections["run"]["log"], np.arange(step, dtype=np.float64))
    return step
