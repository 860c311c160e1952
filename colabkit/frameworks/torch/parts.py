"""Batches in parts: which of them a process takes, each fetched under a key of its own.

The parts follow from the batch and their number alone, never from who takes them, so that fewer
processes which take more parts each do the very same arithmetic.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_records import BatchRecord
from colabkit.frameworks.batch_watches import BatchWatch, Watch
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.compare import note, record
from colabkit.frameworks.torch.fetch import BatchRequest


class Part(NamedTuple):
    """One part of a batch.

    Attributes:
        number: Which of the batch's parts it is, from 0.
        batch: Its samples, in the form of a batch.
        samples: How many they are; 0 where the batch has too few samples for all parts, and its
            first ones stand in for none.
    """

    number: int
    batch: Any
    samples: int


class Parts(NamedTuple):
    """Those parts of one batch that a process takes.

    Attributes:
        key: Seed of what is drawn in the batch's step.
        samples: How many samples the whole batch has.
        local: The parts, in order; at least one.
    """

    key: int
    samples: int
    local: list[Part]


class Piece(NamedTuple):
    """Where a part lies in its batch."""

    number: int
    place: slice
    samples: int


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """Which parts of each batch a process takes.

    Attributes:
        count: How many parts a batch has.
        rank: Number of this process, from 0.
        processes: How many take parts, ``count`` at most.
        least: The fewest samples of a part; a smaller batch is one part.

    Example:
        >>> [piece.place for piece in Share(count=2).pieces(11)]
        [slice(0, 6, None), slice(6, 11, None)]
        >>> Share(count=2, rank=1, processes=2).pieces(1)
        [Piece(number=1, place=slice(0, 1, None), samples=0)]
        >>> [(piece.place, piece.samples) for piece in Share(count=2, least=2).pieces(3)]
        [(slice(0, 3, None), 3), (slice(0, 2, None), 0)]
    """

    count: int
    rank: int = 0
    processes: int = 1
    least: int = 1

    @property
    def numbers(self) -> range:
        """The numbers of the parts that this process takes."""
        first, after = (
            place * self.count // self.processes for place in (self.rank, self.rank + 1)
        )
        return range(first, after)

    def pieces(self, samples: int) -> list[Piece]:
        """Returns where its parts lie in a batch; the sizes of all but stand-ins differ by one."""
        used = min(self.count, max(1, samples // self.least))
        size, larger = divmod(samples, used)
        found = []
        for number in self.numbers:
            begin = number * size + min(number, larger)
            own = size + (number < larger) if number < used else 0
            place = slice(begin, begin + own) if own else slice(0, min(self.least, samples))
            found.append(Piece(number, place, own))
        return found

    def cut(self, key: int, samples: int, take: Callable[[slice], Any]) -> Parts:
        """Returns the parts of a batch whose samples ``take`` gives."""
        pieces = self.pieces(samples)
        return Parts(key, samples, [Part(p.number, take(p.place), p.samples) for p in pieces])


class RequestCutter:
    """Cuts a batch's request into those of its parts, and what these fetched into the parts."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._waiting: collections.deque[tuple[int, int]] = collections.deque()

    def requests(self, whole: Iterator[BatchRequest]) -> Iterator[BatchRequest]:
        """Yields a request for each part that this process takes."""
        for seed, indices, _ in whole:
            self._waiting.append((seed, len(indices)))
            for piece in self._share.pieces(len(indices)):
                yield BatchRequest(derive(seed, "part", piece.number), indices[piece.place])

    def parts(self, fetched: Iterator[Any]) -> Iterator[Parts]:
        """Yields the parts of each batch from what those requests fetched."""
        several = len(self._share.numbers)
        while batches := list(itertools.islice(fetched, several)):
            seed, samples = self._waiting.popleft()
            pieces = zip(self._share.pieces(samples), batches, strict=True)
            local = [Part(piece.number, batch, piece.samples) for piece, batch in pieces]
            yield Parts(derive(seed, "parts"), samples, local)


class PartsFeed:
    """A source of batches, of each of which only this process's parts are fetched.

    Args:
        feed: What gives whole batches.
        share: Which parts are taken.

    Raises:
        ArgumentError: Its batches cannot be cut before they are fetched.
    """

    def __init__(self, feed: Feed, share: Share) -> None:
        why = "it is read as a stream, and not by index"
        if hasattr(feed, "parts"):
            why = feed.uncut() if hasattr(feed, "uncut") else ""
        if why:
            raise _not_cut_error(share, why)
        self._feed: Any = feed
        self._share = share
        self.length = feed.length

    def batches(self, start: Start) -> Iterator[Parts]:
        """Yields the parts of each batch of one pass."""
        return iter(self._feed.parts(start, self._share))

    def samples_of_last(self) -> int | None:
        """Returns how many samples the last whole batch of a pass has, None where that is open."""
        found: int | None = getattr(self._feed, "samples_of_last", lambda: None)()
        return found

    def record(self, batch: Parts) -> BatchRecord:
        """Returns what tells a batch from others: its first part, whoever takes the rest."""
        return record(batch.local[0].batch)

    def new_watch(self, *, first: int = 0) -> Watch:  # noqa: ARG002  # it is asked for the newest
        """Returns what takes down the batches of one pass."""
        return BatchWatch(_note_first, self.record)

    def state(self) -> object:
        """Returns what the source says of its place."""
        return self._feed.state()

    def describe(self) -> Mapping[str, Any]:
        """Returns what the source says of whole batches."""
        described: Mapping[str, Any] = self._feed.describe()
        return described

    def reasons(self) -> tuple[str, ...]:
        """Returns why a pass cannot be repeated bitwise."""
        found: tuple[str, ...] = self._feed.reasons()
        return found

    def notices(self) -> tuple[str, ...]:
        """Returns under which condition it can."""
        found: tuple[str, ...] = self._feed.notices()
        return found


def _note_first(parts: Parts) -> Callable[[], BatchRecord | None]:
    return note(parts.local[0].batch)


def _not_cut_error(share: Share, why: str) -> ArgumentError:
    message = f"Each batch is to be taken in {share.count} parts, and this data cannot be: {why}."
    hint = (
        "Pass (x, y) arrays, a Dataset with indices, or a plain DataLoader over one; what else"
        " there is trains in one process."
    )
    return ArgumentError(message, argument="data", hint=hint)
