"""The variables that a user's code works with: closures, defaults, globals, class attributes."""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from colabkit.frameworks.named_in_code import (
    function_of,
    globals_of,
    set_by_function,
    set_by_methods,
)
from colabkit.frameworks.users_own import is_of_users_class, is_users_module

_FUNCTIONS_MAX = 64
_NOTHING = object()
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
_OF_CODE = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)


class Place(NamedTuple):
    """Where a variable lies.

    Attributes:
        owner: A namespace, a class, a cell of a closure; None for what no name leads to.
        name: Its name there.
        fixed: The object itself where no name leads to it.
    """

    owner: Any
    name: str
    fixed: Any = None

    @property
    def key(self) -> tuple[int, str]:
        """What is the same for one place, whichever code leads there."""
        return id(self.fixed if self.owner is None else self.owner), self.name

    def value(self) -> Any:
        """Returns what is there, ``_NOTHING`` where nothing is yet."""
        if self.owner is None:
            return self.fixed
        if isinstance(self.owner, types.CellType):
            try:
                return self.owner.cell_contents
            except ValueError:
                return _NOTHING
        held = vars(self.owner) if isinstance(self.owner, type) else self.owner
        return held.get(self.name, _NOTHING)

    def put(self, value: Any) -> None:
        """Puts a value there."""
        if isinstance(self.owner, types.CellType):
            self.owner.cell_contents = value
        elif isinstance(self.owner, type):
            setattr(self.owner, self.name, value)
        elif self.owner is not None:
            self.owner[self.name] = value


class CodeVariables:
    """The variables that functions work with, as attributes of one object.

    A loss that counts its calls in a global, a hook that keeps a mean in its closure and a
    callback that averages the notebook's model know by these what they know.

    Args:
        roots: Functions, methods, and objects that are called, whose code is read with that of
            the functions of the user's that it names.
        classes: Classes whose methods are read.
        but: Objects that others look after.
    """

    def __init__(
        self, roots: Iterable[Any], classes: Iterable[type] = (), but: Iterable[object] = ()
    ) -> None:
        found = {place.key: place for place in _Reading(roots, classes).places()}
        places: dict[str, Place] = {}
        for place in found.values():
            number = sum(each.name == place.name for each in places.values())
            places[f"{place.name}~{number + 1}" if number else place.name] = place
        others = {id(each): each for each in but}  # held, so that their ids stay theirs
        vars(self).update(_places=places, _others=others)
        functions = {name: place.value() for name, place in places.items()}
        functions = {n: each for n, each in functions.items() if isinstance(each, _FUNCTIONS)}
        vars(self).update(_functions=functions)

    def variables(self) -> dict[str, Any]:
        """Returns what they hold, by name, but functions, classes and modules."""
        others: Mapping[int, object] = vars(self)["_others"]
        places: Mapping[str, Place] = vars(self)["_places"]
        values = {name: place.value() for name, place in places.items()}
        return {
            name: value
            for name, value in values.items()
            if value is not _NOTHING and id(value) not in others
            if not isinstance(value, _OF_CODE)
        }

    def exchanged(self) -> dict[str, str]:
        """Returns by name of what kind is what stands now where a function was, and is another."""
        functions: Mapping[str, Any] = vars(self)["_functions"]
        now = {name: vars(self)["_places"][name].value() for name in functions}
        return {
            name: type(now[name]).__name__
            for name, then in functions.items()
            if now[name] is not then
            and getattr(now[name], "__code__", now[name]) is not getattr(then, "__code__", then)
        }

    def __bool__(self) -> bool:
        return bool(vars(self)["_places"])

    def __getattr__(self, name: str) -> Any:
        place = vars(self)["_places"].get(name)
        found = _NOTHING if place is None else place.value()
        if found is _NOTHING:
            raise AttributeError(name)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        place = vars(self)["_places"].get(name)
        if place is not None:  # or the code was edited, and knows it no more
            place.put(value)


class _Reading:
    """Goes from function to function, each once, and takes down what they work with."""

    def __init__(self, roots: Iterable[Any], classes: Iterable[type]) -> None:
        self._waiting: list[types.FunctionType] = []
        self._known: dict[types.FunctionType, None] = {}
        self._codes: set[types.CodeType] = set()
        self._classes: dict[type, None] = {}
        self._places: list[Place] = []
        for root in roots:
            self._take(root)
        for each in classes:
            self._take_class(each)

    def places(self) -> Iterator[Place]:
        """Yields all places, some more than once."""
        while self._waiting:
            function = self._waiting.pop(0)
            for place in _places_of(function):
                value = place.value()
                self._places.append(place)
                if isinstance(value, types.FunctionType | type):
                    self._take(value)
                else:
                    self._take_class(type(value))
        yield from self._places
        yield from self._yet_to_be_made()

    def _yet_to_be_made(self) -> Iterator[Place]:
        """Yields the attributes of functions and classes that training may make."""
        for function in self._known:
            for owner, name in set_by_function(function):
                if isinstance(owner, types.FunctionType) and owner in self._known:
                    yield Place(vars(owner), name)
                elif owner in self._classes and name not in vars(owner):
                    yield Place(owner, name)
        for kind in self._classes:
            yield from (Place(kind, n) for n in set_by_methods(kind) if n not in vars(kind))

    def _take(self, root: Any) -> None:
        if isinstance(root, functools.partial):
            for each in (root.func, *root.args, *root.keywords.values()):
                self._take(each)
        elif isinstance(root, types.MethodType):
            self._take(root.__self__)
            self._take(root.__func__)
        elif isinstance(root, type):
            self._take_class(root)
        elif isinstance(root, types.FunctionType):
            # One code makes many functions, each with variables of its own: hooks made in a loop.
            is_wanted = root.__code__ in self._codes or len(self._codes) < _FUNCTIONS_MAX
            if root not in self._known and is_wanted and is_users_module(root.__module__ or ""):
                self._known[root] = None
                self._codes.add(root.__code__)
                self._waiting.append(root)
        elif is_of_users_class(type(root)):
            self._places.append(Place(None, type(root).__name__, root))
            self._take_class(type(root))

    def _take_class(self, kind: type) -> None:
        for base in kind.__mro__:
            if base in self._classes or not is_of_users_class(base):
                continue
            self._classes[base] = None
            for name, value in list(vars(base).items()):
                if (function := function_of(value)) is not None:
                    self._take(function)
                elif not name.startswith("__"):
                    self._places.append(Place(base, name))


def _places_of(function: types.FunctionType) -> Iterator[Place]:
    for name, value in defaults_of(function).items():
        yield Place(None, name, value)
    for name in vars(function):
        yield Place(vars(function), name)
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        yield Place(cell, name)
    for space, name in globals_of(function):
        if name in space or not hasattr(builtins, name):
            yield Place(space, name)


def defaults_of(function: types.FunctionType) -> Mapping[str, Any]:
    """Returns by name what arguments are unless they are given: lists that keep, say."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(names, values, strict=True)), **(function.__kwdefaults__ or {})}
