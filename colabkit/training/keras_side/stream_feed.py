"""Generators, functions that return them, and other iterables, read again up to a place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.training.feed import Feed, Start
from colabkit.training.keras_side.compare import same_batch
from colabkit.training.keras_side.randomness import KeyedDraws
from colabkit.training.seeding import derive


class IterableFeed:
    """Any iterable of batches; its random draws are keyed to the batch they are made for.

    Args:
        source: An iterable, a generator, or a function that returns one.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, over a source without end.
        transform: Applied to each batch, or None.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        steps_per_epoch: int | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._source = source
        self._transform = transform
        self._seed = seed
        self._steps_per_epoch = steps_per_epoch
        self._draws = KeyedDraws(source)
        self._repeats: bool | None = None
        self._live: Iterator[Any] | None = None
        self._peeked: list[Any] = []
        self.reads_once = isinstance(source, Iterator)
        by_itself = len(source) if hasattr(source, "__len__") else None
        self.length: int | None = steps_per_epoch or by_itself

    def first(self) -> Any:
        """Returns the first batch, which a pass gives again."""
        if not self._peeked:
            begin = self._begin(0)
            self._peeked = list(itertools.islice(begin, 1))
            if self.reads_once or self._steps_per_epoch:
                self._live = begin
            elif self._peeked:
                self._repeats = all(map(same_batch, self._peeked, self._begin(0)))
        if not self._peeked:
            message = "data gave no batch."
            raise ArgumentError(message, argument="data", hint="Check what it reads from.")
        return self._peeked[0]

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch, after reading those before again."""
        if self._live is None:
            self.first()
        if self._steps_per_epoch is None and not self.reads_once:
            return itertools.islice(self._begin(start.epoch), start.skip, None)
        return self._continued(start)

    def _continued(self, start: Start) -> Iterator[Any]:
        """Goes on with the one stream that all epochs share."""
        live = self._live or self._begin(0)
        if self._peeked:
            done = start.epoch * (self._steps_per_epoch or 0) + start.skip
            peeked, self._peeked = self._peeked, []
            live = itertools.islice(itertools.chain(peeked, live), done, None)
        self._live = live
        if self._steps_per_epoch is None:
            return live
        return itertools.islice(live, self._steps_per_epoch - start.skip)

    def _begin(self, turn: int) -> Iterator[Any]:
        with self._draws.at(derive(self._seed, "turn", turn)):
            made = self._source() if callable(self._source) else self._source
            source = iter(made)
        own = self._draws if made is self._source else KeyedDraws(made)
        for number in itertools.count():
            with own.at(derive(self._seed, "batch", turn, number)):
                found = list(itertools.islice(source, 1))
            if not found:
                return
            yield found[0] if self._transform is None else self._transform(found[0])

    def state(self) -> object:
        """The count of batches says it all."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """The number of batches, where it is known."""
        return {"batches": self.length}

    def reasons(self) -> tuple[str, ...]:
        """Whether the first batch came out alike twice."""
        if self._repeats is False:
            return (*self._draws.reasons(), "the data gave another first batch when read twice")
        return self._draws.reasons()

    def notices(self) -> tuple[str, ...]:
        """A resume reads what was already trained on once more."""
        return ("a resume reads the batches before it again",)


class ForeignFeed:
    """Another framework's feed, a DataLoader's for example, whose batches are made arrays.

    Args:
        feed: The feed.
        convert: Turns a batch into one that Keras takes.
        key: Gives the seed of an epoch's pass.
    """

    def __init__(
        self, feed: Feed, convert: Callable[[Any], Any], key: Callable[[int], int]
    ) -> None:
        self._feed = feed
        self._convert = convert
        self._key = key
        self.length = feed.length

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        start = Start(self._key(start.epoch), start.epoch, start.skip, start.state)
        return map(self._convert, self._feed.batches(start))

    def state(self) -> object:
        """What the feed keeps."""
        return self._feed.state()

    def describe(self) -> Mapping[str, Any]:
        """What the feed says."""
        return self._feed.describe()

    def reasons(self) -> tuple[str, ...]:
        """What the feed says."""
        return self._feed.reasons()

    def notices(self) -> tuple[str, ...]:
        """What the feed says."""
        return self._feed.notices()
