"""What attributes share: one object by several names, and arrays that lie in one memory.

``self.row = []; self.rows.append(self.row)`` makes a second name for a list. By itself a resume
would give each name a list of its own, and what the one gets, the other would lack.
"""

from __future__ import annotations

import collections
import copy
import json
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from colabkit.frameworks.paths import (
    UNCHANGING,
    Step,
    put_at,
    reached,
    steps_of,
    within,
)
from colabkit.frameworks.plain_values import can_be_made
from colabkit.frameworks.users_own import is_of_users_class

OF_RUN = "="
"""Stands before the name of an object of the run, in the place of a memory's."""
_CONTAINERS = (list, dict, set, collections.deque)
_ROUNDS_MAX = 4
Place = tuple[str, str]
"""The name of a memory, or of an object of the run, and the path from there."""


class Keeper(Protocol):
    """What knows of some objects' attributes, each by a path."""

    @property
    def may_share(self) -> bool:
        """Whether training has changed more of them than numbers and words."""

    def places(self) -> Iterator[tuple[str, Any]]:
        """Yields what may be shared, by path."""

    def at(self, path: str) -> Any:
        """Returns what a path leads to, None where it leads nowhere."""

    def put_at(self, path: str, value: Any) -> bool:
        """Puts a value there; returns whether it leads anywhere."""


class Tree:
    """Values by name, and what lies in them, by path.

    Args:
        values: A dict that is given others.

    Attributes:
        only: Names of those that may be given anything else.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.only: Collection[str] = ()

    @property
    def may_share(self) -> bool:
        """Whether any is more than a number or a word."""
        return any(type(value) not in UNCHANGING for value in self._values.values())

    def places(self) -> Iterator[tuple[str, Any]]:
        """Yields what may be shared, by path."""
        for name, value in list(self._values.items()):
            yield from within(name, value)

    def at(self, path: str) -> Any:
        """Returns what a path leads to, None where it leads nowhere."""
        return reached(self._values, _steps_in_tree(path))

    def put_at(self, path: str, value: Any) -> bool:
        """Puts a value there; returns whether it leads anywhere."""
        steps = _steps_in_tree(path)
        name = steps[0][1]
        return name in self.only and put_at(self._values, steps, value)


class Arrays:
    """What is known of arrays that share memory; a framework adds its tensors.

    Attributes:
        generators: The kinds of random generators.
    """

    generators: tuple[type, ...] = (random.Random, np.random.Generator, np.random.RandomState)

    def memory_of(self, value: Any) -> Any:
        """Returns what is the same for all arrays in one memory; None for what is no array."""
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            return None
        while isinstance(value.base, np.ndarray):
            value = value.base
        return "cpu", value.__array_interface__["data"][0]

    def bounds_of(self, value: Any) -> tuple[int, int]:
        """Returns the addresses of its first byte and of the one behind its last."""
        return np.lib.array_utils.byte_bounds(value)

    def form_of(self, value: Any, within: Any) -> list[Any] | None:
        """Returns, as plain values, how an array lies in another; None where that is not to be."""
        are_arrays = isinstance(value, np.ndarray) and isinstance(within, np.ndarray)
        if not are_arrays or not within.flags.c_contiguous or value.dtype.names:
            return None
        offset = value.__array_interface__["data"][0] - self.bounds_of(within)[0]
        return [offset, [*value.shape], [*value.strides], value.dtype.str, [*within.shape]]

    def made(self, form: Sequence[Any], within: Any) -> Any:
        """Returns an array that lies in another so; None where that is not as it was."""
        offset, shape, strides, dtype, whole = form
        if not isinstance(within, np.ndarray) or [*within.shape] != [*whole]:
            return None
        if not within.flags.c_contiguous:
            return None
        return np.ndarray(tuple(shape), dtype, within, offset, tuple(strides))

    def copy_of(self, value: Any) -> Any:
        """Returns an array of its own."""
        return value.copy()


class SecondNames:
    """Keeps from session to session what is shared.

    Args:
        known: Gives the objects of the run that may be shared, by name.
        arrays: What is known of arrays.
    """

    def __init__(self, known: Callable[[], Mapping[str, Any]], arrays: Arrays) -> None:
        self._known, self._arrays = known, arrays
        self._at_first: set[Place] = set()
        self._waiting: Mapping[str, Any] = {}
        # By place, of what kind is what got a second name that no resume can give.
        self._lost: dict[Place, str] = {}

    def state_dict(self, memories: Mapping[str, Keeper]) -> str:
        """Returns, as JSON, what is shared of what memories keep as of their last look.

        "" where training has changed nothing that could be.
        """
        if not any(memory.may_share for memory in memories.values()):
            return ""
        places = self._places(memories)
        same = _same_in(places)
        views, unlike = self._views_in(places)
        for place in unlike - self._at_first:
            self._lost.setdefault(place, type(places[place]).__name__)
        # Transitions of a long memory of games share arrays by the thousand.
        return json.dumps(
            {"looked": [*memories], "same": same, "views": views, "unlike": sorted(unlike)}
        )

    def begin(self, memories: Mapping[str, Keeper]) -> None:
        """Takes down what a session begins with: the next one does as well."""
        self._waiting = {}
        _, self._at_first = self._views_in(self._places(memories))

    def said(self) -> list[str]:
        """Returns a phrase on each second name that no resume can give."""
        return [
            f"{name}.{path} ({kind})".lstrip(".")
            + " is a second name since, and after a resume a thing of its own"
            for (name, path), kind in self._lost.items()
        ]

    def part(self, shared: str, memories: Mapping[str, Keeper]) -> None:
        """Gives each name that shared nothing a thing of its own, before it is filled.

        Args:
            shared: What ``state_dict`` gave, which ``join`` will give back.
            memories: What is to be filled.
        """
        self._waiting = state = json.loads(shared) if shared else {}
        looked = {name: memories[name] for name in state.get("looked", ()) if name in memories}
        groups = {_place(p): n for n, group in enumerate(state.get("same", ())) for p in group}
        views = [(_place(place), _place(whole)) for place, whole, _ in state.get("views", ())]
        unlike_then = {_place(each) for each in state.get("unlike", ())}
        for _ in range(_ROUNDS_MAX if looked else 0):
            places = self._places(looked)
            pairs = [
                (group[0], place)
                for group in _same_in(places)
                for place in group[1:]
                if groups.get(place, place) != groups.get(group[0])
            ]
            rows, unlike = self._views_in(places)
            pairs += [(whole, p) for p, whole, _ in rows if (p, whole) not in views]
            pairs += [(place, place) for place in unlike - unlike_then]
            given = [self._give_own(looked, place, places[place]) for _, place in pairs]
            if not any(given):
                break

    def join(self, memories: Mapping[str, Keeper]) -> None:
        """Gives back what shared one thing, as far as it is there."""
        state, known = self._waiting, self._known()
        for group in state.get("same", ()):
            first, *others = map(_place, group)
            value = _value_at(first, memories, known)
            for place in others if value is not None else ():
                if _value_at(place, memories, known) is not value:
                    _put(memories, place, value)
        for place, whole, form in state.get("views", ()):
            within = _value_at(_place(whole), memories, known)
            value = None if within is None else self._arrays.made(form, within)
            if value is not None:
                _put(memories, _place(place), value)

    def _places(self, memories: Mapping[str, Keeper]) -> dict[Place, Any]:
        """Returns what may be shared, the objects of the run first."""
        found = {
            (name, path): value
            for name, memory in memories.items()
            for path, value in memory.places()
        }
        memory_of = self._arrays.memory_of
        ids = {id(value): memory_of(value) for value in found.values()}
        shared = set(ids.values()) - {None}
        known = {
            (OF_RUN, name): value
            for name, value in self._known().items()
            if id(value) in ids or (shared and memory_of(value) in shared)
        }
        of_run = {id(value) for value in known.values()}
        kept = {p: v for p, v in found.items() if id(v) in of_run or self._can_be_shared(v)}
        return known | kept

    def _can_be_shared(self, value: Any) -> bool:
        """Whether a second name for a value makes a difference, and can be given again."""
        if isinstance(value, (*_CONTAINERS, *self._arrays.generators)) or can_be_made(value):
            return True
        return self._arrays.memory_of(value) is not None or is_of_users_class(type(value))

    def _views_in(
        self, places: Mapping[Place, Any]
    ) -> tuple[list[tuple[Place, Place, list[Any]]], set[Place]]:
        """Returns how arrays lie in others, and the places of those that overlap otherwise."""
        by_memory: dict[Any, dict[int, Place]] = collections.defaultdict(dict)
        for place, value in places.items():
            if (memory := self._arrays.memory_of(value)) is not None:
                by_memory[memory].setdefault(id(value), place)
        found: list[tuple[Place, Place, list[Any]]] = []
        unlike: set[Place] = set()
        for sharing in by_memory.values():
            for place, others in self._overlapping(sharing.values(), places):
                if place[0] == OF_RUN:
                    unlike |= {each for each in others if each[0] != OF_RUN}
                    continue
                value = places[place]
                made = ((e, self._arrays.form_of(value, places[e])) for e in others if others[e])
                forms = [(each, form) for each, form in made if form is not None]
                if forms:
                    found.append((place, *min(forms, key=lambda each: each[0][0] != OF_RUN)))
                elif others:
                    unlike.add(place)
        return found, unlike

    def _overlapping(
        self, sharing: Iterable[Place], places: Mapping[Place, Any]
    ) -> Iterator[tuple[Place, dict[Place, bool]]]:
        """Yields arrays, each with those that it shares memory with, and whether it lies in them.

        Of two, that which lies in the other comes later.
        """
        bounds = {place: self._arrays.bounds_of(places[place]) for place in sharing}
        rows = sorted(bounds, key=lambda p: (bounds[p][0], -bounds[p][1], p[0] != OF_RUN))
        reaching: list[Place] = []
        for place in rows:
            begin, end = bounds[place]
            reaching = [each for each in reaching if bounds[each][1] > begin]
            yield place, {each: end <= bounds[each][1] for each in reaching}
            reaching.append(place)

    def _give_own(self, memories: Mapping[str, Keeper], place: Place, value: Any) -> bool:
        """Puts a copy where a second name is; returns whether that could be done."""
        if place[0] == OF_RUN:
            return False
        if self._arrays.memory_of(value) is not None:
            return _put(memories, place, self._arrays.copy_of(value))
        is_copied = isinstance(value, _CONTAINERS) or can_be_made(value)
        return is_copied and _put(memories, place, copy.copy(value))


def _steps_in_tree(path: str) -> list[Step]:
    (_, name), *others = steps_of(path)
    return [("item", name), *others]


def _same_in(places: Mapping[Place, Any]) -> list[list[Place]]:
    """Returns the places of each thing that has several, in their order."""
    groups: dict[int, list[Place]] = collections.defaultdict(list)
    for place, value in places.items():
        groups[id(value)].append(place)
    return [group for group in groups.values() if len(group) > 1]


def _place(saved: Sequence[str]) -> Place:
    name, path = saved
    return name, path


def _value_at(place: Place, memories: Mapping[str, Keeper], known: Mapping[str, Any]) -> Any:
    name, path = place
    if name == OF_RUN:
        return known.get(path)
    return memories[name].at(path) if name in memories else None


def _put(memories: Mapping[str, Keeper], place: Place, value: Any) -> bool:
    name, path = place
    return name in memories and memories[name].put_at(path, value)
