"""The root of the error tree, and what any call can raise."""

from __future__ import annotations

from colabkit.errors.own_lines import shown

_LONGEST_VALUE = 200


class ColabKitError(Exception):
    """Base of every error colabkit raises on purpose.

    Args:
        message: What happened and where, one sentence with numbers.
        hint: What to do next; shown after the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        # The words of somebody else that a message quotes at its end may have no full stop.
        stop = "" if self.message.endswith((".", "!", "?", ":", ")", '"')) else "."
        return f"{self.message}{stop} {self.hint}"

    def _render_traceback_(self) -> list[str]:
        """Returns what IPython shows, which asks for it by this name."""
        return shown(self)


class ArgumentError(ColabKitError, ValueError):
    """An argument cannot be used; ``argument`` names it."""

    def __init__(self, message: str, *, argument: str, hint: str = "") -> None:
        self.argument = argument
        super().__init__(message, hint=hint)

    @classmethod
    def of(cls, argument: str, value: object, hint: str) -> ArgumentError:
        """Returns the error for a value that is none of those an argument takes.

        Example:
            >>> print(ArgumentError.of("epochs", -1, "Pass a whole number from 1 on."))
            epochs is -1. Pass a whole number from 1 on.
        """
        told = repr(value)
        if len(told) > _LONGEST_VALUE and not isinstance(value, str):
            told = f"of type {type(value).__name__}"
        return cls(f"{argument} is {told}.", argument=argument, hint=hint)


class MissingPackageError(ColabKitError, ImportError):
    """A package that this call needs is not installed."""

    def __init__(self, message: str, *, package: str, hint: str = "") -> None:
        self.package = package
        super().__init__(message, hint=hint)
