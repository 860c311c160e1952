"""Classes that a state names by their place, looked for among what is loaded."""

from __future__ import annotations

import collections
import dataclasses
import functools
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

from colabkit.errors import StateError


def place_of(kind: type) -> list[str]:
    """Returns the module of a class, and its qualified name there."""
    return [kind.__module__, kind.__qualname__]


def at_place(place: Sequence[str]) -> Any:
    """Returns what stands at a place among the loaded modules; nothing is imported."""
    module, name = place
    there: Any = sys.modules.get(module)
    for part in name.split("."):
        there = getattr(there, part, None)
    return there


def can_be_found(kind: type) -> bool:
    """Whether another process that runs the same program finds this very class."""
    return at_place(place_of(kind)) is kind


def fields_of(value: Any) -> dict[str, Any] | None:
    """Returns what a dataclass's object holds by name, None where it cannot be made of that."""
    kind: Any = type(value)
    names = [field.name for field in dataclasses.fields(value)]
    beside = set(getattr(value, "__dict__", ())) - set(names)
    if beside or not can_be_found(kind) or not all(hasattr(value, n) for n in names):
        return None
    names += [name for name in slots_beside(kind) if hasattr(value, name)]
    return {name: getattr(value, name) for name in names}


@functools.lru_cache(maxsize=256)
def slots_beside(kind: type) -> tuple[str, ...]:
    """Returns the slots of a dataclass that are no fields: those of a base that is none."""
    fields = {field.name for field in dataclasses.fields(kind)}
    return tuple(name for name in slots_of(kind) if name not in fields)


def slots_of(kind: type) -> tuple[str, ...]:
    """Returns the names of the slots of a class and its bases."""
    members = (item for each in kind.__mro__ for item in vars(each).items())
    slots = (name for name, held in members if isinstance(held, types.MemberDescriptorType))
    return tuple(dict.fromkeys(slots))


def tuple_named(node: Mapping[str, Any]) -> type[tuple[Any, ...]]:
    """Returns the class of a named tuple, or one like it where that is not there."""
    kind, fields = at_place(node["class"]), list(node["fields"])
    is_class = isinstance(kind, type) and issubclass(kind, tuple)
    if not is_class or list(getattr(kind, "_fields", ())) != fields:
        make: Any = collections.namedtuple
        kind = make(node["class"][1].rpartition(".")[2], fields)
    return kind  # type: ignore[no-any-return]


def dataclass_named(node: Mapping[str, Any]) -> type:
    """Returns a dataclass with the fields that its objects had.

    Raises:
        StateError: It is not there, or has others.
    """
    kind = at_place(node["class"])
    is_kind = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    fields = {field.name for field in dataclasses.fields(kind)} if is_kind else set()
    if not is_kind or set(node["fields"]) - {*slots_beside(kind)} != fields:
        raise missing(node)
    return kind  # type: ignore[no-any-return]


def filled(kind: type, names: Sequence[str], values: Sequence[Any]) -> Any:
    """Returns an object with its attributes as they were; none of its code is run."""
    made: Any = object.__new__(kind)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(made, name, value)
    return made


def missing(node: Mapping[str, Any]) -> StateError:
    """Returns the error that a class is not there."""
    where = ".".join(node["class"])
    message = f"A checkpoint holds an object of {where}, which is not there, or is another now."
    return StateError(message, where=where, hint="Define the class before the run is made.")
