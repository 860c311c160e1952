"""Finds the random generators that users keep in their own objects."""

from __future__ import annotations

import collections
import functools
import itertools
import random
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from colabkit.frameworks.named_in_code import values_named_by
from colabkit.frameworks.users_own import attributes_of

_DEPTH_MAX = 5
# Transforms lie in lists of transforms in transforms: so deep, and among so many objects, a
# generator of a dataset is looked for. Where there are more, only near the top.
_DEPTH_IN_DATA, _OBJECTS_IN_DATA = 24, 4000
_ITEMS_MAX = 64
_KINDS = (random.Random, np.random.Generator, np.random.RandomState)
# Those behind the functions of random and numpy.random, which every run seeds itself.
_GLOBAL = (getattr(random, "_inst", None), getattr(np.random.mtrand, "_rand", None))
# A class attribute or a global that code names may be anything: a whole model, say.
_DEPTH_OF_NAMED, _OBJECTS_OF_NAMED, _NAMED_IN_NAMED = 4, 1000, 3
_LEAVES = (str, bytes, int, float, bool, type(None), np.ndarray, types.ModuleType, type)
# Most of what there is, with empty containers: a framework's generator class is slow to ask.
_PLAIN = frozenset(_LEAVES)
_CONTAINERS = frozenset({dict, collections.OrderedDict, list, tuple, set, frozenset})


def find_generators(root: object, kinds: tuple[type, ...]) -> list[object]:
    """Returns the generators reachable from an object's attributes.

    Args:
        root: A dataset, collate function, callback, model or transform.
        kinds: The framework's own generator classes, besides random's and NumPy's.

    Returns:
        Each generator once, in the order of attributes; then those that the code of the objects
        names, as attributes of classes and as globals.
    """
    found, _ = _search(root, kinds, depth_max=_DEPTH_MAX)
    return found


def find_generators_in_data(root: object, kinds: tuple[type, ...]) -> list[object]:
    """Returns the generators of a dataset or collate function, those of nested transforms too.

    Args:
        root: It.
        kinds: The framework's own generator classes, besides random's and NumPy's.

    Returns:
        Each generator once, in the order of attributes.
    """
    found, is_whole = _search(root, kinds, depth_max=_DEPTH_IN_DATA, objects_max=_OBJECTS_IN_DATA)
    return found if is_whole else find_generators(root, kinds)


def _search(
    root: object, kinds: tuple[type, ...], *, depth_max: int, objects_max: int | None = None
) -> tuple[list[object], bool]:
    """Returns the generators found, and whether all objects were looked at."""
    wanted = (*_KINDS, *kinds)
    found: dict[int, object] = {}
    seen: set[int] = set()
    classes: dict[type, None] = {}
    functions: list[types.FunctionType] = []

    def visit(value: object, depth: int, most: int | None) -> None:
        if isinstance(value, wanted):
            if not any(value is each for each in _GLOBAL):
                found[id(value)] = value
        elif depth < depth_max and not isinstance(value, _LEAVES) and id(value) not in seen:
            if most is not None and len(seen) >= most:
                return
            seen.add(id(value))
            if isinstance(value, types.FunctionType):
                functions.append(value)
            else:
                classes[type(value)] = None
            for child in itertools.filterfalse(_holds_nothing, _children(value)):
                visit(child, depth + 1, most)

    visit(root, 0, objects_max)
    is_whole = objects_max is None or len(seen) < objects_max
    near, most = depth_max - _DEPTH_OF_NAMED, len(seen) + _OBJECTS_OF_NAMED
    for _ in range(_NAMED_IN_NAMED):
        named = list(values_named_by(classes, functions))
        classes.clear()
        functions.clear()
        for value in named:
            visit(value, near, most)
    return list(found.values()), is_whole


def _holds_nothing(value: object) -> bool:
    kind = type(value)
    return kind in _PLAIN or (kind in _CONTAINERS and not value)


def _children(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from list(value.values())[:_ITEMS_MAX]
    elif isinstance(value, list | tuple | set | frozenset):
        yield from list(value)[:_ITEMS_MAX]
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, types.FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        yield from (value.__defaults__ or ())
    else:
        # Another thread may give an object more of them meanwhile.
        yield from list(attributes_of(value).values())


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # reading is the only way to ask
    except ValueError:
        return False
    return True


def reseed(generator: object, seed: int) -> None:
    """Puts a generator of random or NumPy into the state a seed names."""
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(seed).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed & 0xFFFFFFFF)
    elif isinstance(generator, random.Random):
        generator.seed(seed)


def generator_state(generator: object) -> object:
    """Returns a generator's state as plain values and arrays; None where it has none."""
    if is_unseedable(generator):
        return None
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, random.Random):
        return generator.getstate()
    message = f"not a generator: {type(generator).__name__}"
    raise TypeError(message)


def restore_generator(generator: object, state: Any) -> None:
    """Restores what ``generator_state`` gave."""
    if state is None:
        return
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)


def is_own_generator(value: object) -> bool:
    """Whether it is a generator of random or NumPy, and a user's own, which can be replayed."""
    is_global = any(value is each for each in _GLOBAL)
    return isinstance(value, _KINDS) and not (is_global or is_unseedable(value))


def is_unseedable(generator: object) -> bool:
    """Whether a generator draws from the operating system and cannot be replayed."""
    return isinstance(generator, random.SystemRandom)
