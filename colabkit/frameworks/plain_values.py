"""Plain values: numbers, words, arrays, and containers of these, told apart and put back."""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import enum
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import (
    at_place,
    can_be_found,
    fields_of,
    is_known_factory,
    missing,
    numbers_in,
    place_of,
)
from colabkit.frameworks.users_own import attributes_of, is_of_users_class, set_attribute
from colabkit.storage import hash_of

OPEN = (argparse.Namespace, collections.UserDict, collections.UserList, types.SimpleNamespace)
"""Python's own classes whose objects are no more than their attributes."""
_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None)})
_ORDERED = frozenset({list, tuple, collections.deque})
_MAPPINGS = frozenset({dict, collections.OrderedDict, collections.Counter, collections.defaultdict})
_SETS = frozenset({set, frozenset})
# What containers of the user's own classes are made of, and whose methods fill them.
_BASES: tuple[Any, ...] = (collections.OrderedDict, dict, list, set, collections.deque)
_DEPTH_MAX, _ITEMS_MAX = 8, 200_000
_OF_ANY_OBJECT: tuple[Any, ...] = (
    object.__new__,
    object.__reduce__,
    object.__reduce_ex__,
    getattr(object, "__getstate__", None),
)
# Stands in checkpoints, with its state, for a generator.
_GENERATOR = "colabkit: random generator"
_REMOVED = "colabkit: removed"
# Stands in checkpoints, with what it holds, for a container of the user's own class.
_CONTENTS = "colabkit: contents"
# Stands in checkpoints, with its class, for an object whose attributes are kept each by itself;
# without one, for an object of the run, which it knows.
_OBJECT = "colabkit: object"
# Stands in checkpoints for an attribute that training has taken away.
REMOVED = (_REMOVED, None)


class PlainValues:
    """What a checkpoint can hold of attributes; a framework adds its tensors.

    Attributes:
        of_run: Objects of the run, by identity, which it saves by another way.
        apart: Others, likewise, whose attributes are kept each by itself, as of the last look.
    """

    def __init__(self) -> None:
        self.of_run: Mapping[int, Any] = {}
        self.apart: Mapping[int, Any] = {}

    def mark(self, value: Any, depth: int = 0) -> Any:
        """Returns what differs once a value has changed, None for a value that is not plain."""
        kind = type(value)
        if kind in _ATOMS:
            return kind, repr(value)  # 0.0 and -0.0 are equal
        if isinstance(value, np.ndarray | np.generic):
            is_plain = value.dtype.kind in "biufc" and value.dtype.isnative
            return (kind, value.shape, value.dtype, hash_of(_bytes_of(value))) if is_plain else None
        if id(value) in self.apart or id(value) in self.of_run:
            return kind, id(value)
        if depth == 0 and (mark := self._mark_in_place(value)) is not None:
            return mark
        return None if depth > _DEPTH_MAX else self._mark_of_parts(value, kind, depth)

    def _mark_of_parts(self, value: Any, kind: type, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return (kind, value.name) if can_be_found(kind) else None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            held = fields_of(value)
            return None if held is None else self._marks(kind, [*held.values()], depth)
        if kind in _SETS:
            return (kind, frozenset(value)) if _are_frozen(value) else None
        if kind in _MAPPINGS and is_known_factory(getattr(value, "default_factory", None)):
            return self._marks(kind, [*value, *value.values()], depth)
        if kind in _ORDERED or (isinstance(value, tuple) and hasattr(value, "_fields")):
            return self._marks(kind, list(value), depth)
        return None

    def _mark_in_place(self, value: Any) -> Any:
        """Returns the mark of what only the same code makes, and is put back into."""
        if base_of(value) is not None:
            return self._marks(type(value), [_items_of(value), dict(attributes_of(value))], 0)
        state = self.generator_state(value)
        return None if state is None else (type(value), self.mark(state, 1))

    def _marks(self, kind: type, parts: list[Any], depth: int) -> Any:
        if (numbers := numbers_in(parts)) is not None:
            return kind, numbers.dtype, len(parts), hash_of(_bytes_of(numbers))
        if len(parts) > _ITEMS_MAX:
            return None
        if _are_atoms(parts):
            return kind, [*map(type, parts)], parts
        marks = [self.mark(part, depth + 1) for part in parts]
        return None if None in marks else (kind, marks)

    def generator_state(self, value: Any) -> Any:
        """Returns where a random generator is, where these values keep any; else None."""
        del value

    def restored_generator(self, generator: Any, state: Any) -> Any:
        """Returns one that is there: the one that stands in its place, where it can be."""
        del state
        return generator

    def place_of(self, owner: Any) -> Any:
        """Returns where tensors belong that an object keeps, None where nothing says so."""
        del owner

    def may_be_replaced(self, owner: Any, name: str, there: Any) -> bool:
        """Whether what stands under a name now is a plain attribute."""
        del owner, name, there
        return True

    def is_saved_elsewhere(self, value: Any) -> bool:
        """Whether what is not plain is in every checkpoint by another way."""
        del value
        return False

    def is_open(self, value: Any) -> bool:
        """Whether a library's object is no more than its attributes, which users change."""
        return isinstance(value, OPEN)

    def is_whole(self, value: Any) -> bool:
        """Whether a value is more than the attributes it has."""
        del value
        return False

    def detached(self, value: Any) -> Any:
        """Returns what goes into the checkpoint for a value."""
        if base_of(value) is not None:
            held = [_items_of(value), dict(attributes_of(value))]
            return _CONTENTS, [*map(self.detached, held), _way_to_make(value)]
        state = self.generator_state(value)
        return self._signed(value) if state is None else (_GENERATOR, state)

    def _signed(self, value: Any) -> Any:
        """Returns a value with signs for the objects in it that are kept by themselves."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if id(value) in self.of_run:
            return _OBJECT, None
        if id(value) in self.apart:
            return sign_of(value)
        is_mapping, is_tuple = kind in _MAPPINGS, isinstance(value, tuple)
        if not (is_mapping or is_tuple or kind in _ORDERED):
            return value
        parts = list(value.values() if is_mapping else value)
        signed = parts if _are_atoms(parts) else [*map(self._signed, parts)]
        if all(one is other for one, other in zip(parts, signed, strict=True)):
            return value
        if is_tuple:
            return tuple.__new__(kind, signed)
        made = copy.copy(value)
        made.clear()
        fill = made.update if is_mapping else made.extend
        fill(dict(zip(value, signed, strict=True)) if is_mapping else signed)
        return made

    def put(self, there: Any, value: Any, near: Any = None) -> Any:
        """Returns a restored value, in the object that is there where others may hold it too.

        Args:
            there: What stands in its place now.
            value: What was restored.
            near: A place for tensors that find none there.
        """
        if any(stands_for(each, value) for each in (_GENERATOR, _CONTENTS, _OBJECT)):
            return self._put_in_place(there, value[0], value[1], near)
        if isinstance(value, np.ndarray):
            if _fits(there, value) and there.flags.writeable:
                there[...] = value
                return there
            return value.copy()
        if isinstance(value, list | collections.deque):
            return self._put_items(there, value, near)
        if type(value) in _MAPPINGS:
            own = there if type(there) is type(value) else {}
            parts = {key: self.put(own.get(key), each, near) for key, each in value.items()}
            target = there if type(there) is type(value) else value
            target.clear()
            # A mapping, since a Counter would count pairs.
            target.update(parts)
            return target
        if type(value) is set:
            items = set(value)
            target = there if type(there) is set else value
            target.clear()
            target.update(items)
            return target
        if dataclasses.is_dataclass(value):
            for name in [field.name for field in dataclasses.fields(value)]:
                object.__setattr__(value, name, self.put(None, getattr(value, name), near))
        if isinstance(value, tuple):
            return self._put_tuple(there, value, near)
        return value

    def _put_in_place(self, there: Any, sign: str, held: Any, near: Any) -> Any:
        if sign == _OBJECT:
            return _object_at(held, there)
        if sign == _GENERATOR:
            return self.restored_generator(there, held)
        items, attributes, *ways = held
        there = _made_so(*ways) if base_of(there) is None and ways else there
        if (base := base_of(there)) is None:
            return self.put(None, items, near)
        parts = self.put(_items_of(there), items, near)
        base.clear(there)
        fill = base.extend if hasattr(base, "extend") else base.update
        fill(there, parts)
        own = attributes_of(there)
        for name, each in attributes.items():
            set_attribute(there, name, self.put(own.get(name), each, near))
        return there

    def _put_tuple(self, there: Any, value: Any, near: Any) -> Any:
        is_alike = type(there) is type(value) and len(there) == len(value)
        own = there if is_alike else [None] * len(value)
        # What others may hold too are the objects in it, which are filled.
        own = (o if stands_for(_OBJECT, e) else None for o, e in zip(own, value, strict=True))
        parts = (self.put(o, e, near) for o, e in zip(own, value, strict=True))
        return tuple.__new__(type(value), parts)

    def _put_items(self, there: Any, value: Any, near: Any) -> Any:
        is_alike = type(there) is type(value)
        kept = list(there) if is_alike else []
        kept += [None] * (len(value) - len(kept))
        items = [self.put(own, each, near) for own, each in zip(kept, value, strict=False)]
        target = there if is_alike and _room(there) == _room(value) else value
        target.clear()
        target.extend(items)
        return target


def can_be_made(value: Any) -> bool:
    """Whether another process makes an object of its kind from what attributes it has alone."""
    kind: Any = type(value)
    if not can_be_found(kind):
        return False
    if kind in OPEN:
        return True
    own = (kind.__new__, kind.__reduce__, kind.__reduce_ex__, getattr(kind, "__getstate__", None))
    if own != _OF_ANY_OBJECT or hasattr(kind, "__setstate__"):
        return False
    return all(map(is_of_users_class, kind.__mro__[:-1]))


def sign_of(value: Any) -> Any:
    """Returns what goes into a checkpoint for an object whose attributes are kept one by one."""
    return _OBJECT, place_of(type(value))


def _object_at(place: Any, there: Any) -> Any:
    """Returns an object of a class, whose attributes are put later: the one there, if it is one."""
    if place is None:
        return there
    kind: Any = at_place(place)
    if kind is None:
        raise missing({"class": place})
    return there if type(there) is kind else kind.__new__(kind)


def base_of(value: Any) -> Any:
    """Returns what a container of the user's own class is made of, None for any other value.

    So is one whose missing items are made by a function of the user's.
    """
    if type(value) is collections.defaultdict:
        return None if is_known_factory(value.default_factory) else dict
    if isinstance(value, _BASES) and is_of_users_class(type(value)):
        return next(base for base in _BASES if isinstance(value, base))
    return None


def is_unmakeable(value: Any) -> bool:
    """Whether it is a container that the next session could not make, but fill."""
    return base_of(value) is not None and _way_to_make(value) is None


def _way_to_make(value: Any) -> list[Any] | None:
    """Returns the classes by which a container of the user's own is made, None of any other."""
    kinds: list[Any] = [type(value)]
    if isinstance(value, collections.defaultdict) and value.default_factory is not None:
        kinds.append(value.default_factory)
    is_known = all(hasattr(kind, "__qualname__") and can_be_found(kind) for kind in kinds)
    return [*map(place_of, kinds)] if is_known else None


def _made_so(way: Sequence[Any] | None) -> Any:
    kinds = [*map(at_place, way or ())]
    if not kinds or None in kinds:
        return None
    made = kinds[0].__new__(kinds[0])
    if len(kinds) > 1:
        made.default_factory = kinds[1]
    return made


def _items_of(value: Any) -> Any:
    """Returns them in a container of Python's own."""
    base = base_of(value)
    if issubclass(base, dict):
        return dict(base.items(value))
    return (set if base is set else list)(base.__iter__(value))


def stands_for(what: str, value: Any) -> bool:
    """Whether a restored value is but a sign with something to go by."""
    is_pair = type(value) is tuple and len(value) == 2
    return is_pair and type(value[0]) is str and value[0] == what


def is_removed(value: Any) -> bool:
    """Whether what is restored is but the sign for an attribute that was taken away."""
    return stands_for(_REMOVED, value)


def _room(value: Any) -> int | None:
    return getattr(value, "maxlen", None)


def _fits(there: Any, value: np.ndarray[Any, Any]) -> bool:
    is_array = isinstance(there, np.ndarray)
    return is_array and (there.shape, there.dtype) == (value.shape, value.dtype)


def _are_atoms(parts: Any) -> bool:
    return set(map(type, parts)) <= _ATOMS


def _are_frozen(parts: Any) -> bool:
    """Whether all are atoms, or tuples of these."""
    inner = [each for each in parts if type(each) not in _ATOMS]
    return all(type(each) is tuple and _are_frozen(each) for each in inner)


def _bytes_of(value: Any) -> Any:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8) if value.size else b""
