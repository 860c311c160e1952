"""Checks of arguments that several calls share."""

from __future__ import annotations

from colabkit.errors import ArgumentError


def require_count(name: str, value: object) -> None:
    """Raises ArgumentError unless a value is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        message = f"{name} is {value!r}."
        raise ArgumentError(message, argument=name, hint="Pass a whole number from 1 on.")
