"""Everything of a Keras run that a checkpoint holds, captured and put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from colabkit.checkpoint import Section
from colabkit.errors import ArgumentError
from colabkit.training.hidden import find_generators
from colabkit.training.keras_side.build import has_call
from colabkit.training.keras_side.names import layers_of, stable_names
from colabkit.training.keras_side.randomness import (
    generator_kinds,
    global_seeds,
    restore_state,
    state_of,
)
from colabkit.training.keras_side.variables import (
    assign,
    form,
    is_value,
    optimizers_of,
    reader,
    unlisted_variables,
)


class KerasState:
    """The objects of a run, by name: models with their optimizers, and all with a state."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self.models = {n: v for n, v in objects.items() if isinstance(v, keras.Model)}
        self.others = {n: v for n, v in objects.items() if n not in self.models and v is not None}
        for name, value in self.others.items():
            _check_can_be_saved(name, value)
        layers = {name: layers_of(model) for name, model in self.models.items()}
        self.optimizers = optimizers_of(owner for owners in layers.values() for owner in owners)
        self._own = {name: _own_parts(owners) for name, owners in layers.items()}
        self._unlisted = {n: unlisted_variables(m, layers[n]) for n, m in self.models.items()}
        self._read = reader()
        self._metric_values: dict[str, Sequence[Any]] = {}
        for name, model in self.models.items():
            _check_is_built(name, model)

    def sections(self) -> list[Section]:
        """Returns the weights of each model and everything else, by reference."""
        read = self._read
        weights = [
            Section(name, {key: read(v) for key, v in _weights(model).items()}, weights=True)
            for name, model in self.models.items()
        ]
        models = {
            name: {
                "seeds": [read(v) for v in _seeds(model)],
                "unlisted": [read(v) for v in self._unlisted[name]],
                "metrics": [read(v) for v in model.metrics_variables],
                "generators": [state_of(g) for g in self._generators(name)],
            }
            for name, model in self.models.items()
        }
        state = {
            "models": models,
            "global_seed": [read(v) for v in global_seeds()],
            "optimizers": {n: [read(v) for v in o.variables] for n, o in self.optimizers.items()},
            "others": {n: o.state_dict() for n, o in self.others.items()},
        }
        return [*weights, Section("objects", state, weights=False)]

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts back what ``sections`` gave."""
        objects = sections["objects"]
        for name, model in self.models.items():
            kept = objects["models"][name]
            for key, variable in _weights(model).items():
                assign(variable, sections[name][key])
            _assign_all(_seeds(model), kept["seeds"])
            _assign_all(self._unlisted[name], kept["unlisted"])
            for generator, state in zip(self._generators(name), kept["generators"], strict=False):
                restore_state(generator, state)
            self._metric_values[name] = kept["metrics"]
        self.restore_metrics()
        _assign_all(global_seeds(), objects["global_seed"])
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, objects["optimizers"].get(name, ()))
        for name, value in self.others.items():
            if name in objects["others"]:
                value.load_state_dict(objects["others"][name])

    def restore_metrics(self) -> None:
        """Puts the metrics back once more, after Keras has reset them for an epoch."""
        for name, values in self._metric_values.items():
            _assign_all(self.models[name].metrics_variables, values)

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Copies the tensors whose name and shape fit; returns how many did, of how many."""
        fitted = total = 0
        for name, model in self.models.items():
            kept = sections.get(name, {})
            for key, variable in _weights(model).items():
                total += 1
                if key in kept and tuple(kept[key].shape) == tuple(variable.shape):
                    assign(variable, kept[key])
                    fitted += 1
        return fitted, total

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        """Whether the models hold, bit for bit, the weights that ``sections`` gave."""
        return all(
            is_value(variable, sections.get(name, {}).get(key))
            for name, model in self.models.items()
            for key, variable in _weights(model).items()
        )

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        parts: dict[str, Any] = {
            f"{name}.{key}": form(variable)
            for name, model in self.models.items()
            for key, variable in _weights(model).items()
        }
        for name, optimizer in self.optimizers.items():
            parts[f"{name} class"] = type(optimizer).__name__
        return parts

    def _generators(self, name: str) -> list[object]:
        return find_generators(self._own[name], generator_kinds())


def _weights(model: keras.Model) -> dict[str, Any]:
    weights = model.weights
    return dict(zip(stable_names(model, weights), weights, strict=True))


def _seeds(model: keras.Model) -> list[Any]:
    weights = {id(v) for v in model.weights}
    return [v for v in model.variables if id(v) not in weights]


def _own_parts(layers: Sequence[Any]) -> list[Any]:
    """What users keep in models and layers of their own; Keras' own layers hold no generators."""
    return [
        [v for v in vars(layer).values() if not isinstance(v, keras.layers.Layer)]
        for layer in layers
        if not type(layer).__module__.startswith("keras.")
    ]


def _assign_all(variables: Sequence[Any], values: Sequence[Any]) -> None:
    # Metrics of a model that is compiled otherwise now begin at zero.
    if len(variables) == len(values):
        for variable, value in zip(variables, values, strict=True):
            if tuple(variable.shape) == tuple(value.shape):
                assign(variable, value)


def _restore_optimizer(optimizer: Any, values: Sequence[Any]) -> None:
    if optimizer.built or not values:
        _assign_all(optimizer.variables, values)
        return
    build = optimizer.build

    # An optimizer of the user's own is built by its first step; its state follows then.
    def build_and_restore(*given: Any, **named: Any) -> None:
        del optimizer.build
        build(*given, **named)
        _assign_all(optimizer.variables, values)

    optimizer.build = build_and_restore


def _check_is_built(name: str, model: keras.Model) -> None:
    # One with only a step of its own is never called, and so never counts as built.
    if not model.weights or (has_call(model) and not model.built):
        message = f"{name} has no weights yet: it was never called on data."
        hint = "Call it once on a batch, or give its first layer an Input shape."
        raise ArgumentError(message, argument=name, hint=hint)


def _check_can_be_saved(name: str, value: Any) -> None:
    if not (hasattr(value, "state_dict") and hasattr(value, "load_state_dict")):
        message = f"{name} is a {type(value).__name__}, which has no state_dict."
        hint = (
            "Give it state_dict and load_state_dict, or leave it out; a loop's variables are kept"
            f" by run.state({name}=...)."
        )
        raise ArgumentError(message, argument=name, hint=hint)
