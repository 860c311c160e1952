"""What Keras' callbacks know, kept in checkpoints though they have no state_dict."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError
from colabkit.frameworks.generators import find_generators
from colabkit.frameworks.keras.randomness import generator_kinds, restore_state, state_of
from colabkit.frameworks.keras.values import FUNCTIONS_OF, named_function

_PLAIN = (bool, int, float, str, type(None), np.generic)
_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")
_NOT_STATE = frozenset({"params", "model", "_model", "validation_data"})


class CallbackState:
    """The attributes of one callback that change while it is used, and its random generators.

    Args:
        callback: A Keras callback.
    """

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self._callback = callback
        self._at_start: dict[str, Any] = {}
        self._kept: dict[str, Any] = {}
        self._generators: list[object] = []
        self._kept_generators: list[Any] = []

    def begin(self) -> None:
        """Called after the callback's on_train_begin: what was kept takes its place again."""
        self._at_start = _plain_attributes(self._callback)
        for name, value in self._kept.items():
            setattr(self._callback, name, _restored(value))
        own = [v for name, v in vars(self._callback).items() if name not in _NOT_STATE]
        self._generators = find_generators(own, generator_kinds())
        for generator, state in zip(self._generators, self._kept_generators, strict=False):
            restore_state(generator, state)

    def state_dict(self) -> dict[str, Any]:
        """Returns what is not as on_train_begin left it."""
        now = _plain_attributes(self._callback)
        missing = object()
        attributes = {
            name: _copied(value)
            for name, value in now.items()
            if name in self._kept or not _equal(self._at_start.get(name, missing), value)
        }
        return {"attributes": attributes, "generators": [state_of(g) for g in self._generators]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps them until ``begin``."""
        self._kept = dict(state["attributes"])
        self._kept_generators = list(state["generators"])


def callback_states(callbacks: Sequence[Any]) -> dict[str, CallbackState]:
    """Returns the state of each callback by a name that tells equal ones apart."""
    return {
        f"callback {place} {type(callback).__name__}": CallbackState(callback)
        for place, callback in enumerate(callbacks)
    }


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raises ArgumentError for a class in place of an object, and for a second backup."""
    for callback in callbacks:
        if isinstance(callback, type):
            message = f"The callback {callback.__name__} is a class."
            raise ArgumentError(message, argument="callbacks", hint=f"Pass {callback.__name__}().")
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            message = "BackupAndRestore would restore its own, older backup over the checkpoint."
            hint = "Leave it out: this fit saves and resumes by itself, at the very batch."
            raise ArgumentError(message, argument="callbacks", hint=hint)


def keep_rows(callbacks: Sequence[Any], *, epoch: int) -> None:
    """Has loggers go on with the file of an earlier session, from an epoch on."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            callback.append = True
            _cut_rows(Path(callback.filename), callback.sep, epoch=epoch)


def _cut_rows(path: Path, separator: str, *, epoch: int) -> None:
    """Cuts off the rows at the end that are of an epoch or later: they are written again."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return  # on the machine before
    while len(lines) > 1:
        first = lines[-1].decode(errors="replace").split(separator)[0].strip()
        if lines[-1].endswith(b"\n") and not (first.isdigit() and int(first) >= epoch):
            break
        lines.pop()
    os.truncate(path, sum(map(len, lines)))


def watches_batches(callback: Any) -> bool:
    """Whether a callback does something at each batch."""
    return _overrides(callback, _BATCH_HOOKS)


def watches_tests(callback: Any) -> bool:
    """Whether a callback does something at each batch of a validation."""
    return _overrides(callback, _TEST_HOOKS)


def _overrides(callback: Any, hooks: Sequence[str]) -> bool:
    base = keras.callbacks.Callback
    return any(
        hook in vars(callback) or getattr(type(callback), hook) is not getattr(base, hook)
        for hook in hooks
    )


def _plain_attributes(callback: Any) -> dict[str, Any]:
    attributes = {name: v for name, v in vars(callback).items() if name not in _NOT_STATE}
    plain = {name: _copied(value) for name, value in attributes.items() if _is_plain(value)}
    return plain | {n: f for n, v in attributes.items() if (f := named_function(v)) is not None}


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"function_of", "name"}:
        return getattr(FUNCTIONS_OF[value["function_of"]], value["name"])
    return _copied(value)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc"
    if depth > 4:
        return False
    if isinstance(value, dict):
        return all(isinstance(k, _PLAIN) and _is_plain(v, depth + 1) for k, v in value.items())
    if type(value) in {list, tuple, set}:
        return all(_is_plain(item, depth + 1) for item in value)
    return False


def _copied(value: Any) -> Any:
    """Copies containers; arrays are replaced by callbacks, never written into."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in {list, tuple, set}:
        return type(value)(_copied(item) for item in value)
    return value


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one is other or (one.shape == other.shape and bool(np.array_equal(one, other)))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
