"""What the program around a loop reaches by its names."""

from __future__ import annotations

import collections
import functools
import itertools
import re
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from colabkit.frameworks.bystanders import remembered_by, unwrapped
from colabkit.frameworks.code_variables import defaults_of
from colabkit.frameworks.users_own import attributes_of, is_of_users_class, is_users_module
from colabkit.runs.leaving import frames_over
from colabkit.runs.loop_values import closed_over_by, variables_of

_DEPTH_MAX, _OBJECTS_MAX, _ITEMS_MAX = 5, 5_000, 100
_ROWS = (list, tuple, set, collections.deque)
# Outputs and inputs of cells: what has no other name, nobody can use without them.
_OF_IPYTHON = re.compile(r"_+|_i+|_i?\d+|_[iod]h|__\w+__")
_PLAIN = (bool, int, float, complex, str, bytes, type, type(None), types.BuiltinFunctionType)


def reached_by(loop: weakref.ref[Any]) -> dict[str, Any]:
    """Returns objects by the shortest path that leads to each: ``teacher``, ``trainer.teacher``.

    Of variables of the functions that wait for the loop, globals, attributes of the user's own
    objects, what rows hold and what functions have closed over. Asked from within the loop.

    Args:
        loop: The generator.
    """
    waiting = collections.deque((path, value, 0) for path, value in _names_around(loop))
    found: dict[str, Any] = {}
    seen: set[int] = set()
    while waiting and len(seen) < _OBJECTS_MAX:
        path, value, depth = waiting.popleft()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen.add(id(value))
        found.setdefault(path, value)
        if depth < _DEPTH_MAX:
            waiting.extend((name, each, depth + 1) for name, each in _within(path, value))
    return found


def _names_around(loop: weakref.ref[Any]) -> Iterator[tuple[str, Any]]:
    frame = next(iter(frames_over(loop())), None)
    while frame is not None:
        if is_users_module(str(frame.f_globals.get("__name__", ""))):
            for names in (variables_of(frame), frame.f_globals):
                own = [(n, each) for n, each in list(names.items()) if not _OF_IPYTHON.fullmatch(n)]
                yield from sorted(own, key=lambda each: each[0].startswith("_"))
        frame = frame.f_back


def _within(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Returns what an object holds, by the path that leads there."""
    if isinstance(value, Mapping):
        pairs = itertools.islice(list(value.items()), _ITEMS_MAX)
        return [(f"{path}[{key!r}]", each) for key, each in pairs]
    if isinstance(value, _ROWS):
        parts = itertools.islice(list(value), _ITEMS_MAX)
        return [(f"{path}[{place}]", each) for place, each in enumerate(parts)]
    if isinstance(value, functools.partial):
        given = [(f"{path}.args[{place}]", each) for place, each in enumerate(value.args)]
        given += [(f"{path}.keywords[{key!r}]", each) for key, each in value.keywords.items()]
        return [(f"{path}.func", value.func), *given]
    if isinstance(value, types.MethodType):
        return [(f"{path}.__self__", value.__self__)]
    if isinstance(value, weakref.ref):
        return [(f"{path}()", value())]
    if isinstance(value, weakref.WeakSet):
        return [(f"{path}[...]", each) for each in itertools.islice(list(value), _ITEMS_MAX)]
    if isinstance(value, types.GeneratorType):
        return [] if value.gi_frame is None else variables_of(value.gi_frame).items()
    function = unwrapped(value)
    if isinstance(function, types.FunctionType):
        answers = remembered_by(value)
        given = [(f"{path}(...)[{place}]", each) for place, each in enumerate(answers)]
        given = [(f"{path}()", each) for each in answers] if len(answers) == 1 else given
        own = [(f"{path}.{name}", each) for name, each in vars(function).items()]
        return [*given, *own, *closed_over_by(function).items(), *defaults_of(function).items()]
    return [(f"{path}.{name}", each) for name, each in _own_of(value)]


def _own_of(value: Any) -> list[tuple[str, Any]]:
    """Returns the attributes of a module or object of the user's own."""
    if isinstance(value, types.ModuleType):
        return list(vars(value).items()) if is_users_module(value.__name__) else []
    if not is_of_users_class(type(value)):
        return []
    own = list(attributes_of(value).items())
    # What models have of their framework's stands behind an underscore.
    is_plain = all(map(is_of_users_class, type(value).__mro__[:-1]))
    return [(name, each) for name, each in own if is_plain or not name.startswith("_")]
