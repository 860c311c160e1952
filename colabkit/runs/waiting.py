"""For how long a run waits for its data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any


class Waiting:
    """Adds up for how long batches keep a run waiting.

    Attributes:
        seconds: How long in all, in this session.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yields the batches, and closes what gives them as ``yield from`` does."""
        now_s, fetch = time.perf_counter, batches.__next__
        try:
            while True:
                began_s = now_s()
                batch = fetch()
                self.seconds += now_s() - began_s
                yield batch
        except StopIteration:
            return
        finally:
            if (close := getattr(batches, "close", None)) is not None:
                close()


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """What tells how fast a session trains.

    Attributes:
        waiting: For how long it has waited for its data.
        samples: Samples trained, None where nobody counts them.
    """

    waiting: Waiting = dataclasses.field(default_factory=Waiting)
    samples: Callable[[], float | None] = lambda: None
