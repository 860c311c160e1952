"""Values by step, in chunks that never change again once they are full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from colabkit.errors import ArgumentError

CHUNK_STEPS = 8192

Floats = npt.NDArray[np.float64]


class StepSeries:
    """Float64 values by name and step; the value of step ``s`` lies at place ``s``.

    The place follows from the step alone, so a resumed run can leave no gap and write no
    value twice. Steps at which a name was not logged hold NaN.
    """

    def __init__(self) -> None:
        self._chunks: dict[str, list[Floats | None]] = {}
        self._open: dict[str, Floats] = {}
        self._open_start = 0
        self._end = 0

    @property
    def end(self) -> int:
        """The newest step plus one, 0 before the first."""
        return self._end

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Notes the values of one step; steps may be left out, and repeated for more names.

        Raises:
            ArgumentError: ``step`` is in a chunk that is full already.
        """
        offset = step - self._open_start
        if not 0 <= offset < CHUNK_STEPS:
            self._open_chunk_of(step)
            offset = step - self._open_start
        chunks = self._open
        for name, value in values.items():
            if name not in chunks:
                self._add_chunk(name)
            chunks[name][offset] = value
        if step >= self._end:
            self._end = step + 1

    def arrays(self) -> dict[str, Floats]:
        """Returns a copy of all values: by name, [steps] float64."""
        return {name: self._array(chunks, self._end) for name, chunks in self._chunks.items()}

    def since(self, first: int) -> dict[str, Floats]:
        """Returns a copy of the values from step ``first`` on: by name, float64."""
        index = min(first, self._end) // CHUNK_STEPS
        start = index * CHUNK_STEPS
        return {
            name: self._array(chunks[index:], self._end - start)[max(0, first - start) :]
            for name, chunks in self._chunks.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the chunks: full ones as they are, a copy of what the open one holds."""
        used = self._end - self._open_start
        chunks: dict[str, list[Floats | None]] = {}
        for name, kept in self._chunks.items():
            chunks[name] = list(kept)
            if name in self._open:
                chunks[name][-1] = self._open[name][:used].copy()
        return {"end": self._end, "chunks": chunks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave; later steps are forgotten."""
        self._end = int(state["end"])
        index = max(0, self._end - 1) // CHUNK_STEPS
        self._open_start = index * CHUNK_STEPS
        self._chunks = {name: list(chunks) for name, chunks in state["chunks"].items()}
        self._open = {}
        for name, chunks in self._chunks.items():
            if len(chunks) == index + 1 and chunks[-1] is not None:
                whole = _empty_chunk()
                whole[: len(chunks[-1])] = chunks[-1]
                self._open[name] = chunks[-1] = whole

    def _open_chunk_of(self, step: int) -> None:
        if step < self._open_start:
            message = f"Step {step} was logged after step {self._end - 1}."
            raise ArgumentError(message, argument="step", hint="Log steps in their order.")
        self._open_start = step // CHUNK_STEPS * CHUNK_STEPS
        self._open.clear()

    def _add_chunk(self, name: str) -> None:
        chunks = self._chunks.setdefault(name, [])
        chunks.extend([None] * (self._open_start // CHUNK_STEPS - len(chunks)))
        self._open[name] = _empty_chunk()
        chunks.append(self._open[name])

    def _array(self, chunks: list[Floats | None], length: int) -> Floats:
        array = np.full(length, np.nan)
        for index, chunk in enumerate(chunks):
            if chunk is not None:
                place = array[index * CHUNK_STEPS : (index + 1) * CHUNK_STEPS]
                place[:] = chunk[: len(place)]
        return array


def _empty_chunk() -> Floats:
    return np.full(CHUNK_STEPS, np.nan)
