"""What the classes and functions of a user name: class attributes, and globals of their modules."""

from __future__ import annotations

import contextlib
import dis
import functools
import itertools
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping

from colabkit.frameworks.users_own import is_of_package

# Nothing of a user's is kept there.
_FRAMEWORKS = frozenset({"builtins", "keras", "numpy", "random", "tensorflow", "torch", "typing"})
_GENERATORS = frozenset({"Generator", "Random", "RandomState"})
_HELPERS_MAX = 64

Binding = tuple[Mapping[str, object], str]
_of_classes: weakref.WeakKeyDictionary[type, tuple[Binding, ...]] = weakref.WeakKeyDictionary()


def bindings_named_by(
    classes: Iterable[type], functions: Iterable[types.FunctionType]
) -> Iterator[Binding]:
    """Yields where the class attributes and globals lie that classes and functions use.

    Args:
        classes: Classes of the user's objects, whose methods are read.
        functions: Functions of the user's.
    """
    places = [place for each in classes for place in _of_class(each)]
    seen: set[tuple[int, str]] = set()
    for namespace, name in (*places, *_of_functions(functions)):
        if (id(namespace), name) not in seen and name in namespace:
            seen.add((id(namespace), name))
            yield namespace, name


def _of_class(each: type) -> tuple[Binding, ...]:
    if each not in _of_classes:
        bases = [base for base in each.__mro__ if not _is_of_framework(base)]
        _of_classes[each] = tuple(place for base in bases for place in _of_base(base))
    return _of_classes[each]


def _of_base(base: type) -> Iterator[Binding]:
    attributes = list(vars(base).items())
    functions = [f for _, value in attributes if (f := function_of(value)) is not None]
    values = [name for name, value in attributes if function_of(value) is None]
    places = [(vars(base), name) for name in values if not name.startswith("__")]
    is_installed = any(is_of_package(e.__code__.co_filename) for e in functions)
    yield from filter(_holds_generator, places) if is_installed else places
    yield from _of_functions(functions)


def _of_functions(functions: Iterable[types.FunctionType]) -> tuple[Binding, ...]:
    """Returns where the globals lie that functions use, those of their helpers among them."""
    places: list[Binding] = []
    waiting = list(functions)
    known = {f.__code__ for f in waiting}
    while waiting:
        function = waiting.pop(0)
        found = () if _is_of_framework(function) else tuple(globals_of(function))
        if is_of_package(function.__code__.co_filename):
            # A library's loggers, caches and settings are none of the user's objects.
            places += filter(_holds_generator, found)
            continue
        for space, name in found:
            value = space.get(name)
            if not isinstance(value, types.FunctionType):
                places.append((space, name))
            elif value.__code__ not in known and len(known) < _HELPERS_MAX:
                known.add(value.__code__)
                waiting.append(value)
    return tuple(places)


def globals_of(function: types.FunctionType) -> Iterator[Binding]:
    """Yields where the globals lie that a function reads, those of modules of the user's too."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        for name in _global_names(code):
            value = function.__globals__.get(name)
            if not isinstance(value, types.ModuleType):
                yield function.__globals__, name
            elif not _is_of_framework(value):
                # Which of its names are used is not told apart: any that the code mentions.
                yield from ((vars(value), each) for each in code.co_names if each in vars(value))


@functools.lru_cache(maxsize=1024)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Returns the globals that a code reads, but not those within it; reading it takes 0.5 ms."""
    read = (each for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL")
    return tuple(dict.fromkeys(each.argval for each in read))


def set_by_function(function: types.FunctionType) -> Iterator[tuple[object, str]]:
    """Yields what a function names and gives attributes, made by then or not, and these."""
    codes = [function.__code__]
    closure = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    while codes:
        code = codes.pop()
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        for owner, name in _attributes_set(code):
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                named = closure[owner].cell_contents if owner in closure else None
                yield function.__globals__.get(owner) if named is None else named, name


def set_by_methods(kind: type) -> Iterator[str]:
    """Yields the attributes that methods of a class give to others than what they are called of."""
    for base in kind.__mro__:
        for method in list(vars(base).values()):
            function = None if _is_of_framework(base) else function_of(method)
            if function is not None:
                own = None if isinstance(method, classmethod) else function.__code__.co_varnames[:1]
                pairs = _attributes_set(function.__code__)
                yield from (name for owner, name in pairs if own is None or owner not in own)


@functools.lru_cache(maxsize=1024)
def _attributes_set(code: types.CodeType) -> tuple[tuple[str, str], ...]:
    """Returns the attributes that a code sets, each behind the name that is read right before."""
    pairs = itertools.pairwise(dis.get_instructions(code))
    found = ((str(a.argval), b.argval) for a, b in pairs if b.opname == "STORE_ATTR")
    return tuple(dict.fromkeys(found))


def function_of(value: object) -> types.FunctionType | None:
    """Returns what a method, class method or property runs; None for any other attribute."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property | functools.partialmethod):
        value = value.func
    return value if isinstance(value, types.FunctionType) else None


def _is_of_framework(value: type | types.FunctionType | types.ModuleType) -> bool:
    module = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return str(module).partition(".")[0] in _FRAMEWORKS


def _holds_generator(place: Binding) -> bool:
    namespace, name = place
    kinds = type(namespace.get(name)).__mro__
    return any(kind.__name__ in _GENERATORS for kind in kinds)
