"""Whether a run will be through before its machine goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from colabkit.notebook import duration_words
from colabkit.runtime import SessionClock

_LOOK_AFTER_S = 10.0
_STEPS_MIN = 5


class Forecast:
    """Says once when what is left takes longer than this machine is likely to last.

    Args:
        session: How long the machine has, an estimate.
        clock: Seconds that only grow.
    """

    def __init__(self, session: SessionClock, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._began_s, self._first_step = clock(), 0
        self._wait_s = _LOOK_AFTER_S
        self._is_said = False

    def begin(self, step: int) -> None:
        """Begins to measure the pace."""
        self._began_s, self._first_step = self._clock(), step
        self._wait_s = _LOOK_AFTER_S

    def words(self, step: int, total: int | None) -> str:
        """Returns the sentence when it is time for it, else "".

        Args:
            step: Batches trained.
            total: Batches in all, None where nobody knows.
        """
        took_s, steps = self._clock() - self._began_s, step - self._first_step
        if self._is_said or total is None or took_s < self._wait_s or steps < _STEPS_MIN:
            return ""
        # A first step may compile, so the pace is looked at again, ever more rarely.
        self._wait_s = 2 * took_s
        left_s, limit_s = self._session.left_s, self._session.limit_s
        needed_s = (total - step) * took_s / steps
        if left_s is None or limit_s is None or needed_s <= left_s:
            return ""
        self._is_said = True
        sessions = math.ceil((needed_s - left_s) / limit_s)
        more = "1 session" if sessions == 1 else f"{sessions:,} sessions"
        return (
            f"This will not finish before this machine goes: about {duration_words(needed_s)} to"
            f" train, and about {duration_words(left_s)} left here: {more} more."
            " Run the same cells on the next machine, and it goes on."
        )
