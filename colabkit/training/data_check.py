"""Fetches again what a run has read before, and compares it with what its checkpoint keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from colabkit.training.feed import Feed, Start
from colabkit.training.position import Cursor
from colabkit.training.same_data import BatchRecord, KeptBatch, Leniency, compare

_NONE = object()


class DataCheck:
    """Tells whether the data of a run is what it was.

    Args:
        record: Says what a batch is.
        leniency: What may differ without an error.
        location: The run folder.
        say: Takes a sentence for the user.
    """

    def __init__(
        self,
        record: Callable[[Any], BatchRecord],
        leniency: Leniency,
        *,
        location: str,
        say: Callable[[str], None],
    ) -> None:
        self.record = record
        self.accepts = leniency.accepts
        self.reasons: tuple[str, ...] = ()
        self._leniency = leniency
        self._location = location
        self._say = say

    def batches_left(self, cursor: Cursor, feed: Feed, start: Start) -> Iterator[Any]:
        """Returns the batches from a place on; the one before it is fetched again and compared.

        Raises:
            CheckpointMismatchError: It is another batch.
        """
        kept = KeptBatch.of_state(cursor.newest)
        if kept is None or not start.skip or not getattr(feed, "goes_back", True):
            return iter(feed.batches(start))
        batches = iter(feed.batches(dataclasses.replace(start, skip=start.skip - 1)))
        where = f"batch {start.skip:,} of epoch {start.epoch + 1}, the last before,"
        self.compare(kept, next(batches, _NONE), where=where, feed=feed)
        return batches

    def compare_first(self, kept: KeptBatch, feed: Feed, start: Start, *, where: str) -> None:
        """Compares the first batch of a pass with what is kept of it.

        Raises:
            CheckpointMismatchError: It is another batch.
        """
        if getattr(feed, "reads_once", False) or not getattr(feed, "goes_back", True):
            return
        batches = iter(feed.batches(start))
        self.compare(kept, next(batches, _NONE), where=where, feed=feed)

    def compare(self, kept: KeptBatch, batch: Any, *, where: str, feed: Feed) -> None:
        """Compares a batch that was fetched again with what is kept of it.

        Raises:
            CheckpointMismatchError: It is another batch.
        """
        said = compare(
            kept,
            None if batch is _NONE else self.record(batch),
            where=where,
            location=self._location,
            leniency=self._leniency,
            reasons=feed.reasons(),
        )
        if said:
            self._say(said)
            self.reasons = ("the data is not what it was",)
