"""Several writers each of which holds pieces of the tensors of one run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.checkpoint import Box, Piece, PieceCompany, RunFolder, Section
from colabkit.storage import Files, Volume
from tests.unit.checkpoint.crew import Crew, Writer
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor
from tests.unit.checkpoint.saving import weights_of

# The first does not divide by two or three, of the second only the first two writers hold any.
FORMS = {"wide": (7, 4), "short": (2, 3), "frozen": (9, 400)}


def whole(name: str, step: int) -> np.ndarray:
    seed = 0 if name == "frozen" else 100 * step + len(name)
    return weights_of(seed, size=int(np.prod(FORMS[name]))).reshape(FORMS[name])


def rows_of(length: int, size: int, rank: int) -> slice:
    """Returns the rows that a process has, dealt out as PyTorch does."""
    each = -(-length // size)
    return slice(min(rank * each, length), min((rank + 1) * each, length))


class PieceWriter(Writer):
    """One of them; what all hold whole is "scale"."""

    def __init__(self, crew: Crew, rank: int, files: Files | Volume, size: int) -> None:
        super().__init__(crew, rank, files)
        self._size = size
        self.scale = Tensor(np.zeros(3))
        self.pieces = {name: Tensor(whole(name, 0)[self._rows(name)]) for name in FORMS}
        self.offset_by: dict[str, int] = {}

    def _rows(self, name: str) -> slice:
        return rows_of(FORMS[name][0], self._size, self.rank)

    def train(self, step: int) -> None:
        self.scale.values[:] = step
        for name, tensor in self.pieces.items():
            tensor.values[:] = whole(name, step)[self._rows(name)]

    def sections(self, step: int) -> list[Section]:
        state: dict[str, Any] = {"scale": self.scale}
        is_alone = self._crew.company._is_apart
        for name, tensor in self.pieces.items():
            if is_alone:
                state[name] = Tensor(whole(name, step))
                continue
            offset = self._rows(name).start + self.offset_by.get(name, 0)
            state[name] = Piece(tensor, Box(FORMS[name], (offset, 0)))
        run = [Section("run", {"step": step}, weights=False)] if not self.rank else []
        return [Section("model", state, weights=True), *run]


class PieceCrew(Crew):
    """All of them, in one session on a run folder."""

    def __init__(self, root: Path | str, files: Sequence[Files | Volume]) -> None:
        super().__init__(root, files)
        size = len(files)
        self.writers = [PieceWriter(self, rank, each, size) for rank, each in enumerate(files)]
        self.company = PieceCompany(self.desk.of(0))


def loaded_pieces(root: Path | str) -> int | None:
    """Returns the step of the newest whole checkpoint, having compared every bit."""
    loaded = RunFolder(root).newest_valid(NumpyBackend())
    if loaded is None:
        return None
    step = loaded.facts.step
    model = loaded.sections["model"]
    for name in FORMS:
        assert np.array_equal(model[name].values, whole(name, step))
    assert np.array_equal(model["scale"].values, np.full(3, step, np.float32))
    assert loaded.sections["run"]["step"] == step
    return step
