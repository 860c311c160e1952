"""Plain values as Keras' and TensorFlow's objects keep them."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.keras.variables import variable_kinds
from colabkit.frameworks.plain_values import PlainValues
from colabkit.frameworks.users_own import package_of

# What callbacks choose of these packages, once they know what they watch, and keep in tables.
FUNCTIONS_OF = {
    "keras.ops": keras.ops,
    "math": math,
    "numpy": np,
    "operator": operator,
    "time": time,
}
_TRACKED = {"TrackedDict": dict, "TrackedList": list, "TrackedSet": set}
_FRAMEWORKS = frozenset({"jax", "jaxlib", "keras", "tensorflow", "torch"})


class KerasValues(PlainValues):
    """What a checkpoint can hold of the attributes of layers, losses and callbacks."""

    def mark(self, value: Any, depth: int = 0) -> Any:
        """Returns what differs once a value has changed, None for a value that is not plain."""
        if (name := named_function(value)) is not None:
            return tuple(name.items())
        if (untracked := _untracked(value)) is not value:
            return super().mark(untracked, depth)
        return super().mark(value, depth)

    def is_saved_elsewhere(self, value: Any) -> bool:
        """Whether it is the framework's: variables, layers and metrics have a way of their own."""
        module = package_of(type(value))
        return module in _FRAMEWORKS or isinstance(value, variable_kinds())

    def detached(self, value: Any) -> Any:
        """Returns what goes into the checkpoint for a value."""
        value = _untracked(value)
        if type(value) is dict:
            return {key: self.detached(each) for key, each in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(map(self.detached, value))
        return named_function(value) or value

    def put(self, there: Any, value: Any, near: Any = None) -> Any:
        """Returns a restored value, in the object that is there where others may hold it too."""
        if isinstance(value, Mapping) and value.keys() == {"function_of", "name"}:
            return getattr(FUNCTIONS_OF[value["function_of"]], value["name"])
        return super().put(there, value, near)


def _untracked(value: Any) -> Any:
    """Returns the plain container that a layer keeps in one of Keras' own."""
    plain = _TRACKED.get(type(value).__name__)
    return value if plain is None or not isinstance(value, plain) else plain(value)


def named_function(value: Any) -> dict[str, str] | None:
    """Returns a function's name, where it is one that callbacks choose themselves."""
    # Modules are asked nothing that loads, or warns, on use.
    name = getattr(value, "__name__", None) if callable(value) else None
    for package, functions in FUNCTIONS_OF.items():
        if isinstance(name, str) and vars(functions).get(name) is value:
            return {"function_of": package, "name": name}
    return None
