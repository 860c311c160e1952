"""What the demo's trainings share: the digits, and the notes for the process that kills them."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

import colabkit

_TRAINED = 1437


@dataclasses.dataclass(frozen=True, slots=True)
class Digits:
    """Images [N, 8, 8] float32 in [0, 1] and their digits [N] int64."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @classmethod
    def trained(cls) -> Digits:
        return cls._part(slice(None, _TRAINED))

    @classmethod
    def held_out(cls) -> Digits:
        """Returns those the model never trains on."""
        return cls._part(slice(_TRAINED, None))

    @classmethod
    def _part(cls, part: slice) -> Digits:
        bunch = load_digits()
        order = np.random.default_rng(0).permutation(len(bunch.target))[part]
        images = (bunch.images[order] / 16).astype(np.float32)
        return cls(images, bunch.target[order].astype(np.int64))


class Reporter:
    """Writes down where the session is, for the process that will kill it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._called_s = time.perf_counter()
        self._resume_s: float | None = None
        self._waited_s = 0.0

    def on_batch_end(self, run: colabkit.Run, step: int, logs: Any) -> None:
        del run, logs
        if self._resume_s is None:
            self._resume_s = time.perf_counter() - self._called_s
        (self._folder / "progress.json").write_text(json.dumps({"step": step}))

    def on_train_end(self, run: colabkit.Run) -> None:
        """Reads how long checkpoints held the training thread."""
        self._waited_s = run.checkpoint_wait_s

    def write_result(self, accuracy: float) -> None:
        """Writes the outcome of a session that came to its end."""
        newest = colabkit.checkpoints(self._folder / "run")[0]
        outcome = {
            "accuracy": accuracy,
            "resume_s": self._resume_s,
            "waited_s": self._waited_s,
            "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
        }
        (self._folder / "result.json").write_text(json.dumps(outcome))
