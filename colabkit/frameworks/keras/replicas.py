"""What a model of several replicas keeps in each: metrics, seeds, statistics of its own batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.frameworks.keras.variables import assign, components, reader

_KNOWN = "MirroredStrategy"


def strategy_of(model: Any) -> Any:
    """Returns the strategy in whose scope a model was made, None where there was none."""
    return getattr(model, "_distribute_strategy", None)


def replicas_of(models: Iterable[Any]) -> int:
    """Returns in how many replicas models are trained."""
    found = (strategy_of(model) for model in models)
    return max((each.num_replicas_in_sync for each in found if each is not None), default=1)


def scope_of(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Returns the scope that a model's variables are made in."""
    strategy = strategy_of(model)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def check_strategy(model: Any) -> None:
    """Refuses what no run has been seen to go on from.

    Raises:
        ArgumentError: The model was made under another strategy than MirroredStrategy, or takes
            its steps in a way that strategies and resumes do not share.
    """
    strategy = strategy_of(model)
    if strategy is None:
        return
    name = type(strategy).__name__
    if name != _KNOWN:
        message = f"The model was made under a {name}, whose runs cannot resume yet."
        hint = f"Make it under tf.distribute.{_KNOWN}, or outside strategy.scope()."
        raise ArgumentError(message, argument="model", hint=hint)
    if model.run_eagerly or model.steps_per_execution > 1:
        what = "run_eagerly" if model.run_eagerly else "steps_per_execution"
        message = f"The model is of several replicas and compiled with {what}."
        hint = f"Leave {what} out, or make the model outside strategy.scope()."
        raise ArgumentError(message, argument="model", hint=hint)


def check_length(model: Any, lengths: Iterable[int | None]) -> None:
    """Refuses data whose end only reading tells: a step of several replicas goes on beyond it.

    Raises:
        ArgumentError: It does not say its length.
    """
    if strategy_of(model) is not None and None in lengths:
        message = "The model is of several replicas, and the data does not say how long it is."
        hint = "Pass arrays, or a pipeline of known cardinality."
        raise ArgumentError(message, argument="data", hint=hint)


def values_in_each(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what variables are in each replica; nothing of those that have but one value."""
    read = reader()
    parts = ((path, components(each)) for path, each in variables.items())
    return {path: [read(one) for one in found] for path, found in parts if found}


def restore_in_each(variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Puts back what ``values_in_each`` gave, where there are as many replicas as then."""
    for path, kept in values.items():
        there = components(variables[path]) if path in variables else ()
        if len(there) == len(kept):
            for one, value in zip(there, kept, strict=True):
                assign(one, value)
