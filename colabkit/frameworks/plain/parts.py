"""An object taken apart into leaves by path, and made of such leaves again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

_VALUES = (bool, int, float, complex, str, bytes, np.generic)
_DEPTH_MAX = 32


class Parts(Protocol):
    """What an object is made of at one moment."""

    @property
    def leaves(self) -> Mapping[str, Any]:
        """Its arrays and plain values, by the path that leads to each."""
        ...

    @property
    def form(self) -> Any:
        """What else it is: the same for two that differ in their leaves alone."""
        ...

    def rebuilt(self, leaves: Mapping[str, Any]) -> Any:
        """Returns the object with other leaves: a new one, or itself, changed in place."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class TreeParts:
    """A nesting of dicts, lists and tuples.

    Attributes:
        leaves: By path.
        form: Its nesting, and what in it is neither array nor plain value.
        build: Makes it of leaves.
    """

    leaves: Mapping[str, Any]
    form: Any
    build: Callable[[Mapping[str, Any]], Any]

    @classmethod
    def of(cls, value: Any) -> TreeParts:
        """Takes a tree of NumPy arrays and plain values apart."""
        leaves: dict[str, Any] = {}
        form, build = _collect(value, "", leaves, 0)
        return cls(leaves, form, build)

    def rebuilt(self, leaves: Mapping[str, Any]) -> Any:
        """Returns the tree with other leaves."""
        return self.build(leaves)


def is_tree(value: object) -> bool:
    """Whether a value is a nesting that holds an array of NumPy and nothing but plain values."""
    if not isinstance(value, Mapping | list | tuple):
        return False
    parts = TreeParts.of(value)
    return any(isinstance(leaf, np.ndarray) for leaf in parts.leaves.values()) and _is_whole(
        parts.form
    )


def _is_whole(form: Any) -> bool:
    if isinstance(form, tuple):
        return all(map(_is_whole, form))
    return isinstance(form, str | type) or form is None


def is_leaf(value: object) -> bool:
    """Whether a value is stored as it is."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc" or value.dtype.kind == "V"
    return isinstance(value, _VALUES)


def _collect(value: Any, path: str, leaves: dict[str, Any], depth: int) -> tuple[Any, Any]:
    """Notes the leaves of a tree; returns its form, and what makes it again."""
    if is_leaf(value):
        leaves[path] = value
        return "leaf", lambda found: found.get(path, value)
    if depth < _DEPTH_MAX and isinstance(value, Mapping):
        made = {k: _collect(v, _joined(path, k), leaves, depth + 1) for k, v in value.items()}
        kind: Any = type(value) if type(value) in {dict} else dict
        form = (kind, *((str(k), each[0]) for k, each in made.items()))
        return form, lambda found: kind((k, each[1](found)) for k, each in made.items())
    if depth < _DEPTH_MAX and isinstance(value, list | tuple):
        items = [_collect(v, _joined(path, n), leaves, depth + 1) for n, v in enumerate(value)]
        kind = type(value)
        form = (kind, *(each[0] for each in items))
        return form, lambda found: _sequence(kind, [each[1](found) for each in items])
    return (None if value is None else _Opaque(value)), lambda _: value


def _sequence(kind: type, items: list[Any]) -> Any:
    if hasattr(kind, "_fields"):
        return tuple.__new__(kind, items)
    return items if kind is list else kind(items)


class _Opaque:
    """Something in a tree that no checkpoint holds; the same where it is the very same."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opaque) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _joined(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
