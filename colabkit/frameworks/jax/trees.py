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

# What train() and eval() of a module of NNX set in its layers.
MODES = ("deterministic", "use_running_average")


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
    """Modules and optimizers of NNX, which are changed in place.

    Attributes:
        leaves: Arrays by path; and what train() and eval() set, and the plain attributes of
            classes of the user's own.
        form: Its nodes, and what else lies in them.
        tree: Its arrays.
        owner: The module, or the nesting that holds it.
        settings: The path of each leaf that is a plain attribute.
    """

    leaves: Mapping[str, Any]
    form: Any
    tree: Pytree
    owner: Any
    settings: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, value: Any) -> NnxParts:
        """Takes a module apart."""
        graph, state = _nnx().split(value)
        tree, beside = Pytree.of(state), _Beside.of(value, graph)
        leaves = {**tree.leaves, **beside.values}
        return cls(leaves, (beside.form, tree.form), tree, value, beside.paths)

    def rebuilt(self, leaves: Mapping[str, Any]) -> Any:
        """Puts leaves into the module."""
        _nnx().update(self.owner, self.tree.rebuilt(leaves))
        found = dict(_nnx().iter_graph(self.owner))
        for name, path in self.settings.items():
            if name in leaves and found[path] != leaves[name]:
                setattr(found[path[:-1]], path[-1], leaves[name])
        return self.owner


@dataclasses.dataclass(frozen=True, slots=True)
class _Beside:
    """What a graph of NNX holds beside its variables.

    Attributes:
        values: By name, the plain attributes that a loop may change.
        paths: By name, where each of these lies.
        form: By path, the kinds of all nodes and variables, and other static values themselves.
    """

    values: Mapping[str, Any]
    paths: Mapping[str, tuple[Any, ...]]
    form: Mapping[tuple[Any, ...], Any]

    @classmethod
    def of(cls, value: Any, graph: Any) -> _Beside:
        """Returns what lies beside the variables of a module, whose graph tells all of it."""
        if (known := _known_graphs.get(graph)) is not None:
            return known
        found = dict(_nnx().iter_graph(value))
        changing = {path for path in found if _is_setting(found.get(path[:-1]), path, found[path])}
        paths = {".".join(map(str, path)): path for path in found if path in changing}
        made = cls(
            {name: found[path] for name, path in paths.items()},
            paths,
            {p: v if _is_static(v) else type(v) for p, v in found.items() if p not in changing},
        )
        if len(_known_graphs) == _KNOWN_MAX:
            _known_graphs.clear()
        _known_graphs[graph] = made
        return made


def _is_setting(holder: Any, path: tuple[Any, ...], value: Any) -> bool:
    """Whether something is an attribute that a loop may change: a mode, or one of the user's."""
    if not path or not isinstance(value, bool | int | float | str):
        return False
    name = path[-1]
    if not isinstance(name, str) or name.startswith("_") or not hasattr(holder, name):
        return False
    return name in MODES or type(holder).__module__.partition(".")[0] != "flax"


def _is_static(value: Any) -> bool:
    """Whether a value is neither a node nor a variable: a function, a size."""
    nnx = _nnx()
    return not (nnx.graph.is_node(value) or isinstance(value, nnx.Variable | jax.Array))


def parts_of(value: Any) -> Parts:
    """Takes an object of a run apart."""
    return NnxParts.of(value) if has_nodes(value) else Pytree.of(value)


def _nnx() -> Any:
    return sys.modules["flax.nnx"]


def has_nodes(value: Any) -> bool:
    """Whether a value is a module of NNX, or a nesting that holds one."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return False
    if isinstance(value, dict):
        return any(map(has_nodes, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_nodes, value))
    return bool(nnx.graph.is_graph_node(value)) and not isinstance(value, nnx.State)


def is_spread(leaf: Any) -> bool:
    """Whether an array lies in parts on several devices."""
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) < 2:
        return False
    return not leaf.is_fully_replicated


# A save asks three times, and to name the leaves of a tree takes longer than to take them.
_known: dict[Any, list[str]] = {}
_known_graphs: dict[Any, _Beside] = {}
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
