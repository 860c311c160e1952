"""Which batch of the data each step of an epoch takes, also where an epoch is no whole pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One batch: the pass over the data it is part of, and its number within that pass."""

    turn: int
    batch: int


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """How epochs lie over the data.

    Attributes:
        batches: Batches in the data, or None where it has no end.
        steps_per_epoch: Batches in an epoch, or None for one pass an epoch.
    """

    batches: int | None
    steps_per_epoch: int | None = None

    @property
    def length(self) -> int | None:
        """Batches in an epoch."""
        return self.steps_per_epoch or self.batches

    def places(self, epoch: int, skip: int) -> Iterator[Place]:
        """Yields the places of an epoch from a batch on.

        Example:
            >>> [p.turn for p in Route(batches=3, steps_per_epoch=2).places(1, 0)]
            [0, 1]
        """
        if self.steps_per_epoch is None:
            numbers = itertools.count(skip) if self.batches is None else range(skip, self.batches)
            return (Place(epoch, number) for number in numbers)
        first = epoch * self.steps_per_epoch
        absolute = range(first + skip, first + self.steps_per_epoch)
        if self.batches is None:
            return (Place(0, number) for number in absolute)
        return (Place(*divmod(number, self.batches)) for number in absolute)
