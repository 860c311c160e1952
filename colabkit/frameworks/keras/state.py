"""Everything of a Keras run that a checkpoint holds, captured and put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from colabkit.checkpoint import Section
from colabkit.errors import ArgumentError
from colabkit.frameworks.generators import find_generators
from colabkit.frameworks.keras.assets import Assets
from colabkit.frameworks.keras.build import has_call
from colabkit.frameworks.keras.held_objects import taken_apart
from colabkit.frameworks.keras.late_metrics import LateMetrics
from colabkit.frameworks.keras.names import layers_of, stable_names, with_variables_counted
from colabkit.frameworks.keras.randomness import (
    generator_kinds,
    global_seeds,
    restore_state,
    state_of,
)
from colabkit.frameworks.keras.replicas import restore_in_each, values_in_each
from colabkit.frameworks.keras.slots import OptimizerState, assign_all
from colabkit.frameworks.keras.variables import (
    assign,
    form,
    ids_of,
    is_value,
    optimizers_of,
    reader,
    unlisted_variables,
)
from colabkit.frameworks.users_own import attributes_of


class KerasState:
    """The objects of a run, by name: models with their optimizers, and all with a state."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        held = taken_apart(objects)
        self.variables, self.others = held.variables, held.others
        self.left_out = tuple(held.left_out)
        for name, model in held.layers.items():
            _require_built(name, model)
        self._states = {name: _ModelState(name, model) for name, model in held.layers.items()}
        self.models = held.layers
        owners = [owner for model in self.models.values() for owner in layers_of(model)]
        found = optimizers_of(owners, passed=held.optimizers)
        self.optimizers = found
        self._optimizers = {n: OptimizerState(each, self._names) for n, each in found.items()}
        self._read = reader()
        self._variable_values: dict[str, Any] = {}
        self._values_in_each: dict[str, Any] = {}

    def sections(self) -> list[Section]:
        """Returns the weights of each model and everything else, by reference."""
        read = self._read
        weights = [
            Section(name, {key: read(v) for key, v in state.weights().items()}, weights=True)
            for name, state in self._states.items()
        ]
        state = {
            "models": {name: each.state(read) for name, each in self._states.items()},
            "global_seed": [read(v) for v in global_seeds()],
            "optimizers": {n: each.values(read) for n, each in self._optimizers.items()},
            "trains": {n: each.trains() for n, each in self._optimizers.items()},
            "variables": {path: read(v) for path, v in self.variables.items()},
            "variables_in_each": values_in_each(self.variables),
            "others": {n: o.state_dict() for n, o in self.others.items()},
        }
        return [*weights, Section("objects", state, weights=False)]

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts back what ``sections`` gave; what is not built yet follows when it is."""
        objects = sections["objects"]
        for name, each in self._states.items():
            each.restore(sections[name], objects["models"][name])
        assign_all(global_seeds(), objects["global_seed"])
        trained = self._by_name()
        for name, optimizer in self._optimizers.items():
            trains = objects.get("trains", {}).get(name, ())
            owned = [trained[n] for n in trains if n in trained]
            complete = bool(trains) and len(owned) == len(trains)
            values = objects["optimizers"].get(name, ())
            optimizer.restore(values, owned if complete else None)
        self._variable_values = dict(objects.get("variables", {}))
        self._values_in_each = dict(objects.get("variables_in_each", {}))
        self.restore_again()
        for name, value in self.others.items():
            if name in objects["others"]:
                value.load_state_dict(objects["others"][name])

    def awaits_build(self, name: str) -> bool:
        """Whether an optimizer takes what was put back only when it is built."""
        return self._optimizers[name].awaits_build

    def restore_again(self) -> None:
        """Puts variables and metrics back once more, which a loop resets as its epoch begins."""
        for path, value in self._variable_values.items():
            if path in self.variables:
                assign(self.variables[path], value)
        restore_in_each(self.variables, self._values_in_each)
        self.restore_metrics()

    def restore_metrics(self) -> None:
        """Puts the metrics back once more, after Keras has reset them for an epoch."""
        for state in self._states.values():
            state.restore_metrics()

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Copies the tensors whose name and shape fit; returns how many did, of how many."""
        fitted = total = 0
        assets = sections.get("objects", {}).get("models", {})
        for name, state in self._states.items():
            fits, of = state.restore_weights(sections.get(name, {}))
            state.assets.restore(assets.get(name, {}).get("assets", {}))
            fitted, total = fitted + fits, total + of
        return fitted, total

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        """Whether the models hold, bit for bit, the weights that ``sections`` gave."""
        return all(
            is_value(variable, sections.get(name, {}).get(key))
            for name, state in self._states.items()
            for key, variable in state.weights().items()
        )

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        parts: dict[str, Any] = {n: form(variable) for n, variable in self._by_name().items()}
        for name, optimizer in self.optimizers.items():
            parts[f"{name} class"] = type(optimizer).__name__
        return parts

    def _names(self) -> dict[int, str]:
        return {id(variable): name for name, variable in self._by_name().items()}

    def _by_name(self) -> dict[str, Any]:
        """Returns the weights of all models, and the variables beside them."""
        weights = {
            f"{name}.{key}": variable
            for name, state in self._states.items()
            for key, variable in state.weights().items()
        }
        return weights | self.variables

    def held_ids(self) -> set[int]:
        """Returns which variables a checkpoint holds, by id."""
        held = [*self.variables.values(), *global_seeds()]
        for optimizer in self.optimizers.values():
            held += optimizer.variables
        for state in self._states.values():
            held += state.everything()
        return {part for variable in held for part in ids_of(variable)}


class _ModelState:
    """One model, or a layer that is trained without one."""

    def __init__(self, name: str, model: Any) -> None:
        self._name, self._model = name, model
        self.assets = Assets(model)
        self._metrics = LateMetrics(model)
        self._metric_values: Sequence[Any] = ()
        self._late_spans: Mapping[str, Sequence[int]] = {}
        self._replica_values: dict[str, Any] = {}
        self._known: tuple[list[Any], list[Any]] | None = None

    def weights(self) -> dict[str, Any]:
        weights = self._model.weights
        return dict(zip(stable_names(self._model, weights), weights, strict=True))

    def everything(self) -> list[Any]:
        return [*self._model.variables, *self._metrics.listed(), *self._own_and_unlisted()[1]]

    def state(self, read: Any) -> dict[str, Any]:
        own, unlisted = self._own_and_unlisted()
        return {
            "seeds": [read(v) for v in _seeds(self._model)],
            "unlisted": [read(v) for v in unlisted],
            "metrics": [read(v) for v in self._metrics.listed()],
            "late_metrics": self._metrics.spans(),
            "metrics_made_for": self._metrics.made_for(),
            "generators": [state_of(g) for g in find_generators(own, generator_kinds())],
            "assets": self.assets.state(),
            **self._in_each_replica(),
        }

    def _in_each_replica(self) -> dict[str, Any]:
        found = values_in_each(self._kept_in_each())
        return {"in_each_replica": found} if found else {}

    def _kept_in_each(self) -> dict[str, Any]:
        """What replicas need not have alike: all but what is trained."""
        _, unlisted = self._own_and_unlisted()
        listed = [*self._model.non_trainable_variables, *self._metrics.listed()]
        found = {str(place): variable for place, variable in enumerate(listed)}
        return found | {f"unlisted {place}": each for place, each in enumerate(unlisted)}

    def restore(self, weights: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
        for key, variable in self.weights().items():
            assign(variable, weights[key])
        own, unlisted = self._own_and_unlisted()
        assign_all(_seeds(self._model), kept["seeds"])
        assign_all(unlisted, kept["unlisted"])
        generators = find_generators(own, generator_kinds())
        for generator, state in zip(generators, kept["generators"], strict=False):
            restore_state(generator, state)
        self._metrics.make(kept.get("metrics_made_for", {}))
        self._metric_values = kept["metrics"]
        self._late_spans = kept.get("late_metrics", {})
        self._replica_values = kept.get("in_each_replica", {})
        self.restore_metrics()
        self.assets.restore(kept.get("assets", {}))

    def restore_metrics(self) -> None:
        if self._metric_values:
            self._metrics.restore(self._metric_values, self._late_spans)
        restore_in_each(self._kept_in_each(), self._replica_values)

    def restore_weights(self, kept: Mapping[str, Any]) -> tuple[int, int]:
        there = self.weights()
        kept = dict(zip(with_variables_counted(kept), kept.values(), strict=True))
        fits = {
            key: variable
            for key, variable in there.items()
            if key in kept and tuple(kept[key].shape) == tuple(variable.shape)
        }
        for key, variable in fits.items():
            assign(variable, kept[key])
        return len(fits), len(there)

    def _own_and_unlisted(self) -> tuple[list[Any], list[Any]]:
        if self._known is not None:
            return self._known
        layers = layers_of(self._model)
        known = (_own_parts(layers), unlisted_variables(self._model, layers))
        if all(layer.built for layer in layers):
            self._known = known
        return known


def _require_built(name: str, model: Any) -> None:
    is_model = isinstance(model, keras.Model)
    if not (model.weights and _has_all_weights(model) if is_model else model.built):
        message = f"{name} has no weights yet: it was never called on data."
        hint = "Call it once on a batch, or give its first layer an Input shape."
        raise ArgumentError(message, argument=name, hint=hint)


def _has_all_weights(layer: Any) -> bool:
    if layer.built or not isinstance(layer, keras.Model):
        return bool(layer.built)
    # One whose step of its own trains its parts is never called, and so never counts as built.
    makes_none = type(layer).build is keras.Model.build
    return not has_call(layer) or (makes_none and all(map(_has_all_weights, layer._layers)))


def _seeds(model: Any) -> list[Any]:
    weights = {id(v) for v in model.weights}
    return [v for v in model.variables if id(v) not in weights]


def _own_parts(layers: Sequence[Any]) -> list[Any]:
    """What users keep in models and layers of their own; Keras' own layers hold no generators."""
    return [
        [v for v in attributes_of(layer).values() if not isinstance(v, keras.layers.Layer)]
        for layer in layers
        if not type(layer).__module__.startswith("keras.")
    ]
