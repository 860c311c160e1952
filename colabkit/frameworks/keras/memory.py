"""Plain values that the user's own code reaches: what of them changes, kept and put back."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from colabkit.frameworks.attributes import trains_nothing
from colabkit.frameworks.keras.reach import Slot, slots_within
from colabkit.frameworks.keras.values import KerasValues

_COPIED_BYTES_MAX = 1 << 20
_ITEMS_MAX = 256
_SAMPLES = 65_536  # of a large array
_HOLDERS = (dict, list, set, deque)
_PARTED = (dict, list, tuple, set, frozenset, deque)
_VALUES = KerasValues()


class Memory:
    """The plain values that are reached from some objects, as they were at first.

    Attributes:
        lost: By path, what has changed and no checkpoint can hold, and why.

    Args:
        roots: Functions and other objects, by name.
        but: Places that are left alone.
    """

    def __init__(
        self, roots: Mapping[str, Any], *, but: frozenset[tuple[int, Any]] = frozenset()
    ) -> None:
        self._roots = roots
        self._but = but
        self._first: dict[str, Any] = {}
        self._marks: dict[str, Any] = {}
        self._restored: set[str] = set()
        self._contents: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        self._paths: set[str] = set()
        for slot in self._slots():
            self._paths.add(slot.path)
            if (mark := _mark(slot.value)) is not None:
                is_large, self._marks[slot.path] = _is_large(slot.value), mark
                self._first[slot.path] = slot.value if is_large else _copy(slot.value)
            elif (contents := _contents_of(slot.value)) is not None:
                self._contents[slot.path] = contents

    def know(self, beginnings: tuple[str, ...]) -> None:
        """Takes what is reached by such paths for there when the next session restores."""
        if beginnings:
            self._paths |= {s.path for s in self._slots() if s.path.startswith(beginnings)}

    def places(self) -> frozenset[tuple[int, Any]]:
        """Returns where the values are."""
        return frozenset(slot.place for slot in self._slots())

    def changes(self) -> dict[str, Any]:
        """Returns what is not as it was, by path, and takes down in ``lost`` what is none of it."""
        found = {}
        within: set[int] = set()
        for slot in self._slots():
            is_within = slot.place[0] in within
            mark = None if is_within else _mark(slot.value)
            if isinstance(slot.value, _PARTED) and (is_within or mark is not None):
                within.add(id(slot.value))
            if is_within:
                continue  # of a value that is kept whole
            if mark is None:
                self._note_lost(slot)
            elif slot.path in self._restored or mark != self._marks.get(slot.path):
                found[slot.path] = _copy(slot.value)
                self._note_late(slot)
        return found

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Puts back what ``changes`` gave."""
        owners, missing = {}, dict(kept)
        for slot in list(self._slots()):
            owners[slot.path] = slot.value
            if slot.path in missing:
                self._restored.add(slot.path)
                _put(slot, missing.pop(slot.path))
        for path, value in missing.items():
            self._put_anew(owners, path, value)

    def put_back(self) -> None:
        """Gives every value back that is not as it was, in the object that is there."""
        for slot in list(self._slots()):
            if slot.path in self._marks and _mark(slot.value) != self._marks[slot.path]:
                _put(slot, self._first[slot.path])

    def _slots(self) -> Iterator[Slot]:
        return (slot for slot in slots_within(self._roots) if slot.place not in self._but)

    def _put_anew(self, owners: Mapping[str, Any], path: str, value: Any) -> None:
        """Gives an object an attribute that it had, and gets only later in a session."""
        owner, _, name = path.rpartition(".")
        if name.isidentifier() and hasattr(owners.get(owner), "__dict__"):
            self._restored.add(path)
            setattr(owners[owner], name, copy.deepcopy(value))

    def _note_late(self, slot: Slot) -> None:
        """Takes down an object that training has made: the next session has none to go on with."""
        owner, _, name = slot.path.rpartition(".")
        if name.isidentifier() and not {slot.path, owner} & self._paths:
            self.lost[owner] = "value that training made"

    def _note_lost(self, slot: Slot) -> None:
        contents = _contents_of(slot.value)
        before = self._contents.get(slot.path, None if slot.path in self._marks else contents)
        if contents is not None and contents != before:
            self.lost[slot.path] = next(iter(contents[1]))
        if contents is not None:
            self._contents[slot.path] = contents


def said_of(changed: Iterable[str]) -> str:
    """Returns why a generator that changes what it reads from cannot be read again."""
    named = ", ".join(list(changed)[:3])
    return f"the data's generator changes {named}, which a resume begins anew (change a copy)"


def _copy(value: Any) -> Any:
    """Returns a copy of a plain value; Keras' own containers would bring their layer with them."""
    return copy.deepcopy(_VALUES.detached(value))


def _put(slot: Slot, value: Any) -> None:
    put = _VALUES.put(slot.value, copy.deepcopy(value))
    if put is not slot.value:
        slot.put(put)


def _mark(value: Any) -> Any:
    """Returns what differs once a value has changed, None for one that is not plain."""
    if not _is_large(value):
        return _VALUES.mark(value)
    # All of it would take a while at each save: whoever changes it changes more than a little.
    row = value.reshape(-1) if value.flags.c_contiguous else value.flat
    mark = _VALUES.mark(np.array(row[:: max(1, value.size // _SAMPLES)]))
    return None if mark is None else (id(value), mark)


def _is_large(value: Any) -> bool:
    # Only arrays are asked: what else has such an attribute may load or count for it.
    return isinstance(value, np.ndarray) and value.nbytes > _COPIED_BYTES_MAX


def _contents_of(value: Any) -> tuple[list[int], dict[str, None]] | None:
    """Returns what a container holds by identity, if some of it could not be saved in any way."""
    if not isinstance(value, _HOLDERS):
        return None
    items = list(value.values() if isinstance(value, dict) else value)
    opaque = dict.fromkeys(type(leaf).__name__ for leaf in _opaque(items[:_ITEMS_MAX]))
    return ([len(items), *map(id, items[-_ITEMS_MAX:])], opaque) if opaque else None


def _opaque(items: list[Any], depth: int = 0) -> Iterator[Any]:
    for item in items:
        if _VALUES.mark(item) is not None or _VALUES.is_saved_elsewhere(item):
            continue
        if isinstance(item, (*_HOLDERS, tuple)) and depth < 3:
            inner = list(item.values() if isinstance(item, dict) else item)
            yield from _opaque(inner[:_ITEMS_MAX], depth + 1)
        elif not trains_nothing(item):
            yield item
