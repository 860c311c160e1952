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
    # One eager step fetches its batch first. Keras that does not unroll takes steps for batches
    # beyond the end, where its execution has several.
    many = model.steps_per_execution
    if many > 1 and not hasattr(model, "unrolled_steps_per_execution"):
        training = testing = True
    chosen = {"train": training, "test": testing} if not model.run_eagerly or many > 1 else {}
    names = [name for name, is_needed in chosen.items() if is_needed and _is_keras_own(model, name)]
    for name in names:
        steps = Steps(model, getattr(model, f"{name}_step"), at_most=many)
        setattr(model, f"{name}_function", steps)
    try:
        yield
    finally:
        for name in names:
            setattr(model, f"{name}_function", None)


def _is_keras_own(model: Any, name: str) -> bool:
    made_by = f"make_{name}_function"
    return getattr(type(model), made_by) is getattr(keras.Model, made_by)


class Steps:
    """What Keras calls for each execution; the batches of an iterator say how many steps it takes.

    Attributes:
        steps_taken: Steps that the newest execution took.

    Args:
        model: The compiled model.
        step: Its step on one batch.
        at_most: Steps of an execution.
    """

    def __init__(self, model: Any, step: Callable[[Any], Any], *, at_most: int) -> None:
        self.steps_taken = 0
        self._at_most = at_most
        self._step = _eager(step) if model.run_eagerly else _compiled(step, jit=model.jit_compile)

    def __call__(self, iterator: Any) -> Any:
        """Takes the steps, and returns what the last of them reports."""
        newest = None
        for number in range(self._at_most):
            outputs = self._step(iterator)
            if not outputs.has_value():
                break
            newest, self.steps_taken = outputs, number + 1
        if newest is None:
            raise StopIteration
        return newest.get_value()


def _eager(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    optional = tf.experimental.Optional

    def step_if_any(iterator: Any) -> Any:
        batch = iterator.get_next_as_optional()
        return optional.from_value(step(batch.get_value())) if batch.has_value() else batch

    return step_if_any


def _compiled(step: Callable[[Any], Any], *, jit: Any) -> Callable[[Any], Any]:
    compiled = tf.function(step, reduce_retracing=True, jit_compile=jit)
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

    found: Callable[[Any], Any] = step_if_any
    return found
