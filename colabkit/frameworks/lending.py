"""Objects that are held by others alone for a moment, to see whether anybody does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any


def held_weakly(value: object) -> Callable[[], Any]:
    """Returns what gives a value for as long as others hold it; for ever where it cannot tell."""
    try:
        return weakref.ref(value)
    except TypeError:  # None, or of a class that cannot be held so
        return lambda: value


def lend(owner: object, names: Sequence[str]) -> Callable[[], bool]:
    """Has an object let go of some of its attributes.

    Returns:
        What gives them back, and says whether all of them are still there.
    """
    attributes = vars(owner)
    lent = {name: attributes[name] for name in names if attributes[name] is not None}
    held = {name: held_weakly(value) for name, value in lent.items()}
    attributes.update(dict.fromkeys(lent))
    lent.clear()

    def take_back() -> bool:
        found = {name: value() for name, value in held.items()}
        is_whole = all(value is not None for value in found.values())
        if is_whole:
            attributes.update(found)
        return is_whole

    return take_back
