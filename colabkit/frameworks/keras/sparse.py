"""Arrays that mostly hold zeros, and those of uneven rows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError


def is_sparse(value: object) -> bool:
    """Whether a value is SciPy's sparse matrix, or TensorFlow's sparse tensor."""
    return hasattr(value, "tocsr") or _is_sparse_tensor(value)


def is_ragged(value: object) -> bool:
    """Whether a value is TensorFlow's tensor of uneven rows."""
    return hasattr(value, "nested_row_splits")


def _is_sparse_tensor(value: object) -> bool:
    return all(hasattr(value, name) for name in ("indices", "values", "dense_shape"))


def as_rows(value: Any) -> Any:
    """Returns a sparse matrix [N, features] of which rows can be taken.

    Raises:
        ArgumentError: It has more dimensions, or SciPy is not installed.
    """
    if _is_sparse_tensor(value):
        value = _of_tensor(value)
    rows = value.tocsr()
    rows.sum_duplicates()
    if rows.dtype.kind == "f" and rows.dtype != keras.backend.floatx():
        rows = rows.astype(keras.backend.floatx())
    return rows


def _of_tensor(tensor: Any) -> Any:
    hint = "Pass a tf.data.Dataset: tf.data.Dataset.from_tensor_slices((x, y)).batch(32)."
    if len(tensor.shape) != 2:
        message = f"data holds a SparseTensor of {len(tensor.shape)} dimensions."
        raise ArgumentError(message, argument="data", hint=hint)
    try:
        from scipy.sparse import coo_array  # imported where it is wanted
    except ModuleNotFoundError as error:
        message = "data holds a SparseTensor, whose rows are taken by SciPy, not installed here."
        raise ArgumentError(message, argument="data", hint=hint) from error
    indices = np.asarray(tensor.indices)
    place = (indices[:, 0], indices[:, 1])
    return coo_array((np.asarray(tensor.values), place), shape=tuple(map(int, tensor.shape)))
