"""What an optimizer keeps, by the names of the variables that it keeps it for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from colabkit.frameworks.keras.after_build import after_build
from colabkit.frameworks.keras.variables import assign
from colabkit.frameworks.users_own import attributes_of

Names = Callable[[], Mapping[int, str]]
_NO_SLOTS = frozenset({"_variables", "_trainable_variables", "_inner_optimizers"})


class OptimizerState:
    """One optimizer, whose variables may not be there before its first step.

    Args:
        optimizer: A Keras optimizer.
        names: Gives the name of each variable that may be trained, by its id.
    """

    def __init__(self, optimizer: Any, names: Names) -> None:
        self._optimizer = optimizer
        self._names = names
        self._awaited: Mapping[str, Any] | Sequence[Any] | None = None
        self._keys: list[str] = []
        self._trains: list[str] = []

    @property
    def awaits_build(self) -> bool:
        """Whether values wait for the optimizer's first step."""
        return self._awaited is not None

    def values(self, read: Any) -> Mapping[str, Any] | Sequence[Any]:
        """Returns what it keeps, each value by a key that follows from what it is kept for.

        Args:
            read: Gives the value of a variable.
        """
        if self._awaited is not None:
            return self._awaited
        variables = self._optimizer.variables
        return dict(zip(self._keys_of(variables), map(read, variables), strict=True))

    def trains(self) -> list[str]:
        """Returns the names of the weights that it was built for, in its order."""
        self._keys_of(self._optimizer.variables)
        return self._trains

    def restore(
        self, values: Mapping[str, Any] | Sequence[Any], trained: Sequence[Any] | None
    ) -> None:
        """Puts values back, each into the variable of its key.

        Args:
            values: What ``values`` gave.
            trained: What the optimizer was built for then, in that order; None if unknown.
        """
        optimizer = self._optimizer
        if trained and not optimizer.built:
            optimizer.build(list(trained))
        if optimizer.built or len(values) == len(optimizer.variables):
            self._put_back(values)
            return
        self._awaited = values

        def put_back() -> None:
            self._awaited = None
            self._put_back(values)

        after_build(optimizer, put_back)

    def _put_back(self, values: Mapping[str, Any] | Sequence[Any]) -> None:
        variables = self._optimizer.variables
        if not isinstance(values, Mapping):
            assign_all(variables, values)
            return
        for key, variable in zip(self._keys_of(variables), variables, strict=True):
            value = values.get(key)
            if value is not None and tuple(value.shape) == tuple(variable.shape):
                assign(variable, value)

    def _keys_of(self, variables: Sequence[Any]) -> list[str]:
        # They become more when it is built, and never change afterwards.
        if len(self._keys) != len(variables):
            names = self._names()
            self._trains = [names.get(id(each), "") for each in _trained(self._optimizer)]
            self._keys = keys_of(self._optimizer, names)
        return self._keys


def keys_of(optimizer: Any, names: Mapping[int, str]) -> list[str]:
    """Returns a key for each variable of an optimizer, in its order.

    What it keeps for a variable has that variable's stable name, for Keras' own names count
    layers over the whole session. What belongs to no single one is known by its place.

    Args:
        optimizer: The optimizer.
        names: The stable name of each variable that may be trained, by its id.
    """
    known = {id(kept): key for kept, key in _kept_in_lists(optimizer, names)}
    owners: dict[str, list[str]] = {}
    for name, each in _named(optimizer, names):
        owners.setdefault(_path(each), []).append(name)
    keys: list[str] = []
    counts: dict[str, int] = {}
    for variable in optimizer.variables:
        key = known.get(id(variable), "")
        path, slot = ("", "") if key else _cut(variable.name, owners)
        if path:
            number = counts[path + slot] = counts.get(path + slot, -1) + 1
            same = owners[path]
            key = f"{same[min(number, len(same) - 1)]} {slot}"
        keys.append(key or "variable")
    return list(_made_distinct(keys))


def _kept_in_lists(optimizer: Any, names: Mapping[int, str]) -> Iterator[tuple[Any, str]]:
    """Yields what lies in lists as long as that of the trained variables, one for each."""
    trained = _named(optimizer, names)
    for attribute, values in attributes_of(optimizer).items():
        if isinstance(values, list) and attribute not in _NO_SLOTS and len(values) == len(trained):
            for (name, _), kept in zip(trained, values, strict=True):
                yield kept, f"{name} {attribute.strip('_')}"
    for inner in _inner(optimizer):
        yield from _kept_in_lists(inner, names)


def _named(optimizer: Any, names: Mapping[int, str]) -> list[tuple[str, Any]]:
    trained = enumerate(_trained(optimizer))
    return [(names.get(id(variable), f"#{place}"), variable) for place, variable in trained]


def _inner(optimizer: Any) -> list[Any]:
    inner = getattr(optimizer, "inner_optimizer", None)
    return [*([inner] if inner is not None else ()), *getattr(optimizer, "_inner_optimizers", ())]


def _path(variable: Any) -> str:
    path = getattr(variable, "path", None) or variable.name.replace(":", "_")
    return str(path).replace("/", "_")


def _cut(name: str, owners: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the longest path that a name begins with, and the rest; no path where none does."""
    end = name.rfind("_")
    while end > 0:
        if name[:end] in owners:
            return name[:end], name[end + 1 :]
        end = name.rfind("_", 0, end)
    return "", name


def _made_distinct(keys: Sequence[str]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = number = counts.get(key, 0) + 1
        yield key if number == 1 else f"{key} {number}"


def _trained(optimizer: Any) -> Sequence[Any]:
    return getattr(optimizer, "_trainable_variables", None) or ()  # public nowhere


def assign_all(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Gives variables the values of a list, where it is as long and has their shapes."""
    # Metrics of a model that is compiled otherwise now begin at zero.
    if len(variables) == len(values):
        for variable, value in zip(variables, values, strict=True):
            if tuple(variable.shape) == tuple(value.shape):
                assign(variable, value)
