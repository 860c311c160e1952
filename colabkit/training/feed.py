"""What the loop asks of a source of batches, whatever framework it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Where and how one pass over the data begins.

    Attributes:
        key: Seed of this pass; the same key gives the same batches.
        epoch: Epoch of the pass, for samplers that have ``set_epoch``.
        skip: Batches already trained, not to be given again.
        state: What ``Feed.state`` gave at the checkpoint, or None.
        passed: Told the number of each batch that is read only to be thrown away.
    """

    key: int
    epoch: int
    skip: int = 0
    state: object = None
    passed: Callable[[int], None] = lambda _: None


class Feed(Protocol):
    """A source of batches that can begin a pass at any batch."""

    length: int | None
    """Batches in a pass, or None where the source does not say."""

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of one pass from ``start.skip`` on."""
        ...

    def state(self) -> object:
        """Returns what ``Start.state`` needs besides the count of batches, or None."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Returns what must be the same after a resume: length, batch size."""
        ...

    def reasons(self) -> tuple[str, ...]:
        """Returns why a pass cannot be repeated bitwise, as far as is known by now."""
        ...

    def notices(self) -> tuple[str, ...]:
        """Returns under which condition, or at which cost, it can."""
        ...
