"""Bitwise comparison of batches of arrays, for Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def same_batch(one: Any, other: Any) -> bool:
    """Whether two batches hold bitwise the same numbers."""
    leaves, others = keras.tree.flatten(one), keras.tree.flatten(other)
    return len(leaves) == len(others) and all(map(_same, leaves, others))


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    a, b = (np.asarray(keras.ops.convert_to_numpy(v)) for v in (one, other))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
