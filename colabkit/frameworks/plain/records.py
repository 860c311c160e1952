"""What is kept of a batch of NumPy arrays, to tell later whether another is the same."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np

from colabkit.frameworks.batch_records import BatchRecord
from colabkit.frameworks.leaf_records import LEAVES_MAX, bytes_of, leaf_record, named_leaves


def record(batch: Any, arrays: tuple[type, ...] = (np.ndarray,)) -> BatchRecord:
    """Returns what is kept of a batch.

    Args:
        batch: Arrays and plain values, nested.
        arrays: The classes of arrays, each of which NumPy can read.
    """
    arrays = (*arrays, *_arrays_of_others())
    few = itertools.islice(named_leaves(batch, arrays), LEAVES_MAX)
    return BatchRecord(tuple(_leaf_record(name, leaf, arrays) for name, leaf in few))


def _arrays_of_others() -> list[type]:
    """Returns the classes of arrays that batches may be of where another package makes them."""
    known = (("jax", "Array"), ("tensorflow", "Tensor"))
    found = (getattr(sys.modules.get(module), name, None) for module, name in known)
    return [each for each in found if isinstance(each, type)]


def _leaf_record(name: str, leaf: Any, arrays: tuple[type, ...]) -> Any:
    if isinstance(leaf, arrays):
        leaf = np.asarray(leaf)
        form = f"{leaf.dtype} {list(leaf.shape)}"
    else:
        form = type(leaf).__name__
    return leaf_record(name, leaf, form=form, data=bytes_of(leaf, whole=False))


def same_batch(one: Any, other: Any, arrays: tuple[type, ...] = (np.ndarray,)) -> bool:
    """Whether two batches hold the same numbers, as far as records tell."""
    return record(one, arrays) == record(other, arrays)
