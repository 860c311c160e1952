"""What a pass of Keras over its data gives, taken down for a checkpoint to keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from colabkit.frameworks.base import Start
from colabkit.frameworks.batch_records import BatchRecord, KeptBatch
from colabkit.frameworks.batch_watches import SampledWatch, Watch
from colabkit.frameworks.keras.array_feed import KerasArrayFeed
from colabkit.frameworks.keras.compare import record


class PassWatch(Watch, Protocol):
    """What takes down batches of a pass."""

    @property
    def first(self) -> BatchRecord | None:
        """What the first batch of the epoch is, None where it was not read."""
        ...


class Watched(Protocol):
    """What Keras reads, epoch after epoch."""

    @property
    def watch(self) -> PassWatch:
        """What takes down the batches of the epoch under way."""
        ...


class ArrayWatch:
    """Arrays give any batch again, when a checkpoint asks for the one trained last.

    Args:
        feed: The arrays.
        start: Where the pass begins.
    """

    def __init__(self, feed: KerasArrayFeed, start: Start) -> None:
        self.record: Callable[[Any], BatchRecord] = record
        self._feed = feed
        self._start = start

    def see(self, batch: object) -> None:
        """Nothing to take down."""

    @property
    def first(self) -> BatchRecord | None:
        """What the first batch of the epoch is."""
        return self._of(0)

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns the batch trained last."""
        number = batches_done - 1
        made = None if number < 0 else self._of(number)
        return None if made is None else KeptBatch(made, epoch, reasons, number)

    def _of(self, number: int) -> BatchRecord | None:
        start = dataclasses.replace(self._start, skip=number)
        return next(map(record, self._feed.again(start, goes_on=False)), None)


class StreamWatch(SampledWatch):
    """Records what a pipeline hands over while the pass goes on, also beyond one epoch.

    Attributes:
        epoch_begins_at: The number within the pass of the epoch's first batch.
    """

    epoch_begins_at = 0

    @property
    def first(self) -> BatchRecord | None:
        """What the first batch of the pass is, in the epoch that begins with it."""
        return None if self.epoch_begins_at else super().first

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns the newest that was trained in the epoch."""
        found = super().kept(epoch, batches_done + self.epoch_begins_at, reasons)
        if found is None or found.number is None or found.number < self.epoch_begins_at:
            return None
        return dataclasses.replace(found, number=found.number - self.epoch_begins_at)


class WatchOf:
    """The watch of whatever pass is under way.

    Args:
        passes: What Keras reads, epoch after epoch.
    """

    def __init__(self, passes: Watched) -> None:
        self.record: Callable[[Any], BatchRecord] = record
        self._passes = passes

    def see(self, batch: object) -> None:
        """Nothing: the pass itself has seen it."""

    def kept(self, epoch: int, batches_done: int, reasons: tuple[str, ...]) -> KeptBatch | None:
        """Returns what the pass keeps."""
        return self._passes.watch.kept(epoch, batches_done, reasons)


def seen_by(watch: SampledWatch, batches: Iterator[object]) -> Iterator[object]:
    """Yields batches, each taken down before."""
    for batch in batches:
        watch.see(batch)
        yield batch
