"""One object that Keras reads for several replicas, each batch of it shared out among them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from colabkit.errors import ArgumentError
from colabkit.fitting.keras.tf_epoch_dataset import EpochDataset
from colabkit.frameworks.base import Start
from colabkit.frameworks.keras.pass_watch import PassWatch

# Public nowhere; what is one is read as it is.
from keras.src.trainers.data_adapters.data_adapter import DataAdapter  # isort: skip


class ReplicaPasses(DataAdapter):  # type: ignore[misc]  # Keras has no types
    """Has batches shared out; each epoch's first iterator begins where the run stands.

    Attributes:
        length: Batches in each epoch of the coming ``fit``.

    Args:
        passes: What one replica would read.
        strategy: Shares batches out.
    """

    def __init__(self, passes: EpochDataset, strategy: tf.distribute.Strategy) -> None:
        self.length: int | None = None
        self._passes = passes
        self._shared = _SharedOut(passes, strategy)

    @property
    def element_spec(self) -> Any:
        """What a batch looks like, before it is shared out."""
        return self._passes.element_spec

    def begin(self, start: Start) -> None:
        """Says where the next iterator begins."""
        self._passes.begin(start)
        self._shared.is_due, self._shared.batches = True, self.length

    @property
    def watch(self) -> PassWatch:
        """What takes down the batches of the epoch under way."""
        return self._passes.watch

    def get_tf_dataset(self) -> Any:
        """Returns what Keras iterates over."""
        return self._shared

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


class _SharedOut(tf.distribute.DistributedDataset):  # type: ignore[misc]  # has no types
    """Keras makes more iterators than it trains on, to see the form of a batch: those get zeros."""

    def __init__(self, passes: EpochDataset, strategy: tf.distribute.Strategy) -> None:
        replicas = strategy.num_replicas_in_sync
        self.is_due = False
        self.batches: int | None = None
        # What is read ahead of an epoch's end would be missing from the next one.
        rows = tf.data.Dataset.from_generator(
            lambda: itertools.islice(iter(passes), self.batches),
            output_signature=passes.element_spec,
        )
        self._rows = strategy.experimental_distribute_dataset(rows)
        zeros = tf.nest.map_structure(lambda spec: _zeros(spec, replicas), passes.element_spec)
        form = tf.data.Dataset.from_tensors(zeros)
        self._form = strategy.experimental_distribute_dataset(form)

    def __iter__(self) -> Iterator[Any]:
        is_due, self.is_due = self.is_due, False
        iterator: Iterator[Any] = iter(self._rows if is_due else self._form)
        return iterator

    @property
    def element_spec(self) -> Any:
        return self._rows.element_spec

    def reduce(self, initial_state: Any, reduce_func: Any) -> Any:
        return self._rows.reduce(initial_state, reduce_func)


def _zeros(spec: Any, samples: int) -> Any:
    """Returns a batch with a sample for each replica."""
    if not isinstance(spec, tf.TensorSpec):
        message = f"The model is of several replicas, and the data has a {type(spec).__name__}."
        hint = "Give it dense arrays, or make the model outside strategy.scope()."
        raise ArgumentError(message, argument="data", hint=hint)
    sizes = [size or 1 for size in spec.shape[1:]]
    return tf.zeros([samples, *sizes] if spec.shape.rank else [], spec.dtype)
