"""What takes down the batches of a pass as they are handed out, for a checkpoint to keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from colabkit.frameworks.batch_records import BatchRecord, KeptBatch

SAMPLED_EVERY = 16


class Watch(Protocol):
    """What takes down batches of a pass, for a checkpoint to keep."""

    record: Callable[[Any], BatchRecord]
    """Says at once what a batch is."""

    def see(self, batch: Any) -> None:
        """Takes down the batch that is handed out next."""
        ...

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns one that was trained, None where that cannot be told.

        Args:
            epoch: The epoch under way.
            batches_done: Batches trained of the pass.
            reasons: Why its source cannot be repeated.
        """
        ...


class BatchWatch:
    """Knows what the newest batch of a pass was, before its step could change it in place.

    Args:
        note: Takes down a batch in a microsecond, and tells later what it was, or None where
            it has been changed.
        record: Says at once what a batch is.
    """

    def __init__(
        self,
        note: Callable[[Any], Callable[[], BatchRecord | None]],
        record: Callable[[Any], BatchRecord],
    ) -> None:
        self.record = record
        self._note = note
        self._newest: Callable[[], BatchRecord | None] = lambda: None
        self._trial: Callable[[], BatchRecord | None] | None = None
        self._left_alone = False

    def see(self, batch: Any) -> None:
        """Takes down the batch that is handed out next."""
        if self._left_alone:
            self._newest = self._note(batch)
        else:
            self._see_carefully(batch)

    def _see_carefully(self, batch: Any) -> None:
        """Until a step has left its batch alone, each is recorded before it is handed out."""
        if self._trial is not None and self._trial() is not None:
            self._left_alone = True
            self._newest = self._note(batch)
            return
        made = self.record(batch)
        self._newest = lambda: made
        self._trial = self._note(batch)

    def kept(
        self,
        epoch: int,
        batches_done: int,  # noqa: ARG002  # it is the newest
        reasons: tuple[str, ...],
    ) -> KeptBatch | None:
        """Returns what the newest batch was, None where that cannot be told any more."""
        made = self._newest()
        self._newest = lambda: made
        if made is None:
            self._left_alone = False
            return None
        return KeptBatch(made, epoch, reasons)


class SampledWatch:
    """Records the first batch of a pass and every so many after it, before they are handed out.

    Where nothing tells whether a batch has been changed in place, to record each would cost
    every step; and where batches are fetched ahead, the newest is not the one trained last.

    Args:
        record: Says what a batch is.
        first: Number of the first batch in its pass.
    """

    def __init__(self, record: Callable[[Any], BatchRecord], *, first: int = 0) -> None:
        self.record = record
        self._first: BatchRecord | None = None
        self._number = first
        self._due = first
        self._seen: dict[int, BatchRecord] = {}

    @property
    def first(self) -> BatchRecord | None:
        """What the first batch of the pass is, None where it was not handed out."""
        return self._first

    def see(self, batch: Any) -> None:
        """Takes down the batch that is handed out next."""
        if self._number == self._due:
            self.take(self._number, self.record(batch))
            self._due += SAMPLED_EVERY
        self._number += 1

    def take(self, number: int, record: BatchRecord) -> None:
        """Takes down what the batch of a number is."""
        self._seen[number] = record
        if number == 0:
            self._first = record

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns the newest that was trained."""
        trained = [number for number in list(self._seen) if number < batches_done]
        if not trained:
            return None
        newest = max(trained)
        for number in trained:
            if number < newest:
                del self._seen[number]
        return KeptBatch(self._seen[newest], epoch, reasons, newest)
