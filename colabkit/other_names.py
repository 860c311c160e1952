"""What to write in place of an argument that another library calls otherwise."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from colabkit.errors import ArgumentError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LONGEST_VALUE = 40
# Letters that a slip of the finger changes, two where they change places; what is less alike, long
# as the common end may be (save_every_n_steps, log_every_n_steps), is another word.
_SLIPS_MAX, _SLIPS_MAX_OF_SHORT, _SHORT = 2, 1, 8
# Of what a function may be given, so much is shown where it was called wrongly.
_OPTIONS_SHOWN = 2


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
        subjects: Such sentences by a word that names have among others, for what nobody listed;
            the first word that a name has counts.
    """

    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    in_other_words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    families: Mapping[str, str] = dataclasses.field(default_factory=dict)
    subjects: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        if meant := _meant_by(name, known):
            return f"Did you mean {meant!r}?"
        if meant := _meant_by(name, [*self.renamed, *self.in_other_words]):
            return self.hint(meant, value)
        words = name.lower().split("_")
        return next((told for word, told in self.subjects.items() if word in words), "")


def _meant_by(name: str, known: Iterable[str]) -> str:
    """Returns the word that a slip of the finger makes a name of, "" where there is none."""
    most = _SLIPS_MAX_OF_SHORT if len(name) <= _SHORT else _SLIPS_MAX
    slips = [(_slips_between(name, each), each) for each in known]
    return min((pair for pair in slips if pair[0] <= most), default=(0, ""))[1]


def _slips_between(one: str, other: str) -> int:
    """Returns how many letters have been changed, left out or put in."""
    import difflib  # only a call that is refused is compared

    changes = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in changes if kind != "equal")


def answering(
    names: OtherNames, *, takes_more: bool = False, usage: str = ""
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Lets a function answer a call that it does not take with what to write.

    Args:
        names: What the names of other libraries are here.
        takes_more: Whether the function itself looks at arguments of other names; here they are
            answered only where they stand for one that is missing.
        usage: How the function is called, by default with all that it must be given.

    Example:
        >>> @answering(OtherNames({"path": "folder"}))
        ... def show(*, folder: str) -> None: ...
        >>> show(path="x")
        Traceback (most recent call last):
        colabkit.errors.base.ArgumentError: show has no argument 'path'. Write folder='x'.
        >>> show()
        Traceback (most recent call last):
        TypeError: show: missing a required argument: 'folder'. Call it as show(folder=...).
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)
        known = dict.fromkeys(signature.parameters)
        called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

        @functools.wraps(function)
        def answered(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                missing = known.keys() - {*kwargs, *list(known)[: len(args)]}
                for name, value in kwargs.items():
                    is_meant = name in names.in_other_words or names.renamed.get(name) in missing
                    if name in known or (takes_more and not is_meant):
                        continue
                    hint = names.hint(name, value, known=known)
                    hint = hint or f"Look at help(colabkit.{called})."
                    message = f"{called} has no argument {name!r}."
                    raise ArgumentError(message, argument=name, hint=hint) from None
                call = usage or _usage(called, signature)
                message = f"{called}: {error}. Call it as {call}."
                raise TypeError(message) from None
            return function(*args, **kwargs)

        return answered

    return decorate


def _usage(called: str, signature: inspect.Signature) -> str:
    """Returns a call with all that a function must be given, and what else it may be.

    Example:
        >>> _usage("load", inspect.signature(lambda model, ckpt_dir, which="latest": None))
        "load(model, ckpt_dir, which='latest')"
    """
    words, left = [], _OPTIONS_SHOWN
    for name, each in signature.parameters.items():
        if each.default is not each.empty:
            words += [f"{name}={each.default!r}"] if left > 0 else ["..."] if left == 0 else []
            left -= 1
        elif each.kind is each.KEYWORD_ONLY:
            words.append(f"{name}=...")
        elif each.kind is each.POSITIONAL_OR_KEYWORD:
            words.append(name)
    return f"{called}({', '.join(words)})"
