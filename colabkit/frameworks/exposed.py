"""The objects of a run that a loop replaces rather than changes: attributes of the run."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.frameworks.attributes import has_state

# What a loop trains may be called so, although run.state() keeps plain values.
_MAY_HIDE = "state"


class Exposed(Mapping[str, Any]):
    """Objects by name, each read from an attribute of its owner, where a loop puts new ones.

    Args:
        owner: The run, None where there is none, and an object must be changed in place.
        objects: By name; those that are None are left out.

    Raises:
        ArgumentError: A name is that of something else of the owner's.
    """

    def __init__(self, owner: Any, objects: Mapping[str, Any]) -> None:
        self._is_owned = owner is not None
        owner = types.SimpleNamespace() if owner is None else owner
        self._attributes = vars(owner)
        self._names = tuple(name for name, value in objects.items() if value is not None)
        # What can be loaded into stays the same object.
        self._lasting = {name: objects[name] for name in self._names if has_state(objects[name])}
        for name in self._names:
            if name not in self._lasting:
                expose(owner, name, objects[name])

    def replace(self, name: str, value: Any) -> None:
        """Puts another object in the place of one.

        Raises:
            ArgumentError: Nobody would see it.
        """
        if not self._is_owned and value is not self._attributes[name]:
            message = f"{name} is a {type(value).__name__}, which is replaced, and never changed."
            hint = f"Make a run with it, and take what that has: Run(folder, {name}=...).{name}"
            raise ArgumentError(message, argument=name, hint=hint)
        self._attributes[name] = value

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._lasting[name] if name in self._lasting else self._attributes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def expose(owner: Any, name: str, value: Any) -> None:
    """Makes an object an attribute of its owner.

    Raises:
        ArgumentError: The name is that of something else of the owner's.
    """
    known = {each for kind in type(owner).__mro__ for each in vars(kind)}
    known |= {n for kind in type(owner).__mro__ for n in vars(kind).get("__annotations__", ())}
    if (name in known or name in vars(owner)) and name != _MAY_HIDE:
        message = f"An object cannot be called {name}: run.{name} is something else."
        raise ArgumentError(message, argument=name, hint=f"Call it my_{name}, say.")
    vars(owner)[name] = value
