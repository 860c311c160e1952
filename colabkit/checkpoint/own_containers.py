"""Dicts, lists, tuples, sets, deques and arrays of classes of the user's own."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from colabkit.checkpoint.named_classes import at_place, can_be_found, slots_of

# The nearest first: three of them are dicts.
_PLAIN = (
    collections.OrderedDict,
    collections.defaultdict,
    collections.Counter,
    dict,
    list,
    tuple,
    set,
    frozenset,
    collections.deque,
    np.ndarray,
)
_FIXED = frozenset({tuple, frozenset, np.ndarray})
_EMPTY = object()
# Kinds of arrays that are stored otherwise, or are what they hold.
_AS_THEY_ARE = (np.ma.MaskedArray, np.memmap)


@functools.lru_cache(maxsize=1024)
def plain_kind_of(kind: type) -> Any:
    """Returns of which of these a class is a kind; None where it is of none, or one of them."""
    is_known = kind in _PLAIN or hasattr(kind, "_fields") or issubclass(kind, _AS_THEY_ARE)
    if is_known or not can_be_found(kind):
        return None
    return next((each for each in _PLAIN if issubclass(kind, each)), None)


def plain_of(value: Any, plain: Any) -> Any:
    """Returns what a container holds as one of a plain kind; none of its own code is run."""
    if plain is np.ndarray:
        return value.view(np.ndarray)
    if issubclass(plain, dict):
        items = dict.items(value)
        if plain is collections.defaultdict:
            return collections.defaultdict(value.default_factory, items)
        if plain is collections.OrderedDict:
            items = collections.OrderedDict.items(value)
        return plain(dict(items)) if plain is collections.Counter else plain(items)
    items = plain.__iter__(value)
    if plain is collections.deque:
        return collections.deque(items, value.maxlen)
    return plain(items)


def attributes_beside(value: Any, plain: Any) -> dict[str, Any] | None:
    """Returns what a container has in attributes, which one of a plain kind has not.

    None of a dict whose attributes are what it holds.
    """
    kind: Any = type(value)
    # Not by getattr: its class may answer any name by what it holds, or by KeyError.
    own = _attribute(value, "__dict__", {})
    if own is value:
        return None
    slots = [name for name in slots_of(kind) if name not in slots_of(plain)]
    held = {name: _attribute(value, name, _EMPTY) for name in slots}
    return {**{name: each for name, each in held.items() if each is not _EMPTY}, **own}


def _attribute(value: Any, name: str, otherwise: Any) -> Any:
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return otherwise


def made_of(node: Mapping[str, Any], plain: Any, attributes: Mapping[str, Any] | None) -> Any:
    """Returns a container of its class; a plain one where the class is not there any more.

    Args:
        node: What is stored.
        plain: What it held.
        attributes: What it had.
    """
    kind = at_place(node["class"])
    base: Any = type(plain)
    if not isinstance(kind, type) or plain_kind_of(kind) is not base:
        return plain
    made = _made(kind, base, plain)
    _set(made, attributes)
    return made


def taken_over(passed: Any, stored: Any) -> Any:
    """Returns a container with what another one of its class holds and has.

    That is the one that was passed, where it can be changed; else the other.
    """
    kind: Any = type(passed)
    base = plain_kind_of(kind)
    is_fixed = base in _FIXED or getattr(passed, "maxlen", None) != getattr(stored, "maxlen", None)
    if base is None or is_fixed or type(stored) is not kind:
        return stored
    plain = plain_of(stored, base)
    base.clear(passed)
    _attribute(passed, "__dict__", {}).clear()
    _fill(passed, base, plain)
    _set(passed, attributes_beside(stored, base))
    return passed


def copies_as_its_base(kind: Any) -> bool:
    """Whether a class is a container's, and says nothing of its own on how to copy it."""
    base = plain_kind_of(kind)
    own, of_base = (getattr(each, "__deepcopy__", None) for each in (kind, base))
    return base is not None and own is of_base


def copied(value: Any, copy: Callable[[Any], Any]) -> Any:
    """Returns a container of the same class with copies of what it holds and has."""
    kind: Any = type(value)
    base = plain_kind_of(kind)
    made = _made(kind, base, copy(plain_of(value, base)))
    _set(made, copy(attributes_beside(value, base)))
    return made


def _made(kind: Any, base: Any, plain: Any) -> Any:
    if base is np.ndarray:
        return plain.view(kind)
    if base in _FIXED:
        try:
            return base.__new__(kind, plain)
        except TypeError:  # one of compiled code, as torch.Size
            return kind(plain)
    made = base.__new__(kind)
    if base is collections.deque:
        base.__init__(made, maxlen=plain.maxlen)
    _fill(made, base, plain)
    return made


def _fill(made: Any, base: Any, plain: Any) -> None:
    """Puts into an empty container what a plain one holds; none of its own code is run."""
    if base in {list, collections.deque}:
        base.extend(made, plain)
    elif base is set:
        base.update(made, plain)
    else:
        for key, value in plain.items():
            base.__setitem__(made, key, value)
    if base is collections.defaultdict:
        made.default_factory = plain.default_factory


def _set(made: Any, attributes: Mapping[str, Any] | None) -> None:
    if attributes is None:
        object.__setattr__(made, "__dict__", made)
        return
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
