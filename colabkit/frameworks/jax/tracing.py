"""A Keras model's step traced without being taken."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

_SIZE = 32  # of a batch whose specs leave it open


def trace(model: Any, batch: Any) -> None:
    """Runs the Python of a step as compiling it would.

    Args:
        model: A compiled Keras model on JAX, built.
        batch: A batch of arrays, or the specs of one.
    """
    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    shapes = jax.tree.map(_shape, batch, is_leaf=lambda leaf: leaf is None)
    jax.eval_shape(model.train_step, state, shapes)


def _shape(leaf: Any) -> Any:
    if leaf is None:
        return None
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    # TensorFlow says so of its own types.
    dtype = jax.dtypes.canonicalize_dtype(getattr(array.dtype, "as_numpy_dtype", array.dtype))
    shape = (_SIZE if size is None else size for size in array.shape)
    return jax.ShapeDtypeStruct(tuple(shape), dtype)
