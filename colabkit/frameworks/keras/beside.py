"""What a training uses beside the model's own variables, kept with its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.keras.memory import Memory
from colabkit.frameworks.keras.names import layers_of
from colabkit.frameworks.keras.randomness import global_seeds, restore_state, state_of
from colabkit.frameworks.keras.reach import generators_within, variables_within
from colabkit.frameworks.keras.replicas import restore_in_each, values_in_each
from colabkit.frameworks.keras.shared_places import CallbackPlaces, shareable
from colabkit.frameworks.keras.step_inspect import roots_of
from colabkit.frameworks.keras.variables import (
    assign,
    backend_name,
    ids_of,
    is_compiled,
    optimizers_of,
    reader,
    unlisted_variables,
)
from colabkit.frameworks.keras.watched_values import of_another_value, outdated, watched_by
from colabkit.frameworks.second_names import Arrays, SecondNames
from colabkit.frameworks.users_own import attributes_of


class Beside:
    """Variables, generators and plain values that losses, layers and callbacks work with.

    What is plain and part of a compiled step is built into it: it is not put back, for the step
    is compiled as it was the first time, and what changes it is said.

    Args:
        model: The compiled model.
        callbacks: The user's, of Keras' form and of colabkit's.
        traced: The variables of the compiled step.
    """

    def __init__(self, model: Any, callbacks: Sequence[Any], traced: Iterable[Any]) -> None:
        self._model = model
        self._roots = roots_of(model, callbacks)
        self._traced = list(traced)
        self._held = _held_by(model)
        self._read = reader()
        self._kept: dict[str, Any] = {}
        self._variables: dict[str, Any] = {}
        self._generators: dict[str, Any] = {}
        self._is_compiled = is_compiled(model)
        # Of colabkit's form, their attributes are kept by another way.
        of_keras = [c for c in callbacks if isinstance(c, keras.callbacks.Callback)]
        self._plain_roots = roots_of(None if self._is_compiled else model, of_keras)
        self._callbacks = roots_of(None, of_keras)
        self._watched = watched_by(self._callbacks)
        self._watched_then: Mapping[str, Any] = {}
        of_callbacks = CallbackPlaces(self._callbacks)
        self._places = {"": of_callbacks}
        self._kept_names = ""
        self._shared = SecondNames(lambda: shareable(model), Arrays())
        self._names: dict[str, set[str]] = {}
        self._made: dict[str, set[str]] = {}
        self._plain: Memory | None = None
        self._built_in: Memory | None = None
        self._changed: dict[str, None] = {}
        self._constants: dict[str, bytes] = {}
        self._inspect()

    def begin(self) -> None:
        """Puts back what callbacks have made or set as they began; all changes from now on."""
        self._inspect()
        self._put_back()
        self._constants = self._built_in_variables()
        self._plain = Memory(self._plain_roots, but=self._places_built_in())
        self._restore_plain()
        self._shared.begin(self._places)
        self._names = {path: _filled(each) for path, each in self._callbacks.items()}

    def model_as_now(self, *, bytes_max: int | None = None) -> Callable[[], None]:
        """Returns what gives the model's and its optimizer's variables the values of now again.

        Args:
            bytes_max: How much to hold; the largest variables are left out.
        """
        held, nbytes = [], 0
        for each in sorted(_variables_held_by(self._model), key=_elements):
            value = np.array(keras.ops.convert_to_numpy(each))
            nbytes += value.nbytes
            if bytes_max is not None and nbytes > bytes_max:
                break
            held.append((each, value))

        def put_back() -> None:
            for variable, value in held:
                assign(variable, keras.ops.convert_to_tensor(value, dtype=variable.dtype))

        return put_back

    def has_begun_epoch(self) -> None:
        """Notes what callbacks have made of their own as an epoch began: they make it again."""
        if self._plain is not None:
            for path, callback in self._callbacks.items():
                made = self._made.setdefault(path, set())
                made |= _filled(callback) - self._names[path]
                self._plain.know(tuple(f"{path}.{name}" for name in made))

    def begin_epoch_again(self, epoch: int) -> None:
        """Puts back what Keras has just reset; a callback that lacks what it had begins again."""
        if self._plain is None:
            return
        self._plain.put_back()
        self._restore_plain()
        made, had = self._made, self._kept.get("attributes", {})
        lacking = [
            callback
            for path, callback in self._callbacks.items()
            if made.get(path, set()) - _filled(callback)
            or set(had.get(path, ())) - set(attributes_of(callback))
        ]
        if not lacking:
            return
        put_back = self.model_as_now()
        for callback in lacking:
            callback.on_epoch_begin(epoch)
        put_back()
        self._inspect()
        self._put_back()
        self._restore_plain()
        self.has_begun_epoch()

    def _restore_plain(self) -> None:
        assert self._plain is not None  # noqa: S101  # for the type checker
        self._shared.part(self._kept_names, self._places)
        self._plain.restore(self._kept_plain())
        self._shared.join(self._places)

    def _places_built_in(self) -> frozenset[tuple[int, Any]]:
        """Returns where a compiled step finds what it has built in; a callback's own goes on."""
        if not self._is_compiled:
            return frozenset()
        of_callbacks = set(map(id, self._plain_roots.values()))
        places = Memory(roots_of(self._model, ())).places()
        return frozenset(place for place in places if place[0] not in of_callbacks)

    def begin_epoch_end(self) -> None:
        """Looks at what is built into a compiled step; by the end of an epoch all is compiled."""
        if not self._is_compiled:
            return
        if self._built_in is None:
            self._built_in = Memory(roots_of(self._model, ()))
        self._changed |= dict.fromkeys(self._built_in.changes())
        self._note_constants()

    def _note_constants(self) -> None:
        """Takes down which variables have changed that are built into the step."""
        if self._constants:
            now = self._built_in_variables()
            self._changed |= {p: None for p, then in self._constants.items() if now.get(p) != then}

    def _built_in_variables(self) -> dict[str, bytes]:
        """Returns what of the step's variables is built into it: on JAX, all but the model's."""
        if backend_name() != "jax" or not self._is_compiled:
            return {}
        found = variables_within(roots_of(self._model, ()))
        return {
            path: np.asarray(keras.ops.convert_to_numpy(each)).tobytes()
            for path, each in found.items()
            if self._held.isdisjoint(ids_of(each))
        }

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and a resume will not have."""
        lost = self._plain.lost if self._plain is not None else {}
        found = [
            f"{path} changes and holds {_one(kind)}, which no checkpoint can hold"
            for path, kind in lost.items()
        ]
        found += self._shared.said()
        found += [
            f"{path} changes, which the compiled step has built in as it was (make it a variable"
            f"{' of the model' if backend_name() == 'jax' else ''})"
            for path in self._changed
        ]
        return tuple(found)

    def state_dict(self) -> dict[str, Any]:
        """Returns their values by path."""
        self._note_constants()
        callbacks = self._callbacks.items()
        plain, names = self._kept_plain(), self._kept_names
        if self._plain is not None:
            plain = self._plain.changes()
            self._places[""].note(plain)
            names = self._shared.state_dict(self._places)
        return {
            "variables": {path: self._read(v) for path, v in self._variables.items()},
            "in_each_replica": values_in_each(self._variables),
            "generators": {path: state_of(g) for path, g in self._generators.items()},
            "made": {p: sorted(_filled(c) & self._made.get(p, set())) for p, c in callbacks},
            "plain": plain,
            "names": names,
            "watched": self._watched,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what is there; what callbacks have yet to make waits for ``begin``."""
        self._kept_names = state.get("names", "")
        self._kept = {kind: dict(each) for kind, each in state.items() if kind != "names"}
        self._watched_then = self._kept.get("watched", {})
        self._made = {path: set(names) for path, names in self._kept.get("made", {}).items()}
        self._put_back()

    def kept(self, path: str, default: Any) -> Any:
        """Returns a plain value as the checkpoint has it that was restored."""
        return self._kept.get("plain", {}).get(path, default)

    def watches_another(self, name: str) -> bool:
        """Whether a callback of Keras watches another value than when it was saved."""
        return name in of_another_value(self._watched_then, self._watched)

    def _kept_plain(self) -> dict[str, Any]:
        """Returns the plain values of the checkpoint, but those of a value watched no more."""
        gone = set(outdated(self._watched_then, self._watched))
        return {p: each for p, each in self._kept.get("plain", {}).items() if p not in gone}

    def _inspect(self) -> None:
        found = variables_within(self._roots)
        reached = {part for variable in found.values() for part in ids_of(variable)}
        unseen = [v for v in self._traced if reached.isdisjoint(ids_of(v))]
        found |= {f"step.{number}": variable for number, variable in enumerate(unseen)}
        self._variables = {
            path: each for path, each in found.items() if self._held.isdisjoint(ids_of(each))
        }
        self._generators = generators_within(self._roots)

    def _put_back(self) -> None:
        variables, generators = (self._kept.get(k, {}) for k in ("variables", "generators"))
        for path, variable in self._variables.items():
            kept = variables.get(path)
            if kept is not None and tuple(kept.shape) == tuple(variable.shape):
                assign(variable, kept)
        restore_in_each(self._variables, self._kept.get("in_each_replica", {}))
        for path, generator in self._generators.items():
            if path in generators:
                restore_state(generator, generators[path])


def _elements(variable: Any) -> int:
    return math.prod(variable.shape)


def _filled(callback: Any) -> set[str]:
    """Returns the names of the attributes that hold anything."""
    return {name for name, each in attributes_of(callback).items() if each is not None}


def _one(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def _held_by(model: Any) -> set[int]:
    """Returns by id the variables that a checkpoint holds as the model's and its optimizers'."""
    return {part for variable in _variables_held_by(model) for part in ids_of(variable)}


def _variables_held_by(model: Any) -> list[Any]:
    layers = layers_of(model)
    held = [*model.variables, *model.metrics_variables, *unlisted_variables(model, layers)]
    for optimizer in optimizers_of(layers).values():
        held += optimizer.variables
    return [*held, *global_seeds()]
