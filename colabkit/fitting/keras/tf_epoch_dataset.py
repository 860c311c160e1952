"""One object that Keras on TensorFlow reads epoch after epoch, each from where it should begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_watches import SampledWatch
from colabkit.frameworks.keras.array_feed import KerasArrayFeed
from colabkit.frameworks.keras.compare import record
from colabkit.frameworks.keras.pass_watch import ArrayWatch, PassWatch, seen_by
from colabkit.frameworks.keras.structure import Parts, tupled
from colabkit.frameworks.keras.tfdata_feed import TfDataFeed
from colabkit.frameworks.keras.tfdata_readers import begun

_SAMPLED = 2


class EpochDataset(tf.data.Dataset):  # type: ignore[misc]  # TensorFlow has no types
    """Looks like a dataset; each epoch's first iterator begins where the run stands.

    Keras makes more iterators than it reads. Those get nothing: the feed is told of each, for to
    make one from a shuffled pipeline is to draw its next order.

    Attributes:
        length: Batches in each epoch of the coming ``fit``, None where it is not known.

    Args:
        template: A dataset of the same elements.
        make: Makes the iterator of an epoch.
        watch: Returns what takes down the batches of the epoch under way.
        expect: Is told where the next iterator begins.
        end_pass: Is told of each iterator that Keras reads nothing of.
    """

    def __init__(
        self,
        template: tf.data.Dataset,
        make: Callable[[Start], Any],
        watch: Callable[[], PassWatch],
        expect: Callable[[Start], None] = lambda start: None,  # noqa: ARG005
        end_pass: Callable[[], None] = lambda: None,
    ) -> None:
        self._template = template
        self._make = make
        self._watch = watch
        self._expect = expect
        self._end_pass = end_pass
        self._due: Start | None = None
        self.length: int | None = None
        super().__init__(tf.data.experimental.to_variant(template))

    def begin(self, start: Start) -> None:
        """Says where the next iterator begins."""
        self._due = start
        self._expect(start)

    @property
    def watch(self) -> PassWatch:
        """What takes down the batches of the epoch under way."""
        return self._watch()

    def __iter__(self) -> Iterator[Any]:
        start, self._due = self._due, None
        if start is None:
            self._end_pass()
            return begun(self._template.take(0))
        iterator: Iterator[Any] = self._make(start)
        return iterator

    def cardinality(self) -> Any:
        """The batches of an epoch, where they are known."""
        return tf.constant(self.length or tf.data.UNKNOWN_CARDINALITY, tf.int64)

    @property
    def element_spec(self) -> Any:
        """What a batch looks like."""
        return self._template.element_spec

    def _inputs(self) -> list[Any]:
        return []


def epoch_dataset(feed: Feed, *, ahead: bool) -> EpochDataset:
    """Returns the object to hand to Keras for a feed.

    Args:
        feed: The source of batches.
        ahead: Whether batches may be fetched while a step runs.
    """
    if isinstance(feed, TfDataFeed):
        feed.is_watched = True
        told = feed.expect, feed.end_pass
        return EpochDataset(feed.template, feed.iterator, lambda: feed.watch, *told)
    if isinstance(feed, KerasArrayFeed) and not feed.is_sparse:
        return _over_arrays(feed)
    return _over_batches(feed, ahead=ahead)


def _over_arrays(feed: KerasArrayFeed) -> EpochDataset:
    starts: list[Start] = []

    indices = tf.data.Dataset.from_generator(
        lambda: iter([_joined(feed, starts[-1])]),
        output_signature=(tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.int64)),
    )

    def each(order: Any, edges: Any) -> tf.data.Dataset:
        bounds = tf.data.Dataset.from_tensor_slices((edges[:-1], edges[1:]))
        return bounds.map(lambda begin, end: order[begin:end])

    def gathered(taken: Any, arrays: Any) -> Any:
        # As of Keras' own arrays: a stateful layer asks for it while the step is traced.
        taken.set_shape([feed.samples_in_each])
        return keras.tree.map_structure(lambda array: tf.gather(array, taken, axis=0), arrays)

    arrays = tf.data.Dataset.from_tensors(feed.arrays).repeat()
    dataset = tf.data.Dataset.zip((indices.flat_map(each), arrays))
    dataset = dataset.map(gathered, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    # The rewriting of graphs copies whole arrays, and has nothing to gain here.
    options.experimental_optimization.apply_default_optimizations = False
    dataset = dataset.with_options(options).prefetch(tf.data.AUTOTUNE)

    def expect(start: Start) -> None:
        # Of an epoch that is complete several replicas ask for no iterator, and the run for its
        # watch.
        starts[:] = [start]

    return EpochDataset(
        dataset, lambda _: iter(dataset), lambda: ArrayWatch(feed, starts[-1]), expect
    )


def _joined(feed: KerasArrayFeed, start: Start) -> tuple[Any, Any]:
    slices = list(feed.slices(start))
    edges = np.cumsum([0, *(len(taken) for taken in slices)], dtype=np.int64)
    return np.concatenate([np.empty(0, np.int64), *slices]), edges


def _over_batches(feed: Feed, *, ahead: bool) -> EpochDataset:
    starts: list[Start] = []
    watches: list[SampledWatch] = []
    dataset = tf.data.Dataset.from_generator(
        lambda: map(_fed, seen_by(watches[-1], feed.batches(starts[-1]))),
        output_signature=_signature(feed),
    )
    if ahead:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)

    def expect(start: Start) -> None:
        starts[:] = [start]
        watches[:] = [SampledWatch(record, first=start.skip)]

    return EpochDataset(dataset, lambda _: iter(dataset), lambda: watches[-1], expect)


def _signature(feed: Any) -> Any:
    """Reads what batches look like off the first."""
    if hasattr(feed, "first"):
        sampled = [feed.first()]
    else:
        batches = feed.batches(Start(key=0, epoch=0))
        sampled = [batch for batch, _ in zip(batches, range(_SAMPLED), strict=False)]
    if not sampled:
        message = "data holds no batches."
        raise ArgumentError(message, argument="data", hint="Check what it was read from.")
    return keras.tree.map_structure(_spec, *map(_fed, sampled))


def _spec(*leaves: Any) -> Any:
    shapes = [np.shape(leaf) for leaf in leaves]
    if len({len(shape) for shape in shapes}) > 1:
        message = f"The batches in data have arrays of {len(shapes[0])} and more dimensions."
        raise ArgumentError(message, argument="data", hint="Give every batch the same form.")
    same = [sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)]
    shape = [None, *same[1:]] if same else []
    kind = tf.SparseTensorSpec if isinstance(leaves[0], tf.SparseTensor) else tf.TensorSpec
    return kind(shape, tf.as_dtype(_dtype(leaves[0])))


def _dtype(leaf: Any) -> Any:
    return keras.backend.standardize_dtype(getattr(leaf, "dtype", np.asarray(leaf).dtype))


def _fed(batch: Any) -> Any:
    batch = tupled(batch)
    if isinstance(batch, tuple) and any(part is None for part in batch):
        batch = Parts.of(batch).packed()
    return keras.tree.map_structure(_leaf, batch)


def _leaf(value: Any) -> Any:
    if not hasattr(value, "tocoo"):
        return value
    places = value.tocoo()
    indices = np.stack([places.row, places.col], 1).astype(np.int64)
    return tf.SparseTensor(indices, places.data, places.shape)
