"""Steps that do nothing where the data ends.

Keras' own step, called on an iterator with nothing left, draws seeds, counts up and decays
weights before TensorFlow notices: on data whose length is unknown, that happens at every end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf


@contextlib.contextmanager
def steps_end_with_the_data(model: Any, *, training: bool, testing: bool) -> Iterator[None]:
    """Gives a model such steps for a while.

    Args:
        model: The compiled model.
        training: Whether the training data's length is unknown.
        testing: Whether the validation data's length is unknown.
    """
    # Several steps an execution look before they step; eager ones fetch first.
    safe = model.run_eagerly or model.steps_per_execution > 1
    chosen = {"train": training and not safe, "test": testing and not safe}
    names = [name for name, is_needed in chosen.items() if is_needed and _is_keras_own(model, name)]
    for name in names:
        setattr(model, f"{name}_function", _looking_first(model, getattr(model, f"{name}_step")))
    try:
        yield
    finally:
        for name in names:
            setattr(model, f"{name}_function", None)


def _is_keras_own(model: Any, name: str) -> bool:
    made_by = f"make_{name}_function"
    return getattr(type(model), made_by) is getattr(keras.Model, made_by)


def _looking_first(model: Any, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    compiled = tf.function(step, reduce_retracing=True, jit_compile=model.jit_compile)
    optional = tf.experimental.Optional

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator, unused-ignore]
    def step_if_any(iterator: Any) -> Any:
        batch = iterator.get_next_as_optional()
        outputs = compiled.get_concrete_function(batch.element_spec).structured_outputs
        specs = tf.nest.map_structure(tf.type_spec_from_value, outputs)
        return tf.cond(
            batch.has_value(),
            lambda: optional.from_value(compiled(batch.get_value())),
            lambda: optional.empty(specs),
        )

    def function(iterator: Any) -> Any:
        outputs = step_if_any(iterator)
        if not outputs.has_value():
            raise StopIteration
        return outputs.get_value()

    return function
