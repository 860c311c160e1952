"""One object that Keras on JAX reads epoch after epoch, each from where it should begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_watches import SampledWatch
from colabkit.frameworks.keras.compare import record
from colabkit.frameworks.keras.pass_watch import PassWatch, seen_by

# Public nowhere; what is one is read as it is.
from keras.src.trainers.data_adapters.data_adapter import DataAdapter  # isort: skip


class JaxPasses(DataAdapter):  # type: ignore[misc]  # Keras has no types
    """Hands over the batches of a feed; each epoch's first iterator begins where the run stands.

    Attributes:
        length: Batches in each epoch of the coming ``fit``, None where it is not known.
    """

    def __init__(self, feed: Feed) -> None:
        self.length: int | None = None
        self.watch: PassWatch = SampledWatch(record)
        self._feed = feed
        self._due: Start | None = None

    def begin(self, start: Start) -> None:
        """Says where the next iterator begins."""
        self._due = start
        if (expect := getattr(self._feed, "expect", None)) is not None:
            expect(start)

    def get_jax_iterator(self) -> Iterator[Any]:
        """Yields batches; Keras makes more iterators than it reads, and those get nothing."""
        start, self._due = self._due, None
        if start is not None:
            watch = self.watch = SampledWatch(record, first=start.skip)
            for batch in seen_by(watch, self._feed.batches(start)):
                is_plain = type(batch) is tuple and all(type(part) is np.ndarray for part in batch)
                # To walk through a batch costs a twentieth of a small step.
                yield batch if is_plain else keras.tree.map_structure(_array, batch)

    @property
    def num_batches(self) -> int | None:
        """Batches of the epochs to come."""
        return self.length

    @property
    def batch_size(self) -> None:
        """It is the feed's business."""

    @property
    def has_partial_batch(self) -> bool:
        """It is the feed's business."""
        return False

    @property
    def partial_batch_size(self) -> None:
        """It is the feed's business."""


def _array(value: Any) -> Any:
    if value is None or isinstance(value, np.ndarray):
        return value
    return value.toarray() if hasattr(value, "toarray") else keras.ops.convert_to_numpy(value)
