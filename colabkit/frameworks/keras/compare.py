"""Bitwise comparison of batches of arrays for Keras, and records of them to keep."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.batch_records import BatchRecord, LeafRecord
from colabkit.frameworks.leaf_records import LEAVES_MAX, bytes_of, leaf_record, named_leaves


def same_batch(one: Any, other: Any) -> bool:
    """Whether two batches hold bitwise the same numbers."""
    leaves, others = keras.tree.flatten(one), keras.tree.flatten(other)
    return len(leaves) == len(others) and all(map(_same, leaves, others))


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    a, b = (np.asarray(keras.ops.convert_to_numpy(v)) for v in (one, other))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def record(batch: Any) -> BatchRecord:
    """Returns what tells later whether another batch is the same."""
    return record_of(named_leaves(batch, _array_classes()))


def record_of(leaves: Iterable[tuple[str, Any]]) -> BatchRecord:
    """Returns the record of a batch's leaves, each with its name."""
    few = itertools.islice(leaves, LEAVES_MAX)
    return BatchRecord(tuple(_leaf_record(name, _on_host(leaf)) for name, leaf in few))


def _leaf_record(name: str, leaf: Any) -> LeafRecord:
    is_array = isinstance(leaf, np.ndarray)
    form = f"{leaf.dtype} {list(leaf.shape)}" if is_array else type(leaf).__name__
    return leaf_record(name, leaf, form=form, data=bytes_of(leaf, whole=False))


def _on_host(leaf: Any) -> Any:
    if not hasattr(leaf, "detach"):
        leaf = leaf.numpy() if hasattr(leaf, "numpy") else leaf
        is_far = hasattr(leaf, "addressable_shards")
        return np.asarray(leaf) if is_far or isinstance(leaf, np.number | np.bool_) else leaf
    tensor = leaf.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:  # NumPy has no such type
        return tensor.float().numpy()


def _array_classes() -> tuple[type, ...]:
    """Returns the classes of arrays that there can be; what was never imported made none."""
    names = (("tensorflow", "Tensor"), ("torch", "Tensor"), ("jax", "Array"))
    found = (getattr(sys.modules.get(package), name, None) for package, name in names)
    return (np.ndarray, *(each for each in found if isinstance(each, type)))
