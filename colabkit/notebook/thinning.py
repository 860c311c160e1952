"""Lines of any length in a few hundred points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class ThinnedLine:
    """A line by step whose points are means over equal stretches of steps.

    When it is full, neighbours are merged two by two; so its memory and what is drawn of it
    never grow, and nothing that came in is forgotten.

    Args:
        most: How many points to keep at most, an even number.

    Example:
        >>> line = ThinnedLine(most=2)
        >>> line.extend(0, np.array([4.0, 2.0, 1.0, 1.0]))
        >>> line.points()
        [(1.5, 3.0), (4.0, 1.0)]
    """

    MOST = 240

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._stretch = 1
        self._end = 0
        self._counts = np.zeros(most)
        self._sums = np.zeros(most)
        self._steps = np.zeros(most)

    def extend(self, first: int, values: npt.NDArray[np.float64]) -> None:
        """Takes the values of the steps from ``first`` on; those not finite are left out."""
        there = np.flatnonzero(np.isfinite(values))
        if not len(there):
            return
        steps = there + first
        self._end = int(steps[-1]) + 1
        while self._end > self._most * self._stretch:
            self._halve()
        places = steps // self._stretch
        self._counts += np.bincount(places, minlength=self._most)
        self._sums += np.bincount(places, weights=values[there], minlength=self._most)
        self._steps += np.bincount(places, weights=steps + 1.0, minlength=self._most)

    def points(self) -> list[tuple[float, float]]:
        """Returns (steps done, mean) in order, the last at the newest step."""
        used = np.flatnonzero(self._counts)
        counts = self._counts[used]
        across = (self._steps[used] / counts).tolist()
        if across:
            across[-1] = float(self._end)
        return list(zip(across, (self._sums[used] / counts).tolist(), strict=True))

    def _halve(self) -> None:
        self._stretch *= 2
        for values in (self._counts, self._sums, self._steps):
            merged = values.reshape(-1, 2).sum(axis=1)
            values[: len(merged)] = merged
            values[len(merged) :] = 0.0
