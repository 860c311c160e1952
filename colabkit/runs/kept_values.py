"""Plain variables of a loop, kept with its checkpoints."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import (
    attributes_beside,
    axes_in_memory,
    deep_copy,
    encode,
    plain_kind_of,
    taken_over,
)
from colabkit.errors import ArgumentError, StateError
from colabkit.frameworks.generators import generator_state, restore_generator
from colabkit.frameworks.small_copies import small_copies
from colabkit.frameworks.state_pairs import state_pair_of
from colabkit.storage import hash_of

# Hashed at each save of an evaluation; of more nobody knows whether it has changed.
_HASHED_BYTES_MAX = 64 << 20
_SIMPLE = frozenset({bool, float, int, str, type(None)})


class _Stamp:
    """A tensor or array as it is, equal to a later stamp while nobody has written into it."""

    def __init__(self, leaf: Any, content: object) -> None:
        # Held, for another could come to lie where it lay.
        self._leaf, self._content = leaf, content

    @classmethod
    def of(cls, leaf: Any) -> _Stamp | None:
        """Returns its stamp, None where nothing tells of writes."""
        if isinstance(leaf, np.ndarray):
            if leaf.nbytes > _HASHED_BYTES_MAX:
                return None
            whole = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
            return cls(None, (leaf.dtype.str, leaf.shape, hash_of(whole)))
        is_counted = hasattr(leaf, "_version") and not leaf.is_inference()
        return cls(leaf, leaf._version) if is_counted else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Stamp):
            return NotImplemented
        return self._leaf is other._leaf and self._content == other._content

    __hash__ = None  # type: ignore[assignment]


class KeptValues:
    """Variables of a loop as attributes; each checkpoint holds what they are at its step.

    Assign to an attribute to change it: ``kept.best = 0.9``. What can be changed in place, a
    tensor, an array, a list, a dict, is the very object that was passed.
    """

    def __init__(
        self, is_tensor: Callable[[object], bool], is_behind: Callable[[], bool] = lambda: False
    ) -> None:
        fields: dict[str, Any] = {"_is_tensor": is_tensor, "_values": {}, "_restored": {}}
        # What a checkpoint has for those that the program may change before it comes to its place.
        self.__dict__.update(fields, _is_behind=is_behind, _again={}, _coming={}, _begun={})
        self.__dict__.update(_told=set(), _assigned=collections.Counter(), _left={})

    def add(self, values: Mapping[str, Any]) -> list[str]:
        """Takes variables up, with what a checkpoint has for them; those known stay.

        Returns:
            Those known that began as another number or text, or are another by now, and may be
            meant for another variable; each beginning once.

        Raises:
            ArgumentError: A value cannot be stored, or a name is none of its own.
        """
        others: list[str] = []
        for name, value in values.items():
            if hasattr(type(self), name) or name.startswith("_"):
                message = f"A value cannot be called {name}."
                raise ArgumentError(message, argument=name, hint="Choose another name.")
            if name in self._values:
                if type(value) in _SIMPLE and self._may_be_another(name, value):
                    others.append(name)
                continue
            if type(value) in _SIMPLE:
                self._begun[name] = value
            self._check(name, value)
            if name in self._restored:
                stored = self._restored.pop(name)
                if self._is_behind():
                    self._again[name] = deep_copy(stored)
                value = self._put(value, stored, self._holders_of(value, values))
            self._values[name] = value
        return others

    def _holders_of(self, value: Any, passed: Mapping[str, Any]) -> list[Any]:
        """Returns what goes on under other names for which the same was passed."""
        if type(value) in _SIMPLE:
            return []
        same = {name for name, each in passed.items() if each is value}
        return [v for n, v in self._values.items() if v is value or n in same]

    def _put(self, value: Any, stored: Any, holders: Sequence[Any]) -> Any:
        """Returns what a checkpoint has, in an object of its own where others have that passed.

        What began as one object, ``run.state(weights=w, average=w)``, may have become two.

        Args:
            value: What was passed.
            stored: What the checkpoint has for it.
            holders: What goes on under the other names for which the same was passed.
        """
        for each in holders:
            if _are_alike(_state_of(each), stored, self._is_tensor):
                return each
        if holders:
            with contextlib.suppress(Exception):  # objects of anybody's, which may refuse
                value = deep_copy(value)
        return _put_back(value, stored)

    def _may_be_another(self, name: str, value: Any) -> bool:
        """Whether a known one began as another, or is by now, and nobody was told so yet."""
        known = {repr(self._begun.get(name, value)), repr(self._values[name])}
        told = name, repr(value)
        if known == {repr(value)} or told in self._told:
            return False
        self._told.add(told)
        return True

    def small_state(self) -> dict[str, Any]:
        """Returns copies of those that are small."""
        return small_copies({n: _state_of(v) for n, v in self._values.items()}, self._is_tensor)

    def count_anew(self) -> None:
        """Begins to count how often each is assigned."""
        self._assigned.clear()

    def assigned(self) -> dict[str, int]:
        """Returns how often each was assigned since."""
        return dict(self._assigned)

    def put(
        self, stored: Mapping[str, Any], coming: Mapping[str, Any], assigned: Mapping[str, int]
    ) -> None:
        """Gives them what ``small_state`` gave, until ``put_back`` gives the checkpoint's.

        Args:
            stored: What they were at a place that the program has come to again.
            coming: What they were where the next pass began. What the program assigns last on the
                way there it made of a model that has trained on since: it is given that instead.
            assigned: How often it assigns each on the way there.
        """
        self.__dict__.update(_coming={**self._again, **coming}, _left=dict(assigned))
        for name in self._again.keys() & stored.keys():
            self._values[name] = _put_back(self._values[name], deep_copy(stored[name]))

    def put_back(self) -> list[str]:
        """Gives them once more what the checkpoint has, where the program has come to its place.

        Returns:
            The names of those that were given it.
        """
        names = list(self._again)
        for name, stored in self._again.items():
            self._values[name] = _put_back(self._values[name], stored)
        self._again.clear()
        self._coming.clear()
        return names

    def _check(self, name: str, value: Any) -> None:
        kind: Any = type(value)
        state = _state_of(value)
        beside = attributes_beside(value, plain) if (plain := plain_kind_of(kind)) else {}
        try:
            encode((state, beside), self._is_tensor)
        except StateError as error:
            message = f"{name} is a {kind.__name__}, whose state cannot be stored: {error.message}"
            hint = (
                "Keep the numbers, arrays and generators that it is made of, or give it"
                " state_dict and load_state_dict (or get_state and set_state)."
            )
            raise ArgumentError(message, argument=name, hint=hint) from error

    def state_dict(self) -> dict[str, Any]:
        """Returns all as plain values; those not yet asked for as they were."""
        return {**self._restored, **{n: _state_of(v) for n, v in self._values.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keeps what ``state_dict`` gave until it is asked for."""
        self.__dict__["_restored"] = dict(state)

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the values."""
        return iter(self._values)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name not in values:
            message = f"No value {name!r} is kept; pass it to run.state first."
            raise AttributeError(message)
        return values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._values:
            message = f"No value {name!r} is kept; pass it to run.state first."
            raise AttributeError(message)
        self._assigned[name] += 1
        self._left[name] = self._left.get(name, 1) - 1
        if self._left[name] <= 0 and name in self._again and name in self._coming:
            value = _put_back(value, deep_copy(self._coming[name]))
        self._values[name] = value

    def __repr__(self) -> str:
        return f"<kept values: {', '.join(self._values)}>"


def values_of(kept: KeptValues) -> dict[str, Any]:
    """Returns those that were asked for, by name, as they are."""
    values: dict[str, Any] = kept._values
    return values


def names_of(kept: KeptValues) -> list[str]:
    """Returns the names of all, those not yet asked for among them."""
    return [*kept._restored, *kept]


def marks_of(kept: KeptValues, names: Iterable[str]) -> dict[str, object | None]:
    """Returns, by name, what is equal until one of these is changed; None where nothing tells."""
    return {n: _mark_of(kept._values.get(n, kept._restored.get(n)), kept._is_tensor) for n in names}


def _mark_of(value: Any, is_tensor: Callable[[object], bool]) -> object | None:
    try:
        skeleton, leaves = encode(_state_of(value), is_tensor)
    except StateError:  # a save says so
        return None
    stamps = {path: _Stamp.of(leaf) for path, leaf in leaves.items()}
    return None if None in stamps.values() else (skeleton, stamps)


def _are_alike(one: Any, other: Any, is_tensor: Callable[[object], bool]) -> bool:
    """Whether two states hold the same; False where a NaN is in a tensor."""
    (said, leaves), (said_there, there) = encode(one, is_tensor), encode(other, is_tensor)
    if repr(said) != repr(said_there):  # 1 is no 1.0
        return False
    pairs = [(leaf, there[path]) for path, leaf in leaves.items()]
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return False
    # What was stored lies in host memory.
    near = ((a, b.to(a.device) if hasattr(b, "to") else b) for a, b in pairs)
    return all(bool((a == b).all()) for a, b in near)


def _state_of(value: Any) -> Any:
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return generator_state(value)
    pair = state_pair_of(value)
    return value if pair is None else getattr(value, pair[0])()


def _put_back(passed: Any, stored: Any) -> Any:
    """Returns what was stored, in the very object that was passed where that can be."""
    if isinstance(passed, np.random.Generator | np.random.RandomState):
        restore_generator(passed, stored)
        return passed
    if (pair := state_pair_of(passed)) is not None:
        getattr(passed, pair[1])(stored)
        return passed
    if isinstance(passed, np.ndarray) and isinstance(stored, np.ndarray):
        is_alike = passed.shape == stored.shape and passed.dtype == stored.dtype
        is_alike = is_alike and axes_in_memory(passed) == axes_in_memory(stored)
        # What a hard mask hides takes up nothing.
        if is_alike and passed.flags.writeable and not getattr(passed, "hardmask", False):
            passed[...] = stored
            return passed
        return stored.copy("K")
    if hasattr(passed, "copy_") and hasattr(stored, "copy_"):
        if passed.shape == stored.shape and passed.dtype == stored.dtype:
            passed.detach().copy_(stored)
            return passed
        return stored.to(passed.device, copy=True)
    return refilled(passed, _alike(passed, stored))


def _alike(passed: Any, stored: Any) -> Any:
    """Returns what was stored, its arrays made by the library that made those passed."""
    if isinstance(stored, np.ndarray) and not isinstance(passed, np.ndarray):
        made_by = getattr(passed, "__array_namespace__", None)
        return stored if made_by is None else made_by().asarray(stored)
    if isinstance(passed, dict) and type(stored) is dict:
        return {key: _alike(passed.get(key), each) for key, each in stored.items()}
    is_row = isinstance(passed, list | tuple) and type(stored) in {list, tuple}
    if is_row and len(passed) == len(stored):
        return type(stored)(map(_alike, passed, stored))
    return stored


def refilled(passed: Any, stored: Any) -> Any:
    """Returns a stored container in the one that was passed, anything else as it is stored."""
    kind: Any = type(passed)
    if plain_kind_of(kind) is not None and type(stored) is kind:
        return taken_over(passed, stored)
    if isinstance(passed, dict) and isinstance(stored, Mapping):
        passed.clear()
        passed.update(stored)
        return passed
    if isinstance(passed, list) and isinstance(stored, list):
        passed[:] = stored
        return passed
    if isinstance(passed, set) and isinstance(stored, set):
        passed.clear()
        passed.update(stored)
        return passed
    if isinstance(passed, collections.deque) and passed.maxlen == getattr(stored, "maxlen", -1):
        passed.clear()
        passed.extend(stored)
        return passed
    return stored
