"""Arrays in memory as a source of Keras batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Start
from colabkit.frameworks.keras.places import Batching, Route
from colabkit.frameworks.keras.sparse import as_rows, is_ragged, is_sparse
from colabkit.frameworks.seeding import derive

_LOOK_BYTES = 1 << 20


class KerasArrayFeed:
    """Arrays of equal first dimension [N, ...], in an order drawn for each pass.

    Attributes:
        reading_has_effects: False: any batch is there to be looked at.

    Args:
        arrays: x, (x, y) or (x, y, sample_weight); each an array, or dicts and lists of them.
        batch_size: Samples in a batch; the last one may be smaller.
        shuffle: Whether each pass has its own order.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for a pass.
        limit: Batches of each pass that are read, or None for all.
    """

    reading_has_effects = False

    def __init__(
        self,
        arrays: Any,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        steps_per_epoch: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.arrays = keras.tree.map_structure(as_array, arrays)
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = self._own_seed = seed
        self._samples = _samples(self.arrays)
        batches = -(-self._samples // batch_size)
        batches = batches if limit is None else min(batches, limit)
        self._route = Route(batches=batches, steps_per_epoch=steps_per_epoch)
        leaves = keras.tree.flatten(self.arrays)
        self._sample_bytes = 1 + sum(getattr(a, "nbytes", 0) for a in leaves) // self._samples
        self._newest_order: tuple[int, npt.NDArray[np.int64]] | None = None
        self.length = self._route.length

    def length_of(self, epoch: int) -> int | None:
        return self._route.span(epoch).count

    def slices(self, start: Start) -> Iterator[npt.NDArray[np.int64]]:
        """Yields the indices of each batch."""
        size, span = self._batch_size, self._route.span(start.epoch)
        order = self._order(span.turn)
        for number in range(span.first + start.skip, span.first + (span.count or 0)):
            yield order[number * size : (number + 1) * size]

    def _order(self, turn: int) -> npt.NDArray[np.int64]:
        if self._newest_order is None or self._newest_order[0] != turn:
            order = np.arange(self._samples)
            if self._shuffle:
                chooser = np.random.default_rng(derive(self._seed, "order", turn))
                order = chooser.permutation(self._samples)
            self._newest_order = turn, order
        return self._newest_order[1]

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of an epoch from ``start.skip`` on."""
        for indices in self.slices(start):
            yield self.take(indices)

    def again(self, start: Start, *, goes_on: bool) -> Iterator[Any]:  # noqa: ARG002
        """Yields the batches from a place on, of large samples as many as a look needs."""
        rows = max(1, _LOOK_BYTES // self._sample_bytes)
        return (self.take(indices[:rows]) for indices in self.slices(start))

    def take(self, indices: npt.NDArray[np.int64]) -> Any:
        """Returns the batch of some indices."""
        return keras.tree.map_structure(lambda array: array[indices], self.arrays)

    @property
    def samples_in_each(self) -> int | None:
        """Samples in every batch, None where the last of a pass has fewer."""
        return None if self._samples % self._batch_size else self._batch_size

    def batch_sizes(self, epochs: int) -> list[int]:
        """Returns how many samples the batches have that so many epochs read."""
        return Batching(self._samples, self._batch_size).sizes(self._route.steps_per_epoch, epochs)

    @property
    def is_sparse(self) -> bool:
        """Whether any of the arrays is."""
        return any(map(is_sparse, keras.tree.flatten(self.arrays)))

    def pass_on(self, end: Start) -> None:
        """Arrays stay as they are."""

    def reseed(self, number: int) -> None:
        """Has all draws differ from those without the number."""
        self._seed = derive(self._own_seed, "from", number)
        self._newest_order = None

    def state(self) -> object:
        """The order follows from the seed: nothing to keep."""
        return None

    def close(self) -> None:
        """Nothing was changed."""

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size."""
        described = {"samples": self._samples, "batch_size": self._batch_size}
        if self._route.steps_per_epoch:
            described["steps_per_epoch"] = self._route.steps_per_epoch
        return described

    def reasons(self) -> tuple[str, ...]:
        return ()

    def notices(self) -> tuple[str, ...]:
        return ()


def as_array(value: Any) -> Any:
    """Returns an array, tensor or data frame as Keras takes it, of which rows can be taken."""
    if is_sparse(value):
        return as_rows(value)
    if is_ragged(value):
        return value
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype == object and not _is_text(array):
        message = f"data holds a {type(value).__name__} of Python objects, not of numbers."
        hint = "Give every sample the same shape, or pass a tf.data.Dataset."
        raise ArgumentError(message, argument="data", hint=hint)
    # As Keras does with arrays.
    if array.dtype.kind == "f" and array.dtype != keras.backend.floatx():
        return array.astype(keras.backend.floatx())
    return array


def _is_text(array: npt.NDArray[Any]) -> bool:
    """Whether TensorFlow makes strings of an array of objects."""
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return on_tensorflow and all(isinstance(item, str | bytes) for item in array.flat)


def _samples(arrays: Any) -> int:
    lengths = [int(a.shape[0]) if len(a.shape) else 0 for a in keras.tree.flatten(arrays)]
    if len(set(lengths)) > 1:
        message = f"The arrays in data have {', '.join(map(str, lengths))} samples."
        raise ArgumentError(message, argument="data", hint="Give them the same first dimension.")
    if not lengths or not lengths[0]:
        message = "data holds no samples."
        raise ArgumentError(message, argument="data", hint="Check what it was read from.")
    return lengths[0]
