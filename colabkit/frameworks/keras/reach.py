"""What code of the user's own reaches: the variables, generators and plain values it works with."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import random
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from colabkit.frameworks.keras.randomness import generator_kinds
from colabkit.frameworks.keras.variables import variable_kinds
from colabkit.frameworks.plain_values import OPEN, base_of
from colabkit.frameworks.users_own import (
    attributes_of,
    carries_attributes,
    is_of_users_class,
    is_users_module,
    package_of,
    set_attribute,
)

_DEPTH_MAX, _OBJECTS_MAX, _ITEMS_MAX = 8, 20_000, 256
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
_LEAVES = (bool, int, float, complex, str, bytes, type(None), np.ndarray, np.generic)
_HOLDERS = (list, tuple, set, frozenset, deque)
_OF_ANY_CALLBACK = frozenset({"model", "_model", "params", "validation_data"})


class Slot(NamedTuple):
    """A place that holds a value, and the way to it.

    Attributes:
        path: What one would write to get there.
        value: What is there now.
        put: Puts another value there.
        place: By what it is known, whichever way leads there.
    """

    path: str
    value: Any
    put: Callable[[Any], None]
    place: tuple[int, Any]


def slots_within(roots: Mapping[str, Any]) -> Iterator[Slot]:
    """Yields every place that is reached from objects by attributes, closures and names in code.

    What belongs to libraries is entered only where it may hold something of the user's.
    """
    seen: set[int] = set()
    paths: dict[str, int] = {}
    waiting = deque((Slot(path, root, _refuse, (0, path)), 0) for path, root in roots.items())
    while waiting and len(seen) < _OBJECTS_MAX:
        slot, depth = waiting.popleft()
        paths[slot.path] = number = paths.get(slot.path, 0) + 1
        yield slot if number == 1 else slot._replace(path=f"{slot.path}~{number}")
        if id(slot.value) in seen or depth >= _DEPTH_MAX:
            continue
        if not isinstance(slot.value, _LEAVES):
            seen.add(id(slot.value))
            waiting.extend((each, depth + 1) for each in _inside(slot))


def variables_within(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables that are reached, by their path, and those of layers and generators."""
    found: dict[int, tuple[str, Any]] = {}
    for path, value, *_ in slots_within(roots):
        for name, variable in _variables_of(value):
            found.setdefault(id(variable), (f"{path}{name}", variable))
    return dict(found.values())


def generators_within(roots: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the generators of Python and NumPy, and of PyTorch, that are reached, by path."""
    kinds = (*_GENERATORS, *(k for k in generator_kinds() if k.__module__.startswith("torch")))
    found: dict[int, tuple[str, Any]] = {}
    for path, value, *_ in slots_within(roots):
        if isinstance(value, kinds):
            found.setdefault(id(value), (path, value))
    return dict(found.values())


def has_foreign_code(roots: Mapping[str, Any]) -> bool:
    """Whether a function or an object is reached that is not of Keras itself."""
    return any(_is_foreign(value) for _, value, *_ in slots_within(roots))


def _fixed(path: str, value: Any) -> Slot:
    """A part that nothing else can take the place of."""
    return Slot(path, value, _refuse, (id(value), None))


def _refuse(_: Any) -> None:
    """Leaves what is there."""


def _inside(slot: Slot) -> Iterator[Slot]:
    path, value = slot.path, slot.value
    if isinstance(value, (*_HOLDERS, Mapping)) and not _is_by_attributes(value):
        yield from _in_container(path, value)
        if base_of(value) is not None:
            yield from _in_object(path, value)
    elif isinstance(value, functools.partial):
        yield _fixed(path, value.func)
        yield _fixed(f"{path}.args", (value.args, value.keywords))
    elif isinstance(value, types.MethodType):
        yield _fixed(path, value.__self__)
        yield _fixed(path, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _in_function(value)
    elif isinstance(value, type):
        yield from _in_class(value)
    elif carries_attributes(value) and not isinstance(value, types.ModuleType):
        yield from _in_object(path, value)


def _is_by_attributes(value: Any) -> bool:
    """Whether what holds items is no more than its attributes."""
    if isinstance(value, (dict, *_HOLDERS)):
        return False
    return isinstance(value, OPEN) or is_of_users_class(type(value))


def _in_container(path: str, value: Any) -> Iterator[Slot]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, each in itertools.islice(list(pairs), _ITEMS_MAX):
        put = functools.partial(_put_item, value, key)
        yield Slot(f"{path}[{key!r}]", each, put, (id(value), key))


def _put_item(container: Any, key: Any, value: Any) -> None:
    if hasattr(container, "__setitem__"):
        container[key] = value


def _in_function(function: types.FunctionType) -> Iterator[Slot]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # not filled yet
        put = functools.partial(setattr, cell, "cell_contents")
        yield Slot(name, value, put, (id(cell), ""))
    yield _fixed(function.__name__, function.__defaults__ or ())
    yield _fixed(function.__name__, function.__kwdefaults__ or {})
    if hasattr(function, "__wrapped__"):
        yield _fixed(function.__name__, function.__wrapped__)
    if function.__module__ is not None and is_users_module(function.__module__):
        for name, value in list(vars(function).items()):
            put = functools.partial(setattr, function, name)
            yield Slot(f"{function.__name__}.{name}", value, put, (id(function), name))
        yield from _named_in_code(function)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _named_in_code(function: types.FunctionType) -> Iterator[Slot]:
    names = list(dict.fromkeys(_names_in(function.__code__)))
    known = function.__globals__
    for name in [name for name in names if name in known]:
        value = known[name]
        if not isinstance(value, types.ModuleType):
            put = functools.partial(known.__setitem__, name)
            yield Slot(name, value, put, (id(known), name))
        elif is_users_module(value.__name__):
            for inner in [each for each in names if each in vars(value)]:
                put = functools.partial(setattr, value, inner)
                found = getattr(value, inner)
                yield Slot(f"{name}.{inner}", found, put, (id(vars(value)), inner))


def _in_class(kind: type) -> Iterator[Slot]:
    if not is_of_users_class(kind):
        return
    for base in kind.__mro__:
        if is_of_users_class(base):
            for name, value in list(vars(base).items()):
                if not name.startswith("__"):
                    inner = getattr(value, "__func__", getattr(value, "fget", value))
                    put = _refuse if inner is not value else functools.partial(setattr, base, name)
                    yield Slot(f"{kind.__name__}.{name}", inner, put, (id(base), name))


def _in_object(path: str, value: Any) -> Iterator[Slot]:
    kind = type(value)
    is_own = is_of_users_class(kind) or isinstance(value, OPEN)
    if is_of_users_class(kind):
        yield _fixed(path, kind)
    is_layer = isinstance(value, keras.layers.Layer)
    is_callback = isinstance(value, keras.callbacks.Callback)
    if not is_entered(value):
        return
    left_out = _of_any_model() if is_layer else _OF_ANY_CALLBACK
    # Numbers of Keras' own losses and metrics are its bookkeeping; those of a callback go on.
    is_inner = not (is_own or is_layer or is_callback)
    is_open = is_own or is_callback
    for name, each in list(attributes_of(value).items()):
        if name in left_out or (name.startswith("_") and not is_open and name not in _COMPILED):
            continue
        is_plain = isinstance(each, (*_LEAVES, *_HOLDERS)) or keras.ops.is_tensor(each)
        if is_inner and is_plain and name not in _COMPILED:
            continue
        put = functools.partial(set_attribute, value, name)
        yield Slot(f"{path}.{name}", each, put, (id(value), name))


def is_entered(value: Any) -> bool:
    """Whether the attributes of an object are looked at."""
    if isinstance(value, (type, types.ModuleType)) or not carries_attributes(value):
        return False
    is_open = is_of_users_class(type(value)) or isinstance(value, OPEN)
    return is_open or isinstance(value, keras.callbacks.Callback) or _is_keras(value)


@functools.cache
def _of_any_model() -> frozenset[str]:
    """Returns the attributes that Keras itself gives to models and layers."""
    parts = [part for base in keras.Model.__mro__ for part in vars(base).values()]
    parts += [p.fset for p in parts if isinstance(p, property)]
    functions = [inspect.unwrap(p) for p in parts if isinstance(p, types.FunctionType)]
    stored = {name for function in functions for name in _stored_in(function.__code__)}
    return frozenset(stored | {"history", "stop_training"})


def _stored_in(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_ATTR":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _stored_in(constant)


# What keeps a model's own losses, metrics and weights of losses, once it is compiled.
_COMPILED = frozenset(
    {
        "_compile_loss", "_compile_metrics", "_fn", "_user_loss", "_user_loss_weights",
        "_user_metrics", "_user_weighted_metrics",
    }
)  # fmt: skip


def _is_keras(value: object) -> bool:
    return package_of(type(value)) == "keras"


def _is_foreign(value: Any) -> bool:
    if isinstance(value, types.FunctionType):
        return not str(value.__module__).startswith("keras.")
    return carries_attributes(value) and is_of_users_class(type(value))


def _variables_of(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, variable_kinds()):
        yield "", value
    elif isinstance(value, keras.random.SeedGenerator):
        yield ".state", value.state
    elif isinstance(value, (keras.layers.Layer, keras.metrics.Metric, keras.optimizers.Optimizer)):
        yield from ((f".variables[{n}]", each) for n, each in enumerate(value.variables))
    elif type(value) in generator_kinds() and isinstance(
        getattr(value, "state", None), variable_kinds()
    ):
        yield ".state", value.state
