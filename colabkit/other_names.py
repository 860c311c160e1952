"""What to write in place of an argument that another library calls otherwise."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from colabkit.errors import ArgumentError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LONGEST_VALUE = 40
# A slip of the finger; what is less alike is another word, and a guess would mislead.
_ALIKE = 0.8


def by_name(answers: Mapping[str, str]) -> dict[str, str]:
    """Returns answers by name, of a table of the names that each answers.

    Example:
        >>> by_name({"epochs": "max_epochs num_epochs"})
        {'max_epochs': 'epochs', 'num_epochs': 'epochs'}
    """
    return {name: answer for answer, names in answers.items() for name in names.split()}


@dataclasses.dataclass(frozen=True, slots=True)
class OtherNames:
    """Names that people of other libraries type, and what is written here.

    Attributes:
        renamed: The same thing under the name that it has here; the value can stay.
        in_other_words: What no single argument stands for, as a sentence that says what to do.
        families: Such sentences by how names begin, for whole groups of them; ``{rest}`` in one
            is the rest of the name.
    """

    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    in_other_words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    families: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def hint(self, name: str, value: Any, *, known: Iterable[str] = ()) -> str:
        """Returns what to write in place of a name, "" where nobody knows.

        Args:
            name: What was typed.
            value: What was passed.
            known: The arguments that there are, one of which may have been meant.

        Example:
            >>> OtherNames({"max_epochs": "epochs"}).hint("max_epochs", 3)
            'Write epochs=3.'
        """
        if name in self.in_other_words:
            return self.in_other_words[name]
        if here := self.renamed.get(name):
            plain = isinstance(value, str | int | float) and len(repr(value)) <= _LONGEST_VALUE
            return f"Write {here}={value!r}." if plain else f"Here it is called {here}."
        for beginning, told in self.families.items():
            if name.startswith(beginning):
                return told.format(rest=name.removeprefix(beginning))
        if close := difflib.get_close_matches(name, known, 1, _ALIKE):
            return f"Did you mean {close[0]!r}?"
        close = difflib.get_close_matches(name, [*self.renamed, *self.in_other_words], 1, _ALIKE)
        return self.hint(close[0], value) if close else ""


def answering(names: OtherNames) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Lets a function answer an argument that it does not take with what to write.

    Example:
        >>> @answering(OtherNames({"path": "folder"}))
        ... def show(*, folder: str) -> None: ...
        >>> show(path="x")
        Traceback (most recent call last):
        colabkit.errors.base.ArgumentError: show has no argument 'path'. Write folder='x'.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        known = dict.fromkeys(inspect.signature(function).parameters)
        called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

        @functools.wraps(function)
        def answered(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for name, value in kwargs.items():
                if name not in known:
                    hint = names.hint(name, value, known=known)
                    hint = hint or f"Look at help(colabkit.{called})."
                    message = f"{called} has no argument {name!r}."
                    raise ArgumentError(message, argument=name, hint=hint)
            return function(*args, **kwargs)

        return answered

    return decorate
