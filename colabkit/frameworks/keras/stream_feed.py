"""Generators, functions that return them, and other iterables, read again up to a place."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.keras.compare import same_batch
from colabkit.frameworks.keras.memory import Memory, said_of
from colabkit.frameworks.keras.places import SHARED, Route, Turn
from colabkit.frameworks.keras.randomness import KeyedDraws
from colabkit.frameworks.seeding import derive

# Iterators of calls that found all trained, each with what its feed would have read by now.
_OWED: weakref.WeakKeyDictionary[Any, tuple[IterableFeed, int]] = weakref.WeakKeyDictionary()


class IterableFeed:
    """Any iterable of batches; its random draws are keyed to the batch they are made for.

    Args:
        source: An iterable, a generator, or a function that returns one.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, over a source without end.
        limit: Batches of each pass that are read, or None for all; of a source that can be read
            only once, each pass takes the next so many.
        transform: Applied to each batch, or None.
        is_shared: Whether training and validation data are one object.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        steps_per_epoch: int | None = None,
        limit: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        is_shared: bool = False,
    ) -> None:
        self._is_shared = is_shared
        self._source = source
        self._transform = transform
        self._seed = self._own_seed = seed
        self._draws = KeyedDraws(source)
        self._repeats: bool | None = None
        self._memory = Memory({getattr(source, "__name__", "data"): source})
        self._changed: dict[str, None] = {}
        self._live: Iterator[Any] | None = None
        self._turn = self._read = 0
        self._first: list[Any] = []
        self.reads_once = isinstance(source, Iterator)
        if self.reads_once:
            self._read_what_is_owed()
        batches = len(source) if hasattr(source, "__len__") else None
        if limit is not None and not self.reads_once:
            batches = limit if batches is None else min(batches, limit)
            self._may_end = not hasattr(source, "__len__")
        else:
            self._may_end = batches is None
        every = steps_per_epoch or (limit if self.reads_once else None)
        self._route = Route(batches, every)
        self.length = self._route.length

    def length_of(self, epoch: int) -> int | None:
        """Returns the batches in an epoch, None where only reading tells."""
        return None if self._may_end else self._route.span(epoch).count

    def first(self) -> Any:
        """Returns the first batch, which a pass gives again."""
        if not self._first:
            begun = self._begin(0)
            self._first = list(itertools.islice(begun, 1))
            if self.reads_once:
                self._live = itertools.chain(self._first, begun)
            elif self._first:
                self._repeats = all(map(same_batch, self._first, self._begin(0)))
                self._changed = dict.fromkeys(self._memory.changes())
                self._memory.put_back()
        if not self._first:
            message = "data gave no batch."
            raise ArgumentError(message, argument="data", hint="Check what it reads from.")
        return self._first[0]

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch, after reading those before again."""
        if self.reads_once:
            self.first()
        turn = start.state if isinstance(start.state, Turn) else None
        span = self._route.span(start.epoch, turn)
        number = 0 if self.reads_once else span.turn
        size = self._route.steps_per_epoch or span.count
        left = None if size is None else size - start.skip
        return itertools.islice(self._from(number, span.first + start.skip), left)

    def again(self, start: Start, *, goes_on: bool) -> Iterator[Any] | None:
        """Returns the batches from a place on; a pass under way goes on behind what was read."""
        return self.batches(start) if goes_on or not self.reads_once else None

    @property
    def reading_has_effects(self) -> bool:
        """Whether a look is a part of what is read."""
        return self.reads_once

    def _from(self, turn: int, first: int) -> Iterator[Any]:
        """Yields the batches of a pass from one on; the pass under way is gone on with."""
        for batch in self._read_up_to(turn, first):
            self._read += 1
            yield batch

    def _read_up_to(self, turn: int, first: int) -> Iterator[Any]:
        if self._live is None or turn != self._turn or first < self._read:
            self._live, self._turn, self._read = self._begin(turn), turn, 0
        live = self._live
        while self._read < first:
            self._read += 1
            next(live, None)
        return live

    def pass_on(self, end: Start) -> None:
        """Notes what an iterator that goes on in another call would have given by now."""
        if self.reads_once:
            with contextlib.suppress(TypeError):  # nobody can know it again
                _OWED[self._source] = self, end.epoch * (self._route.steps_per_epoch or 0)

    def _read_what_is_owed(self) -> None:
        """Brings the iterator to where it would be, had the call before trained in this session."""
        owed = None
        with contextlib.suppress(TypeError):
            owed = _OWED.pop(self._source, None)
        if owed is not None:
            before, batches = owed
            before._read_up_to(0, batches)

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

    def reseed(self, number: int) -> None:
        """Has all draws differ from those without the number."""
        self._seed = derive(self._own_seed, "from", number)

    def state(self) -> object:
        """The count of batches says it all."""
        return None

    def close(self) -> None:
        """Nothing was changed."""

    def describe(self) -> Mapping[str, Any]:
        """The number of batches, where it is known."""
        return {"batches": self.length}

    def reasons(self) -> tuple[str, ...]:
        """Whether the first batch came out alike twice, and nothing is changed by reading."""
        reasons = self._draws.reasons()
        if self._is_shared and self.reads_once:
            reasons += (SHARED,)
        if self._repeats is False:
            reasons += ("the data gave another first batch when read twice",)
        if not self.reads_once:
            self._changed |= dict.fromkeys(self._memory.changes())
        if self._changed:
            reasons += (said_of(self._changed),)
        return reasons

    def notices(self) -> tuple[str, ...]:
        """A resume reads what was already trained on once more."""
        return ("a resume reads the batches before it again",)


class ForeignFeed:
    """Another feed, a DataLoader's for example, whose batches are made what Keras takes.

    Args:
        feed: The feed.
        convert: Turns a batch into one that Keras takes.
        key: Gives the seed of a pass; None where the feed goes by epochs of its own.
        steps_per_epoch: Batches in an epoch, or None for a pass.
        limit: Batches of each pass that are read, or None for all.
    """

    def __init__(
        self,
        feed: Feed,
        convert: Callable[[Any], Any],
        key: Callable[[int], int] | None = None,
        *,
        steps_per_epoch: int | None = None,
        limit: int | None = None,
    ) -> None:
        self._feed = feed
        self._convert = convert
        self._key = self._own_key = key
        self._knows = feed.length is not None
        batches = feed.length
        if limit is not None:
            batches = limit if batches is None else min(batches, limit)
        self._route = Route(batches, steps_per_epoch)
        self.length = self._route.length

    def length_of(self, epoch: int) -> int | None:
        """Returns the batches in an epoch, None where only reading tells."""
        if self._key is None:
            own: int | None = self._feed.length_of(epoch)  # type: ignore[attr-defined]
            return own
        return self._route.span(epoch).count if self._knows else None

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        if self._key is None:
            return map(self._convert, self._feed.batches(start))
        span = self._route.span(start.epoch)
        turn = Start(self._key(span.turn), span.turn, span.first + start.skip)
        left = None if span.count is None else span.count - start.skip
        return map(self._convert, itertools.islice(self._feed.batches(turn), left))

    def again(self, start: Start, *, goes_on: bool) -> Iterator[Any] | None:
        """Returns the batches from a place on, None where the feed gives none for a look."""
        if self._key is not None:
            return self.batches(start)
        found = self._feed.again(start, goes_on=goes_on)  # type: ignore[attr-defined]
        return None if found is None else map(self._convert, found)

    @property
    def reading_has_effects(self) -> bool:
        """As it is with the feed, where that goes by epochs of its own."""
        return self._key is None and bool(getattr(self._feed, "reading_has_effects", False))

    def pass_on(self, end: Start) -> None:
        """As the feed does it, where it goes by epochs of its own."""
        if self._key is None:
            self._feed.pass_on(end)  # type: ignore[attr-defined]

    def reseed(self, number: int) -> None:
        """Has all draws differ from those without the number."""
        if (key := self._own_key) is None:
            self._feed.reseed(number)  # type: ignore[attr-defined]
        else:
            self._key = lambda turn: derive(key(turn), "from", number)

    def state(self) -> object:
        """What the feed keeps."""
        return self._feed.state()

    def close(self) -> None:
        """Has the feed give the user's data back as it was."""
        close = getattr(self._feed, "close", None)
        if close is not None:
            close()

    def describe(self) -> Mapping[str, Any]:
        """What the feed says."""
        return self._feed.describe()

    def reasons(self) -> tuple[str, ...]:
        """What the feed says."""
        return self._feed.reasons()

    def notices(self) -> tuple[str, ...]:
        """What the feed says."""
        return self._feed.notices()
