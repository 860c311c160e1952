"""Modules, optimizers and streams of NNX that live beside a run's objects, and change."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from colabkit.frameworks.begun_anew import changes
from colabkit.frameworks.bystanders import Bystanders
from colabkit.frameworks.jax.backend import is_key
from colabkit.frameworks.users_own import attributes_of
from colabkit.storage import hash_of

_WHOLE_MAX, _SAMPLES = 1 << 18, 4096  # elements
_DEPTH_MAX = 4


class ModulesBeside:
    """Finds which variables of NNX the steps change and no object of the run holds.

    Args:
        objects: Those of the run, by name.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._objects = objects
        self._marks = _Marks()
        self._variables = Bystanders(self._marks.of)
        self._reasons: dict[str, None] = {}

    def watch(self, reached: Mapping[str, Any]) -> None:
        """Takes down those that the loop reaches, by path, and the run does not hold."""
        if (nnx := sys.modules.get("flax.nnx")) is None:
            return
        held = self._held()
        self._renew()
        # What is summed up for the eye is seen in the source where it is for more.
        summed = nnx.metrics.MetricState
        found = ((path, each) for path, value in reached.items() for each in _parts_of(value))
        self._variables.take_down(
            (path, each)
            for path, each in found
            if not isinstance(each, summed) and id(each) not in held
        )

    def reasons(self) -> tuple[str, ...]:
        """Returns what was found up to now."""
        self._renew()
        if changed := self._variables.changed():
            held = self._held()
            paths = (path for path, each in changed if id(each) not in held)
            self._reasons |= dict.fromkeys(map(changes, paths))
        return tuple(self._reasons)

    def _renew(self) -> None:
        """Knows a module that the loop has given the weights of a tree which the run holds."""
        leaves = set(map(id, jax.tree.leaves([*self._objects.values()])))
        self._variables.renew(lambda variable: id(variable.raw_value) in leaves)

    def _held(self) -> set[int]:
        return {id(each) for value in self._objects.values() for each in _variables_of(value)}


class _Marks:
    """Hashes of variables' values, made again where another array has come."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[weakref.ref[Any], str]] = {}

    def of(self, variable: Any) -> str | None:
        """Returns the hash of a value, None where nobody can read it."""
        array = variable.raw_value
        if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
            return None
        kept, made = self._made.get(id(variable), (None, None))
        if kept is not None and kept() is array:
            return made
        if array.is_deleted():
            return None
        made = _hash_of(array)
        self._made[id(variable)] = (weakref.ref(array), made)
        return made


def _hash_of(array: Any) -> str:
    if is_key(array):
        array = jax.random.key_data(array)
    size = math.prod(array.shape)
    if size > _WHOLE_MAX:
        array = array.reshape(-1)[:: size // _SAMPLES]
    return hash_of(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _parts_of(value: Any) -> Iterator[Any]:
    nnx = sys.modules["flax.nnx"]
    if isinstance(value, nnx.Variable) or nnx.graph.is_graph_node(value):
        yield from _variables_of(value)


def _variables_of(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yields the variables that an object has, in whatever it holds."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or depth > _DEPTH_MAX:
        return
    if isinstance(value, nnx.Variable):
        yield value
    elif isinstance(value, Mapping | nnx.State):
        for each in dict(value).values():
            yield from _variables_of(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _variables_of(each, depth + 1)
    elif nnx.graph.is_graph_node(value):
        yield from (e for _, e in nnx.iter_graph(value) if isinstance(e, nnx.Variable))
    else:
        for each in attributes_of(value).values():
            yield from _variables_of(each, depth + 1)
