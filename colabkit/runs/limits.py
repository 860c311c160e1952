"""When a run ends before its data does: after so many steps, or in time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from colabkit.checkpoint import duration_s
from colabkit.errors import ArgumentError
from colabkit.runs.checks import require_count


class Limits:
    """How many batches a run takes in all, and for how long this session trains.

    Args:
        max_steps: Batches in all, or None.
        max_time: Seconds, or a time such as "90min"; None for no limit.
        clock: Seconds that only grow.

    Raises:
        ArgumentError: One of them cannot be used.
    """

    def __init__(
        self,
        max_steps: int | None,
        max_time: str | float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_steps is not None:
            require_count("max_steps", max_steps)
        self.max_steps = max_steps
        self.last_step = sys.maxsize if max_steps is None else max_steps
        self._max_time = max_time
        self._seconds = None if max_time is None else _seconds_of(max_time)
        self._clock = clock
        self._began_s: float | None = None

    def begin(self) -> None:
        """Begins to count the time, at the first call."""
        if self._began_s is None:
            self._began_s = self._clock()

    def reached(self, step: int) -> str:
        """Returns which limit is reached, "" when none is."""
        if step >= self.last_step:
            return f"max_steps is {self.max_steps:,}"
        return self.out_of_time()

    def out_of_time(self) -> str:
        """Returns how long this session may train, "" while it may."""
        if self._seconds is None or self._began_s is None:
            return ""
        if self._clock() - self._began_s >= self._seconds:
            return f"max_time is {self._max_time}"
        return ""


def _seconds_of(max_time: str | float) -> float:
    seconds = duration_s(max_time) if isinstance(max_time, str) else max_time
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0:
        return float(seconds)
    hint = 'Pass seconds, or a time such as "90min" or "11h".'
    raise ArgumentError.of("max_time", max_time, hint)
