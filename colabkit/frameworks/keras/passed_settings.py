"""What the user compiles a model with: what it trains, and the settings of its optimizers."""

from __future__ import annotations

import contextlib
import numbers
import types
from collections.abc import Mapping
from typing import Any

import keras

from colabkit.frameworks.code_marks import code_mark, code_of
from colabkit.frameworks.differences import differing, digest_of, phrases_of
from colabkit.frameworks.keras.names import layers_of, stable_names


def parts_of(models: Mapping[str, Any], optimizers: Mapping[str, Any]) -> dict[str, str]:
    """Returns a phrase for each model and optimizer, which other parts do not share."""
    parts = {}
    for name, model in models.items():
        weights = model.weights
        names = stable_names(model, weights)
        trainable = {id(variable) for variable in model.trainable_variables}
        pairs = zip(names, weights, strict=True)
        trained = [key for key, variable in pairs if id(variable) in trainable]
        parts[name] = f"{len(trained)} of {len(names)} variables ({digest_of(sorted(trained))})"
    return parts | {name: type(optimizer).__name__ for name, optimizer in optimizers.items()}


def told_of(models: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what models are measured by, and marks of the user's own code in them."""
    found: dict[str, Any] = {}
    for name, model in models.items():
        compiled = getattr(model, "_compile_metrics", None)
        kinds = ("_user_metrics", "_user_weighted_metrics")
        given = keras.tree.flatten([getattr(compiled, kind, None) for kind in kinds])
        metrics = [each for each in given if each is not None]
        losses = [each for each in keras.tree.flatten(getattr(model, "loss", None)) if each]
        words = [getattr(each, "name", None) or _plain(each) for each in metrics]
        found[f"metrics of {name}"] = ", ".join(map(str, words)) or "none"
        functions = [e for e in (*losses, *metrics) if isinstance(e, types.FunctionType)]
        found[f"the {name}'s code"] = [*code_of(layers_of(model)), *map(code_mark, functions)]
    return found


class PassedSettings:
    """The settings of a run's optimizers and losses as they were compiled in this session.

    Args:
        models: By name.
        optimizers: By name, before anything is restored.
    """

    def __init__(self, models: Mapping[str, Any], optimizers: Mapping[str, Any]) -> None:
        self._optimizers = optimizers
        losses = {f"loss of {n}": _plain(getattr(m, "loss", None)) for n, m in models.items()}
        own = {name: _settings(optimizer) for name, optimizer in optimizers.items()}
        self.values: dict[str, Any] = {**own, **losses}

    def take(self, then: Mapping[str, Any]) -> tuple[str, ...]:
        """Puts a learning rate that is passed otherwise than ``then`` into its optimizer.

        What else is passed otherwise, no checkpoint holds: it is as passed already.

        Returns:
            What is otherwise, a phrase each.
        """
        for name, optimizer in self._optimizers.items():
            before, now = then.get(name), self.values[name]
            if not isinstance(before, Mapping):
                continue
            rate = now.get("learning_rate")
            if isinstance(rate, float) and before.get("learning_rate", rate) != rate:
                optimizer.learning_rate = rate
        return tuple(phrases_of(differing(then, self.values)))

    def rates(self) -> dict[str, float]:
        """Returns the learning rates that optimizers have at this moment, where none is planned."""
        own = self._optimizers.items()
        found = {name: _settings(each).get("learning_rate") for name, each in own}
        return {name: rate for name, rate in found.items() if isinstance(rate, float)}


def _settings(optimizer: Any) -> dict[str, Any]:
    config: Mapping[str, Any] = {}
    with contextlib.suppress(NotImplementedError, TypeError, ValueError, AttributeError):
        # An optimizer of the user's own need not know how to describe itself.
        config = optimizer.get_config()
    return {key: _plain(value) for key, value in config.items() if key != "name"}


def _plain(value: Any) -> Any:
    """Returns what JSON can hold of a setting; of objects no more than their kind and settings."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Number) and not isinstance(value, complex):
        return value if isinstance(value, int) else float(value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if key != "name"}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, keras.losses.Loss):
        return {"class": type(value).__name__, **_settings(value)}
    return getattr(value, "__name__", type(value).__name__)
