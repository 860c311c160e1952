"""Turns whatever a Keras user calls data into a source of batches."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError
from colabkit.frameworks.keras.array_feed import KerasArrayFeed
from colabkit.frameworks.keras.dataset_feed import DatasetFeed
from colabkit.frameworks.keras.places import KerasFeed
from colabkit.frameworks.keras.stream_feed import ForeignFeed, IterableFeed
from colabkit.frameworks.keras.structure import ClassWeights, Parts, is_arrays
from colabkit.frameworks.seeding import derive


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """How data is read.

    Attributes:
        batch_size: Samples in a batch, for arrays.
        shuffle: Whether each epoch has its own order, for arrays and PyDatasets.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch, or None for one pass.
        limit: Batches of each pass that are read, or None for all.
        validates: Whether it is validation data.
        class_weights: Weights of classes, or None.
        is_shared: Whether training and validation data are one object.
        as_keras_fit: Whether a pipeline draws the orders that it draws in Keras' own ``fit``.
        of_loop: Whether a loop of one's own reads it, which on PyTorch takes a loader's tensors.
    """

    batch_size: int
    shuffle: bool
    seed: int
    steps_per_epoch: int | None = None
    limit: int | None = None
    validates: bool = False
    class_weights: ClassWeights | None = None
    is_shared: bool = False
    as_keras_fit: bool = False
    of_loop: bool = False


def feed_of(data: Any, options: FeedOptions) -> KerasFeed:
    """Returns the feed for arrays, a tf.data.Dataset, PyDataset, DataLoader or any iterable.

    Raises:
        ArgumentError: When the data is none of these, or empty.
    """
    if isinstance(data, tuple) and any(_is_plain_list(part) for part in data):
        message = "data holds a list of plain numbers."
        hint = 'Pass arrays: (np.array(x, dtype="float32"), np.array(y)).'
        raise ArgumentError(message, argument="data", hint=hint)
    found = _of_known(data, options)
    if found is not None:
        feed = found
    elif is_arrays(data):
        feed = _of_arrays(data, options)
    elif callable(data) or (isinstance(data, Iterable) and not isinstance(data, str | tuple)):
        feed = _of_iterable(data, options)
    else:
        message = f"data is a {type(data).__name__}, from which no batches can be read."
        hint = "Pass (x, y) arrays, a tf.data.Dataset, a PyDataset, or an iterable of batches."
        raise ArgumentError(message, argument="data", hint=hint)
    if feed.length == 0:
        message = "data holds no batches."
        hint = "Check what it was read from, and drop_remainder with few samples."
        raise ArgumentError(message, argument="data", hint=hint)
    return feed


def _is_plain_list(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, int | float)


def _of_known(data: Any, options: FeedOptions) -> KerasFeed | None:
    if is_loaded_dataset(data):
        return _of_tfdata(data, options)
    if isinstance(data, keras.utils.PyDataset):
        feed = DatasetFeed(
            data,
            shuffle=options.shuffle,
            seed=options.seed,
            steps_per_epoch=options.steps_per_epoch,
            limit=options.limit,
            validates=options.validates,
            is_shared=options.is_shared,
        )
        return _weighted(feed, options)
    if _is_loader(data):
        return _of_loader(data, options)
    return None


def _of_arrays(data: Any, options: FeedOptions) -> KerasFeed:
    weights = options.class_weights
    data = Parts.of(data).packed() if weights is None else weights.apply(data)
    return KerasArrayFeed(
        data,
        batch_size=options.batch_size,
        shuffle=options.shuffle,
        seed=options.seed,
        steps_per_epoch=options.steps_per_epoch,
        limit=options.limit,
    )


def _of_iterable(data: Any, options: FeedOptions) -> KerasFeed:
    if callable(data) and not isinstance(data, Iterable) and "tensorflow" in sys.modules:
        from colabkit.frameworks.keras.tfdata_feed import is_dataset  # imported where it is

        if is_dataset(made := data()):
            return _of_tfdata(data, options)
        if hasattr(made, "close"):
            made.close()
    weights = options.class_weights
    return IterableFeed(
        data,
        seed=options.seed,
        steps_per_epoch=options.steps_per_epoch,
        limit=options.limit,
        transform=None if weights is None else lambda batch: weights.apply(_pair(batch)),
        is_shared=options.is_shared,
    )


def _of_tfdata(data: Any, options: FeedOptions) -> KerasFeed:
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed  # imported where it is

    weights = options.class_weights
    is_native = keras.backend.backend() == "tensorflow"
    return TfDataFeed(
        data,
        seed=options.seed,
        steps_per_epoch=options.steps_per_epoch,
        limit=options.limit,
        transform=weights.apply if weights is not None else None,
        convert=None if is_native else _arrays,
        as_keras_fit=options.as_keras_fit and is_native,
    )


def _of_loader(data: Any, options: FeedOptions) -> KerasFeed:
    import torch  # a DataLoader is there, so PyTorch is

    from colabkit.frameworks.torch import feed_of as torch_feed_of

    cpu = torch.device("cpu")
    inner = torch_feed_of(data, batch_size=options.batch_size, shuffle=options.shuffle, device=cpu)
    seed = options.seed
    if inner.length is None and options.steps_per_epoch is not None:
        message = "steps_per_epoch is given, and data is a DataLoader that has no length."
        hint = "Give its dataset as many batches, or a __len__."
        raise ArgumentError(message, argument="steps_per_epoch", hint=hint)
    keeps_tensors = options.of_loop and keras.backend.backend() == "torch"
    feed = ForeignFeed(
        inner,
        (lambda batch: batch) if keeps_tensors else _arrays,
        lambda turn: derive(seed, "pass", turn),
        steps_per_epoch=options.steps_per_epoch,
        limit=options.limit,
    )
    return _weighted(feed, options)


def _weighted(feed: KerasFeed, options: FeedOptions) -> KerasFeed:
    weights = options.class_weights
    if weights is None:
        return feed
    return ForeignFeed(feed, lambda batch: weights.apply(_pair(batch)))


def _pair(batch: Any) -> Any:
    return tuple(batch) if isinstance(batch, list) else batch


def _arrays(batch: Any) -> Any:
    return keras.tree.map_structure(_array, _pair(batch))


def _array(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def is_loaded_dataset(data: object) -> bool:
    """Whether data is a tf.data.Dataset, without loading TensorFlow to ask."""
    if "tensorflow" not in sys.modules:
        return False
    from colabkit.frameworks.keras.tfdata_feed import is_dataset  # imported where it is

    return is_dataset(data)


def _is_loader(data: object) -> bool:
    loader_class = getattr(sys.modules.get("torch.utils.data"), "DataLoader", None)
    return isinstance(loader_class, type) and isinstance(data, loader_class)
