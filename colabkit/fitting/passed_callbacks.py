"""What a checkpoint notes of callbacks, to say at a resume which are others, or set otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from colabkit.frameworks.code_marks import code_mark, methods_of
from colabkit.frameworks.numbered import numbered
from colabkit.frameworks.users_own import attributes_of

_WORD_MAX = 40


def settings_of_callbacks(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Returns which there are, and what those were made with that keep it as they got it.

    Example:
        >>> from colabkit import EarlyStopping
        >>> found = settings_of_callbacks([EarlyStopping(patience=5)])
        >>> found["callbacks"], found["patience of EarlyStopping"]
        ('EarlyStopping', 5)
    """
    found: dict[str, Any] = {"callbacks": ", ".join(map(_name_of, callbacks)) or "none"}
    for name, each in numbered(callbacks).items():
        number = int(name.split()[1])
        title = f"{_name_of(each)} {number + 1}" if number else _name_of(each)
        found |= {f"{key} of {title}": value for key, value in _made_with(each)}
        marks = [code_mark(each)] if inspect.isroutine(each) else [*methods_of(type(each)).items()]
        found[f"the code of {title}"] = [str(mark) for mark in marks]
    return found


def _name_of(callback: Any) -> str:
    return str(getattr(callback, "__qualname__", type(callback).__qualname__)).rpartition(".")[2]


def _made_with(callback: Any) -> Iterable[tuple[str, Any]]:
    try:
        names = inspect.signature(type(callback)).parameters
    except (TypeError, ValueError):
        return
    own = attributes_of(callback)
    for name in names:
        value = own.get(name, callback)
        if value is None:
            yield name, "none"
        # What a path or a time in a name says is another thing in each session.
        elif type(value) in {bool, int, float} or _is_word(value):
            yield name, value


def _is_word(value: Any) -> bool:
    return type(value) is str and len(value) <= _WORD_MAX and not {"/", "\\"} & {*value}
