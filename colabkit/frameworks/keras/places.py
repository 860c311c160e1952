"""Which batches of the data an epoch takes, also where it is no whole pass, as Keras has it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from colabkit.frameworks.base import Feed, Start

# Why a source cannot be read again that two read in turn, and that goes on from the other's place.
SHARED = (
    "the training and the validation data are one object, which changes as either is read (make one"
    " for each)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """The pass under way over data that does not say how long it is.

    Attributes:
        number: Passes done before it.
        since: The epoch in which it began.
    """

    number: int = 0
    since: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """The batches of one epoch.

    Attributes:
        turn: The pass over the data that they are part of.
        first: Number of the first within that pass.
        count: How many there are; None where only reading tells.
    """

    turn: int
    first: int
    count: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Batching:
    """How samples lie in batches.

    Attributes:
        samples: Samples in a pass over the data.
        size: Samples in a batch; the last one of a pass may be smaller.
    """

    samples: int
    size: int

    def sizes(self, steps_per_epoch: int | None, epochs: int) -> list[int]:
        """Returns how many samples the batches have that are read.

        Args:
            steps_per_epoch: Batches in an epoch, or None for a pass.
            epochs: How many epochs are read.

        Example:
            >>> Batching(samples=41, size=8).sizes(None, epochs=1)
            [8, 1]
        """
        whole, rest = divmod(self.samples, self.size)
        reads_rest = steps_per_epoch is None or steps_per_epoch * epochs > whole
        return [*([self.size] if whole else []), *([rest] if rest and reads_rest else [])]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """How epochs lie over the data.

    An epoch goes on where the one before ended, and never beyond the end of the data: the
    last one of a pass is shorter where ``steps_per_epoch`` does not divide it.

    Attributes:
        batches: Batches in the data, or None where it has no end or does not say.
        steps_per_epoch: Batches in an epoch, or None for one pass an epoch.
        is_endless: Whether the data is known to have no end.
    """

    batches: int | None
    steps_per_epoch: int | None = None
    is_endless: bool = False

    @property
    def length(self) -> int | None:
        """Batches in an epoch, at most."""
        if self.steps_per_epoch is None or self.batches is None:
            return self.steps_per_epoch or self.batches
        return min(self.steps_per_epoch, self.batches)

    def span(self, epoch: int, turn: Turn | None = None) -> Span:
        """Returns the batches of an epoch.

        Args:
            epoch: Its number, from 0.
            turn: The pass under way, where ``batches`` is None; the first if left out.

        Example:
            >>> [Route(batches=3, steps_per_epoch=2).span(epoch).count for epoch in range(3)]
            [2, 1, 2]
        """
        size = self.steps_per_epoch
        if size is None:
            return Span(epoch, 0, self.batches)
        if self.batches is None:
            turn = turn or Turn()
            return Span(turn.number, (epoch - turn.since) * size, size if self.is_endless else None)
        number, place = divmod(epoch, -(-self.batches // size))
        first = place * size
        return Span(number, first, min(size, self.batches - first))


class KerasFeed(Feed, Protocol):
    """A source of batches whose epochs need not be whole passes over it."""

    @property
    def reading_has_effects(self) -> bool:
        """Whether a look at a pass changes those begun after it in the same session."""
        ...

    def length_of(self, epoch: int) -> int | None:
        """Returns the batches in an epoch, None where only reading tells."""
        ...

    def again(self, start: Start, *, goes_on: bool) -> Iterator[Any] | None:
        """Returns the batches from a place on that was trained before, for a look at the first.

        Args:
            start: The place.
            goes_on: Whether the same pass is gone on with.

        Returns:
            None where the look would change what is read afterwards.
        """
        ...

    def reseed(self, number: int) -> None:
        """Has all draws differ from those without the number."""
        ...

    def pass_on(self, end: Start) -> None:
        """Leaves the source to later calls as if this one had read it up to an epoch."""
        ...

    def close(self) -> None:
        """Gives the user's data back as it was."""
        ...
