"""Finds the random generators that users keep in their own objects."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import random
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.frameworks.named_in_code import bindings_named_by
from colabkit.frameworks.users_own import attributes_of, is_of_users_class

_DEPTH_MAX = 5
# Transforms lie in lists of transforms in transforms: so deep, and among so many objects, a
# generator of a dataset is looked for. Where there are more, only near the top.
_DEPTH_IN_DATA, _OBJECTS_IN_DATA = 24, 4000
_ITEMS_MAX = 64
# One of a sample each: where some items of a container hold generators, so many are looked at.
ITEMS_WITH_GENERATORS_MAX = 2048
_PROBES = 16
_ITEMS_OF_STRUCTURE = 16
_KINDS = (random.Random, np.random.Generator, np.random.RandomState)
# Those behind the functions of random and numpy.random, which every run seeds itself.
_GLOBAL = (getattr(random, "_inst", None), getattr(np.random.mtrand, "_rand", None))
# A class attribute or a global that code names may be anything: a whole model, say.
_DEPTH_OF_NAMED, _OBJECTS_OF_NAMED, _NAMED_IN_NAMED = 4, 1000, 3
_LEAVES = (str, bytes, int, float, bool, type(None), np.ndarray, types.ModuleType, type)
# Most of what there is, with empty containers: a framework's generator class is slow to ask.
_PLAIN = frozenset(_LEAVES)
# Another kind of iterable may read files, or draw, to say what it holds.
_PLAINLY_READ = frozenset(each.__iter__ for each in (dict, collections.OrderedDict, list, set))
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
    return list(Search(root, kinds, depth_max=_DEPTH_MAX).found.values())


def find_generators_in_data(root: object, kinds: tuple[type, ...]) -> list[object]:
    """Returns the generators of a dataset or collate function, those of nested transforms too.

    Args:
        root: It.
        kinds: The framework's own generator classes, besides random's and NumPy's.

    Returns:
        Each generator once, in the order of attributes.
    """
    return list(search_in_data(root, kinds).found.values())


def search_in_data(root: object, kinds: tuple[type, ...]) -> WatchingSearch:
    """Returns what a search through a dataset or collate function has found."""
    search = WatchingSearch(root, kinds, depth_max=_DEPTH_IN_DATA, objects_max=_OBJECTS_IN_DATA)
    return search if search.is_whole else WatchingSearch(root, kinds, depth_max=_DEPTH_MAX)


class Search:
    """A search for generators.

    Attributes:
        found: Each generator once, by the way that leads to it.
        is_whole: Whether all objects were looked at.
    """

    def __init__(
        self,
        root: object,
        kinds: tuple[type, ...],
        *,
        depth_max: int,
        objects_max: int | None = None,
    ) -> None:
        self.found: dict[str, object] = {}
        self._wanted, self._depth_max = (*_KINDS, *kinds), depth_max
        self._known = set(map(id, _GLOBAL))
        self._seen: dict[int, object] = {}
        self._classes: dict[type, None] = {}
        self._functions: list[types.FunctionType] = []
        self._visit(root, "", 0, objects_max)
        self.is_whole = objects_max is None or len(self._seen) < objects_max
        near, most = depth_max - _DEPTH_OF_NAMED, len(self._seen) + _OBJECTS_OF_NAMED
        for _ in range(_NAMED_IN_NAMED):
            named = list(bindings_named_by(self._classes, self._functions))
            self._classes.clear()
            self._functions.clear()
            for namespace, name in named:
                self._enter_named(namespace, name, near, most)

    def _visit(self, value: object, way: str, depth: int, most: int | None) -> None:
        if isinstance(value, self._wanted):
            if id(value) not in self._known:
                self._known.add(id(value))
                self.found[way if way not in self.found else f"{way}+{len(self.found)}"] = value
        elif depth < self._depth_max and not isinstance(value, _LEAVES):
            if id(value) in self._seen or (most is not None and len(self._seen) >= most):
                return
            self._seen[id(value)] = value
            if isinstance(value, types.FunctionType):
                self._functions.append(value)
            else:
                self._classes[type(value)] = None
            self._enter(value, way, depth, most)

    def _enter(self, value: object, way: str, depth: int, most: int | None) -> None:
        found, children = len(self.found), _reader_of(value)(value)
        self._visit_all(value, children, way, depth, most)
        if _is_long(value, children):
            self._visit_probes(value, way, depth, most)
            if len(self.found) > found:
                self._visit_all(value, _most_items(value), way, depth, most)

    def _visit_all(
        self, value: object, children: list[object], way: str, depth: int, most: int | None
    ) -> None:
        for name, child in zip(_names_in(value, len(children)), children, strict=True):
            self._visit_child(child, f"{way}.{name}", depth, most)

    def _visit_child(self, child: object, way: str, depth: int, most: int | None) -> None:
        if not _holds_nothing(child):
            self._visit(child, way, depth + 1, most)

    def _visit_probes(self, value: Any, way: str, depth: int, most: int | None) -> None:
        """Looks at some items of a long container beyond the first."""
        for name, child in _probes_in(value):
            self._visit_child(child, f"{way}.{name}", depth, most)

    def _enter_named(
        self, namespace: Mapping[str, object], name: str, depth: int, most: int
    ) -> None:
        self._visit(namespace[name], f":{name}", depth, most)


@dataclasses.dataclass(slots=True)
class Holder:
    """An object that a generator may come into, with what it held, and what within it may."""

    value: Any
    read: Callable[[Any], list[object]]
    held: list[object]
    within: list[Holder] = dataclasses.field(default_factory=list)


class WatchingSearch(Search):
    """A search that also finds where generators may come.

    Attributes:
        holders: What more may come into.
        leaves_some: Whether a container of generators was too long to look at all of it.
    """

    def __init__(
        self,
        root: object,
        kinds: tuple[type, ...],
        *,
        depth_max: int,
        objects_max: int | None = None,
    ) -> None:
        self.holders: list[Holder] = []
        self._within = self.holders
        self.leaves_some = False
        self._are_rows = False
        super().__init__(root, kinds, depth_max=depth_max, objects_max=objects_max)

    def _enter(self, value: Any, way: str, depth: int, most: int | None) -> None:
        read = _reader_of(value)
        children = read(value)
        holder = Holder(value, read, children)
        around, self._within = self._within, holder.within
        is_row, self._are_rows = self._are_rows, _are_rows(value, children, self._are_rows)
        found: int = len(self.found)
        self._visit_all(value, children, way, depth, most)
        if _is_long(value, children):
            self._visit_probes(value, way, depth, most)
        if len(self.found) > found and read in _OF_ITEMS:
            holder.read, holder.held = _most_items, _most_items(value)
            if _is_long(value, children):
                self._visit_all(value, holder.held, way, depth, most)
            # Where a few are found among so many, as in a transform that all share, they are all.
            are_many = len(self.found) - found > _PROBES
            self.leaves_some |= are_many and len(value) > ITEMS_WITH_GENERATORS_MAX
        self._within, self._are_rows = around, is_row
        if holder.within or (
            not (is_row and type(value) in _CONTAINERS) and _may_come_to_hold_more(value)
        ):
            self._within.append(holder)

    def _visit_child(self, child: object, way: str, depth: int, most: int | None) -> None:
        if not _holds_nothing(child):
            self._visit(child, way, depth + 1, most)
        elif not self._are_rows and _may_come_to_hold_more(child):
            self._within.append(Holder(child, _reader_of(child), []))

    def _enter_named(
        self, namespace: Mapping[str, object], name: str, depth: int, most: int
    ) -> None:
        value, self._within = namespace[name], []
        self._visit(value, f":{name}", depth, most)
        read = functools.partial(_named, name=name)
        self.holders.append(Holder(namespace, read, [value], self._within))


def _are_rows(value: object, children: Sequence[object], is_row: bool) -> bool:
    """Whether what a container holds is data: so many lists, or lists in lists, hold no objects."""
    return type(value) in _CONTAINERS and (is_row or len(children) > _ITEMS_OF_STRUCTURE)


def may_hold_generator(value: object) -> bool:
    """Whether a value is none of those that hold nothing, such as numbers, words and arrays."""
    return type(value) not in _PLAIN


def _may_come_to_hold_more(value: object) -> bool:
    read = _reader_of(value)
    if read is _of_attributes:
        kind = type(value)
        return kind not in _PLAIN and (is_of_users_class(kind) or bool(attributes_of(value)))
    if isinstance(value, types.FunctionType):
        return value.__closure__ is not None
    return isinstance(value, Iterable) and type(value).__iter__ in _PLAINLY_READ


def _holds_nothing(value: object) -> bool:
    kind = type(value)
    return kind in _PLAIN or (kind in _CONTAINERS and not value)


def _reader_of(value: object) -> Callable[[Any], list[object]]:
    """Returns what gives the values that an object of that kind holds."""
    if isinstance(value, Mapping):
        return _of_mapping
    if isinstance(value, list | tuple | set | frozenset):
        return _of_items
    if isinstance(value, functools.partial):
        return _of_partial
    if isinstance(value, types.MethodType):
        return _of_method
    return _of_function if isinstance(value, types.FunctionType) else _of_attributes


def _is_long(value: Any, children: list[object]) -> bool:
    """Whether the children that were read are but the first items of a container."""
    if len(children) < _ITEMS_MAX or _reader_of(value) not in _OF_ITEMS:
        return False
    return len(value) > _ITEMS_MAX


def _probes_in(value: Any) -> list[tuple[object, object]]:
    """Returns items of a long container, with what they go by, at a cost that is not its length."""
    if type(value) in {list, tuple}:
        places = range(_ITEMS_MAX, len(value), max(1, (len(value) - _ITEMS_MAX) // _PROBES))
        return [(place, value[place]) for place in (*places, len(value) - 1)]
    if type(value) in {dict, collections.OrderedDict, collections.defaultdict}:
        last = itertools.islice(reversed(value.items()), _PROBES)
        return [(_name_of(key, len(value) - 1 - n), each) for n, (key, each) in enumerate(last)]
    return []


def _most_items(value: Any) -> list[object]:
    items = value.values() if isinstance(value, Mapping) else value
    return list(itertools.islice(items, ITEMS_WITH_GENERATORS_MAX))


def _of_mapping(value: Mapping[Any, object]) -> list[object]:
    return list(itertools.islice(value.values(), _ITEMS_MAX))


def _of_items(value: Collection[object]) -> list[object]:
    return list(itertools.islice(value, _ITEMS_MAX))


_OF_ITEMS: frozenset[Callable[[Any], list[object]]] = frozenset({_of_mapping, _of_items})


def _of_partial(value: functools.partial[Any]) -> list[object]:
    return [value.func, value.args, value.keywords]


def _of_method(value: types.MethodType) -> list[object]:
    return [value.__self__]


def _of_function(value: types.FunctionType) -> list[object]:
    cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    return [*cells, *(value.__defaults__ or ())]


def _of_attributes(value: object) -> list[object]:
    # Another thread may give an object more of them meanwhile.
    return list(attributes_of(value).values())


def _named(namespace: Mapping[str, object], *, name: str) -> list[object]:
    return [namespace[name]] if name in namespace else []


def _names_in(value: object, length: int) -> list[object]:
    """Returns what an object's values go by: they keep it where others come before them."""
    names: list[object] = []
    if isinstance(value, Mapping):
        keys = enumerate(itertools.islice(value, length))
        names = [_name_of(key, number) for number, key in keys]
    elif _reader_of(value) is _of_attributes:
        names = list(attributes_of(value))
    return names if len(names) == length else list(range(length))


def _name_of(key: object, number: int) -> object:
    return key if type(key) in {str, int} else f"#{number}"


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


def generator_with(state: Any, there: object = None) -> Any:
    """Returns a generator with what ``generator_state`` gave: the one there, if it is of its kind.

    Example:
        >>> there = type("Dice", (random.Random,), {})(7)
        >>> generator_with(there.getstate(), there) is there
        True
        >>> generator_with(np.random.default_rng(7).bit_generator.state, there).integers(10)
        np.int64(9)
    """
    made: Any = random.Random()  # noqa: S311
    if isinstance(state, Mapping) and "has_gauss" in state:
        made = np.random.RandomState()
    elif isinstance(state, Mapping):
        made = np.random.Generator(getattr(np.random, state["bit_generator"])())
    is_alike = isinstance(there, type(made))  # one of a class of the user's own stays
    if isinstance(there, np.random.Generator) and is_alike:
        is_alike = type(there.bit_generator) is type(made.bit_generator)
    found = there if is_alike else made
    restore_generator(found, state)
    return found


def is_own_generator(value: object) -> bool:
    """Whether it is a generator of random or NumPy, and a user's own, which can be replayed."""
    is_global = any(value is each for each in _GLOBAL)
    return isinstance(value, _KINDS) and not (is_global or is_unseedable(value))


def is_unseedable(generator: object) -> bool:
    """Whether a generator draws from the operating system and cannot be replayed."""
    return isinstance(generator, random.SystemRandom)
