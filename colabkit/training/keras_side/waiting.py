"""State of what is not built yet: put back in the moment when it is, before the first step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras

from colabkit.errors import ArgumentError


def after_build(optimizer: Any, put_back: Callable[[], None]) -> None:
    """Calls ``put_back`` once, as soon as an optimizer that has no state yet is built."""
    build = optimizer.build

    @functools.wraps(build)
    def build_and_put_back(*given: Any, **named: Any) -> None:
        optimizer.build = build
        build(*given, **named)
        put_back()

    optimizer.build = build_and_put_back


def around_calls(layers: Iterable[Any], try_to_put_back: Callable[[], bool]) -> None:
    """Tries before and after each call of a layer, until it has worked.

    A subclassed model makes its weights when it is called for the first time; Keras does so
    in a call of symbols, behind which the first real one comes.
    """
    hooked: list[tuple[Any, Any]] = []
    depth = 0

    def is_done() -> bool:
        if hooked and not _is_symbolic() and try_to_put_back():
            for layer, call in hooked:
                layer.call = call
            hooked.clear()
        return not hooked or _is_symbolic()

    def hook(layer: Any) -> None:
        call = layer.call

        @functools.wraps(call)
        def call_between(*given: Any, **named: Any) -> Any:
            nonlocal depth
            is_done()
            depth += 1
            outputs = call(*given, **named)
            depth -= 1
            if not (is_done() or depth or _is_traced()):
                raise _in_parts_error(layer)
            return outputs

        hooked.append((layer, call))
        layer.call = call_between

    for layer in layers:
        hook(layer)


def _in_parts_error(layer: Any) -> ArgumentError:
    message = (
        f"{layer.name} has computed before all weights of its model were there, which the"
        " checkpoint is to be put back into."
    )
    hint = "Call the model once on a batch before Run(...), or give its parts an Input shape."
    return ArgumentError(message, argument="model", hint=hint)


def _is_traced() -> bool:
    """Whether a step is being traced, which computes nothing yet."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf  # imported where it is the backend

    return not tf.executing_eagerly()


def _is_symbolic() -> bool:
    """Whether Keras only asks what comes out, and lets no variable have a value."""
    try:
        from keras.src.backend.common.stateless_scope import in_stateless_scope  # not exported
    except ImportError:
        return False
    return bool(in_stateless_scope())
