"""Pytrees and NNX modules taken apart into leaves by path, and put together again."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import jax

from colabkit.frameworks.plain import Parts
from colabkit.frameworks.plain.parts import is_leaf


@dataclasses.dataclass(frozen=True, slots=True)
class Pytree:
    """A pytree at one moment: TrainState, an optimizer's state, an Equinox module, dicts.

    Attributes:
        leaves: Arrays, keys and plain values by path.
        form: Its structure.
        flat: All leaves, functions among them.
        paths: Of each leaf; None for what is no array nor plain value.
    """

    leaves: Mapping[str, Any]
    form: Any
    flat: list[Any]
    paths: list[str | None]

    @classmethod
    def of(cls, value: Any) -> Pytree:
        """Takes a pytree apart."""
        flat, structure = jax.tree_util.tree_flatten(value)
        leaves: dict[str, Any] = {}
        paths: list[str | None] = []
        for name, leaf in zip(_names_in(value, structure), flat, strict=True):
            if not (isinstance(leaf, jax.Array) or is_leaf(leaf)):
                paths.append(None)
                continue
            name = f"{name}~{len(paths)}" if name in leaves else name
            paths.append(name)
            leaves[name] = leaf
        return cls(leaves, structure, flat, paths)

    def rebuilt(self, leaves: Mapping[str, Any]) -> Any:
        """Returns the pytree with other leaves."""
        flat = [
            old if path is None else leaves.get(path, old)
            for path, old in zip(self.paths, self.flat, strict=True)
        ]
        return jax.tree_util.tree_unflatten(self.form, flat)


@dataclasses.dataclass(frozen=True, slots=True)
class NnxParts:
    """Modules and optimizers of NNX, which are changed in place."""

    leaves: Mapping[str, Any]
    form: Any
    tree: Pytree
    owner: Any

    @classmethod
    def of(cls, value: Any) -> NnxParts:
        """Takes a module apart."""
        graph, state = _nnx().split(value)
        tree = Pytree.of(state)
        return cls(tree.leaves, (graph, tree.form), tree, value)

    def rebuilt(self, leaves: Mapping[str, Any]) -> Any:
        """Puts leaves into the module."""
        _nnx().update(self.owner, self.tree.rebuilt(leaves))
        return self.owner


def parts_of(value: Any) -> Parts:
    """Takes an object of a run apart."""
    return NnxParts.of(value) if _has_nodes(value) else Pytree.of(value)


def _nnx() -> Any:
    return sys.modules["flax.nnx"]


def _has_nodes(value: Any) -> bool:
    """Whether a value is a module of NNX, or a nesting that holds one."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return False
    if isinstance(value, dict):
        return any(map(_has_nodes, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_nodes, value))
    return bool(nnx.graph.is_graph_node(value)) and not isinstance(value, nnx.State)


def is_spread(leaf: Any) -> bool:
    """Whether an array lies in parts on several devices."""
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) < 2:
        return False
    return not leaf.is_fully_replicated


# A save asks three times, and to name the leaves of a tree takes longer than to take them.
_known: dict[Any, list[str]] = {}
_KNOWN_MAX = 16


def _names_in(value: Any, structure: Any) -> list[str]:
    """Returns the name of each leaf, made but once for each structure."""
    with contextlib.suppress(TypeError):  # of one whose static parts have no hash
        if structure in _known:
            return _known[structure]
    found, _ = jax.tree_util.tree_flatten_with_path(value)
    names = [_name_of(path) for path, _ in found]
    with contextlib.suppress(TypeError):
        if len(_known) == _KNOWN_MAX:
            _known.clear()
        _known[structure] = names
    return names


def _name_of(path: Any) -> str:
    """Returns how one would reach a leaf: "params.dense.kernel"."""
    names = [str(_key_of(key)) for key in path]
    if len(names) > 1 and names[-1] == "value":
        names.pop()  # of a variable of NNX
    return ".".join(names) or "value"


def _key_of(key: Any) -> Any:
    for name in ("key", "name", "idx"):
        if hasattr(key, name):
            return getattr(key, name)
    return key
