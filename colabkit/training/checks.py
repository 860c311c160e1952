"""Checks of arguments that several calls share."""

from __future__ import annotations

import numbers
from collections.abc import Iterable

from colabkit.errors import ArgumentError

PLACE_NAMES = frozenset({"epoch", "step", "seconds"})


def require_count(name: str, value: object) -> None:
    """Raises ArgumentError unless a value is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        message = f"{name} is {value!r}."
        raise ArgumentError(message, argument=name, hint="Pass a whole number from 1 on.")


def seed_of(seed: object) -> int:
    """Returns a run's seed, 0 where none is given; raises ArgumentError for what is none."""
    if seed is None:
        return 0
    if not isinstance(seed, numbers.Integral):
        message = f"seed is {seed!r}."
        raise ArgumentError(message, argument="seed", hint="Pass a whole number.")
    return int(seed)


def require_free_names(names: Iterable[str]) -> None:
    """Raises ArgumentError when a value would have the name of a column of every history."""
    if not PLACE_NAMES.isdisjoint(names):
        taken = ", ".join(sorted(PLACE_NAMES.intersection(names)))
        message = f"A value cannot be called {taken}: the history has a column of that name."
        raise ArgumentError(message, argument=taken, hint="Choose another name.")
