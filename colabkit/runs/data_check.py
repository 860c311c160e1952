"""Fetches again what a run has read before, and compares it with what its checkpoint keeps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_records import BatchRecord, Head, KeptBatch
from colabkit.runs.position import Cursor
from colabkit.runs.same_data import Leniency, compare

NO_BATCH = object()
_SILENT_S, _SAY_EVERY_S = 3.0, 15.0


class ReadingAgain:
    """Says how far it is, where what was trained before is read once more and takes its time.

    Args:
        total: Batches to read before the first that is new.
        say: Takes a sentence for the user.
        what: What it reads, in a word.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        *,
        what: str = "batch",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._say = say
        self._what = what
        self._clock = clock
        self._began_s = clock()
        self._next_s = self._began_s + _SILENT_S

    def __call__(self, number: int) -> None:
        """Takes the number of batches read so far."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _SAY_EVERY_S
        left_s = (now_s - self._began_s) / number * (self._total - number)
        self._say(
            "This data has no state to go on from, and is read again up to its place:"
            f" {self._what} {number:,} of {self._total:,}, about {left_s:,.0f} s more."
        )


class DataCheck:
    """Tells whether the data of a run is what it was.

    Args:
        record: Says what a batch is.
        leniency: What may differ without an error.
        location: The run folder.
        say: Takes a sentence for the user.
        expected: Why earlier sessions knew that it would differ.
    """

    def __init__(
        self,
        record: Callable[[Any], BatchRecord],
        leniency: Leniency,
        *,
        location: str,
        say: Callable[[str], None],
        expected: tuple[str, ...] = (),
    ) -> None:
        self.record = record
        self.accepts = leniency.accepts
        self.reasons: tuple[str, ...] = ()
        self._leniency = leniency
        self._location = location
        self._say = say
        self._expected = expected
        self._is_made_in_loop = False

    @property
    def may_change(self) -> bool:
        """Whether other data is accepted, or was to be expected."""
        return self.accepts or self._is_made_in_loop

    def expect(self, reasons: tuple[str, ...]) -> None:
        """Takes down why the loop itself may make other data at a resume."""
        self._is_made_in_loop = bool(reasons)
        self._expected = tuple(dict.fromkeys((*self._expected, *reasons)))

    def batches_left(self, cursor: Cursor, feed: Feed, start: Start) -> Iterator[Any]:
        """Returns the batches from a place on; one before it is fetched again and compared.

        That is the one just before, or the first of all where the source goes on by its own state.

        Raises:
            CheckpointMismatchError: It is another batch.
        """
        kept = KeptBatch.of_state(cursor.newest)
        what = "item" if "items" in feed.describe() else "batch"
        passed = ReadingAgain(start.skip, self._say, what=what)
        start = dataclasses.replace(start, passed=passed)
        goes_back = getattr(feed, "goes_back", True)
        if not goes_back:
            self._compare_head(feed, start.state)
        if kept is None or not start.skip or not goes_back:
            return iter(feed.batches(start))
        number = start.skip - 1 if kept.number is None else kept.number
        batches = iter(feed.batches(dataclasses.replace(start, skip=number)))
        where = f"batch {number + 1:,} of epoch {start.epoch + 1}, trained before,"
        self.compare(kept, next(batches, NO_BATCH), where=where, feed=feed)
        for _ in range(start.skip - 1 - number):  # trained as well
            next(batches, None)
        return batches

    def _compare_head(self, feed: Feed, state: object) -> None:
        head = Head.of_state(state.get("head")) if isinstance(state, Mapping) else None
        if head is None:
            return
        start = Start(head.key, head.kept.epoch, state={"source": head.source})
        batches = iter(feed.batches(start))
        first = next(batches, NO_BATCH)
        where = f"its first batch, of epoch {head.kept.epoch + 1},"
        self.compare(head.kept, first, where=where, feed=feed)

    def compare_first(self, kept: KeptBatch, feed: Feed, start: Start, *, where: str) -> None:
        """Compares the first batch of a pass with what is kept of it.

        Raises:
            CheckpointMismatchError: It is another batch.
        """
        if getattr(feed, "reads_once", False) or not getattr(feed, "begins_anew", True):
            return
        batches = iter(feed.batches(start))
        self.compare(kept, next(batches, NO_BATCH), where=where, feed=feed)

    def compare(self, kept: KeptBatch, batch: Any, *, where: str, feed: Feed) -> None:
        """Compares a batch that was fetched again with what is kept of it.

        Args:
            kept: What is kept.
            batch: The batch, NO_BATCH where the data had ended before.
            where: Which batch it is, in words.
            feed: Where it comes from.

        Raises:
            CheckpointMismatchError: It is another batch.
        """
        record = getattr(feed, "record", self.record)
        said = compare(
            kept,
            None if batch is NO_BATCH else record(batch),
            where=where,
            location=self._location,
            leniency=self._leniency,
            reasons=(*feed.reasons(), *self._expected),
        )
        if said:
            self._note(said)

    def note_change(self, what: str) -> None:
        """Says what is another, where that may be."""
        why = "; ".join(self._expected)
        self._note(f"The data is not what it was: {what}. It was not to be expected: {why}.")

    def _note(self, said: str) -> None:
        self._say(said)
        self.reasons = ("the data is not what it was",)
