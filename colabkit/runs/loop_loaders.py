"""What loaders read by themselves: the weights of a sampler, what a data set's code names."""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from colabkit.frameworks.bystanders import unwrapped
from colabkit.frameworks.code_variables import defaults_of
from colabkit.frameworks.named_in_code import function_of, globals_of
from colabkit.frameworks.users_own import attributes_of, is_of_users_class
from colabkit.runs.loop_values import Held, Values, closed_over_by, is_array, is_lone
from colabkit.runs.loop_writes import Event, Verb

_DEPTH_MAX, _OBJECTS_MAX, _ITEMS_MAX = 8, 2_000, 64
# What a loader, or Python, calls by itself.
_CALLED = frozenset({"__call__", "__getitem__", "__getitems__", "__iter__", "__len__", "__next__"})


def read_by_loaders(
    paths: Iterable[str], values: Values, events: Collection[Event] = ()
) -> list[str]:
    """Returns the variables that the data of a loop reads by itself, as batches are asked for.

    Args:
        paths: What the loop names to ask for its data.
        values: What its names stand for.
        events: What is done before that, where some of them may not be there yet.
    """
    read = _Reads(values.held)
    waiting, known = [*paths], set[str]()
    while waiting:
        path = waiting.pop()
        if path in known or values.is_held(path):
            continue
        known.add(path)
        read.enter(values.of(path), _CALLED)
        if not values.has(path):
            waiting += _made_of(path, events)
    return values.paths_to(read.names, read.closed)


def _made_of(path: str, events: Collection[Event]) -> list[str]:
    """Returns what a variable is made of where it is set: ``loader = DataLoader(data)``."""
    setters = [each for each in events if each.verb is Verb.SET and each.path == path]
    within = {node for each in setters for node in _value_of(each)}
    read = (each for each in events if each.verb is Verb.READ)
    return [each.path for each in read if each.node in within or each.room.call in within]


def _value_of(setter: Event) -> Iterator[ast.AST]:
    for each in setter.room.source.around(setter.node):
        if isinstance(each, ast.stmt | ast.NamedExpr):
            value = getattr(each, "value", getattr(each, "iter", None))
            return iter(()) if value is None else ast.walk(value)
    return iter(())


class _Reads:
    """Goes from object to object by the names that code asks them for.

    Attributes:
        names: What each object, class or namespace is asked for, by identity.
        closed: The identities of what closed-over variables stand for, by name.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self._come_to: dict[int, object] = {}
        self.names: dict[int, frozenset[str]] = {}
        self.closed: dict[str, int] = {}

    def enter(self, value: Any, asked: frozenset[str], depth: int = 0) -> None:
        """Goes on from an object.

        Args:
            value: It.
            asked: What it may be asked for.
            depth: How far away from the loop it is.
        """
        is_plain = is_lone(value) or isinstance(value, str | bytes | ModuleType | type)
        if is_plain or value in self._held or len(self._come_to) >= _OBJECTS_MAX:
            return
        known = self.names.get(id(value), frozenset())
        if depth > _DEPTH_MAX or (id(value) in self._come_to and asked <= known):
            return
        self._come_to[id(value)] = value
        self._ask(value, asked)
        for each, names in list(self._parts_of(value, asked | known)):
            self.enter(each, names, depth + 1)

    def _ask(self, owner: object, names: frozenset[str]) -> None:
        self.names[id(owner)] = self.names.get(id(owner), frozenset()) | names

    def _parts_of(self, value: Any, asked: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
        function = unwrapped(value)
        if isinstance(value, Mapping | list | tuple | set):
            items = value.values() if isinstance(value, Mapping) else value
            yield from ((each, asked) for each in list(itertools.islice(items, _ITEMS_MAX)))
        if isinstance(value, MethodType):
            yield value.__self__, frozenset({value.__name__})
        elif isinstance(function, FunctionType):
            yield from self._named_by(function)
        elif isinstance(value, functools.partial):
            parts = [value.func, *value.args, *value.keywords.values()]
            yield from ((each, asked | _CALLED) for each in parts)
        elif not is_array(value):
            yield from self._attributes_of(value, asked)

    def _attributes_of(
        self, value: Any, asked: frozenset[str]
    ) -> Iterator[tuple[Any, frozenset[str]]]:
        own, kind = attributes_of(value), type(value)
        if is_of_users_class(kind):
            methods = _methods_of(kind, asked)
            named = asked.union(*(_names_in(each.__code__) for each in methods))
            for each in methods:
                yield from self._named_by(each)
            for owner in (value, *kind.__mro__):
                self._ask(owner, named)
        else:
            named = frozenset(own) | asked
            self._ask(value, named)
        yield from ((each, named | _CALLED) for name, each in own.items() if name in named)

    def _named_by(self, function: FunctionType) -> Iterator[tuple[Any, frozenset[str]]]:
        asked = _names_in(function.__code__) | _CALLED
        for name, each in closed_over_by(function).items():
            self.closed[name] = id(each)
            yield each, asked
        for space, name in globals_of(function):
            self._ask(space, frozenset({name}))
            yield space.get(name), asked
        yield from ((each, asked) for each in defaults_of(function).values())


def _methods_of(kind: type, asked: frozenset[str]) -> list[FunctionType]:
    """Returns the methods of a class that run where some are asked for."""
    found: dict[str, FunctionType | None] = {}
    waiting = [*asked]
    while waiting:
        name = waiting.pop()
        if name not in found:
            value = next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)
            method = found[name] = function_of(unwrapped(value))
            waiting += [] if method is None else _names_in(method.__code__)
    return [each for each in found.values() if each is not None]


@functools.lru_cache(maxsize=256)
def _names_in(code: CodeType) -> frozenset[str]:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return frozenset(code.co_names).union(*map(_names_in, inner))
