"""Plain values as Keras' and TensorFlow's objects keep them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import operator
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.keras.sparse import is_sparse
from colabkit.frameworks.keras.variables import variable_kinds
from colabkit.frameworks.plain_values import PlainValues, base_of, stands_for
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
_OF_NUMPY = frozenset(np.dtype(code).name for code in np.typecodes["AllInteger"] + "?efdFD")
# Stands in checkpoints, with its array and dtype, for a tensor of the backend's.
_TENSOR = "colabkit: tensor"
_FRAMEWORKS = frozenset({"jax", "jaxlib", "keras", "tensorflow", "torch"})


class KerasValues(PlainValues):
    """What a checkpoint can hold of the attributes of layers, losses and callbacks."""

    def mark(self, value: Any, depth: int = 0) -> Any:
        """Returns what differs once a value has changed, None for a value that is not plain."""
        if (name := named_function(value)) is not None:
            return tuple(name.items())
        if (untracked := _untracked(value)) is not value:
            return super().mark(untracked, depth)
        if is_lone_tensor(value):
            array = _bits_of(value)
            return None if array is None else (type(value), value.dtype, super().mark(array))
        return super().mark(value, depth)

    def is_saved_elsewhere(self, value: Any) -> bool:
        """Whether it is the framework's: variables, layers and metrics have a way of their own."""
        if is_lone_tensor(value) or isinstance(value, Iterator):
            return False
        module = package_of(type(value))
        return module in _FRAMEWORKS or isinstance(value, variable_kinds())

    def detached(self, value: Any) -> Any:
        """Returns what goes into the checkpoint for a value."""
        value = _untracked(value)
        if is_lone_tensor(value) and (bits := _bits_of(value)) is not None:
            return _TENSOR, (bits, keras.backend.standardize_dtype(value.dtype))
        if base_of(value) is not None:
            return super().detached(value)
        return named_function(value) or _with_parts(value, self.detached)

    def put(self, there: Any, value: Any, near: Any = None) -> Any:
        """Returns a restored value, in the object that is there where others may hold it too."""
        if isinstance(value, Mapping) and value.keys() == {"function_of", "name"}:
            return getattr(FUNCTIONS_OF[value["function_of"]], value["name"])
        if stands_for(_TENSOR, value):
            return _put_tensor(there, *value[1])
        return super().put(there, value, near)


def is_lone_tensor(value: Any) -> bool:
    """Whether it is a tensor that no variable or layer keeps."""
    if isinstance(value, variable_kinds()) or not keras.ops.is_tensor(value):
        return False
    return type(value).__name__ != "Parameter"  # PyTorch's own kind of variable


def _bits_of(tensor: Any) -> Any:
    """Returns a tensor as NumPy knows it, None of words, of no single array, or in a graph."""
    if is_sparse(tensor) or hasattr(tensor, "row_splits"):
        return None
    with contextlib.suppress(Exception):  # of a graph or a step under way it cannot be read
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(tensor))
        if array.dtype.hasobject:
            return None
        is_known = array.dtype.name in _OF_NUMPY
        bits = array if is_known else array.view(f"u{array.itemsize}")
        return bits.reshape(tensor.shape)
    return None


def _put_tensor(there: Any, bits: Any, dtype: str) -> Any:
    made = keras.ops.convert_to_tensor(bits if dtype in _OF_NUMPY else bits.view(dtype))
    is_alike = is_lone_tensor(there) and (there.shape, there.dtype) == (made.shape, made.dtype)
    if is_alike and hasattr(there, "copy_"):
        there.detach().copy_(made)
        return there
    return made


def _with_parts(value: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a container with its parts changed, itself where none is another thing then."""
    parts: dict[Any, Any]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    elif isinstance(value, dict):
        parts = value
    elif isinstance(value, list | tuple | deque):
        parts = dict(enumerate(value))
    else:
        return value
    changed = {key: change(each) for key, each in parts.items()}
    if all(changed[key] is each for key, each in parts.items()):
        return value
    if isinstance(value, tuple):
        return tuple.__new__(type(value), changed.values())
    made = copy.copy(value)
    for key, each in changed.items():
        if isinstance(value, dict | list | deque):
            made[key] = each
        else:
            object.__setattr__(made, key, each)
    return made


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
