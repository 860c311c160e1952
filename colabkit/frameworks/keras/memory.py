"""Plain values that the user's own code reaches: what of them changes, kept and put back."""

from __future__ import annotations

import array
import copy
import dataclasses
import operator
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.frameworks.keras.reach import Slot, is_entered, slots_within
from colabkit.frameworks.keras.values import KerasValues
from colabkit.frameworks.looks import Fingerprint, looks_into, trains_nothing
from colabkit.frameworks.plain_values import can_be_made, sign_of
from colabkit.frameworks.users_own import (
    attributes_of,
    carries_attributes,
    is_of_users_class,
    set_attribute,
)
from colabkit.storage import hash_of

_COPIED_BYTES_MAX = 1 << 20
_ITEMS_MAX = 256
_SAMPLES = 65_536  # of a large array
_HOLDERS = (dict, list, set, deque)
_PARTED = (dict, list, tuple, set, frozenset, deque)
_VALUES = KerasValues()
_NOTHING = object()


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
        self._looks: dict[str, Any] = {}
        # Of the user's own, known by which they are: they go on as what their fields hold.
        self._records: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        self._paths: set[str] = set()
        # Of what class those objects are whose attributes follow by themselves.
        self._kinds: dict[str, type] = {}
        for slot in self._slots():
            self._paths.add(slot.path)
            if is_entered(slot.value):
                self._kinds[slot.path] = type(slot.value)
            if (mark := _mark(slot.value)) is None:
                self._looks[slot.path] = _look_at(slot.value)
                continue
            is_large, self._marks[slot.path] = _is_large(slot.value), mark
            self._first[slot.path] = slot.value if is_large else _copy(slot.value)
            if dataclasses.is_dataclass(slot.value) and is_of_users_class(type(slot.value)):
                self._records[slot.path] = slot.value

    def know(self, beginnings: tuple[str, ...]) -> None:
        """Takes what is reached by such paths for there when the next session restores."""
        for slot in self._slots() if beginnings else ():
            if slot.path.startswith(beginnings):
                self._paths.add(slot.path)
                self._looks[slot.path] = _look_at(slot.value)

    def places(self) -> frozenset[tuple[int, Any]]:
        """Returns where the values are."""
        return frozenset(slot.place for slot in self._slots())

    def changes(self) -> dict[str, Any]:
        """Returns what is not as it was, by path, and takes down in ``lost`` what is none of it."""
        found = {}
        within: set[int] = set()
        made: list[Slot] = []
        unmarked: list[str] = []
        for slot in self._slots():
            is_within = slot.place[0] in within
            if not is_within and self._goes_by_fields(slot):
                continue
            mark = None if is_within else _mark(slot.value)
            if _has_parts(slot.value) and (is_within or mark is not None):
                within.add(id(slot.value))
            if is_within:
                continue  # of a value that is kept whole
            if mark is None and self._is_made(slot):
                found[slot.path] = sign_of(slot.value)
                made.append(slot)
            elif mark is None:
                self._note_lost(slot)
                unmarked.append(slot.path)
            elif slot.path in self._restored or mark != self._marks.get(slot.path):
                found[slot.path] = _copy(slot.value)
                if slot.path.rpartition(".")[0] not in found:
                    self._note_late(slot)
        for slot in _unmade(made, unmarked):
            del found[slot.path]
            self._note_lost(slot)
        return found

    def _is_made(self, slot: Slot) -> bool:
        """Whether training has put an object there that the next session can make as well."""
        if not (is_entered(slot.value) and can_be_made(slot.value)):
            return False
        is_another = self._kinds.get(slot.path) is not type(slot.value)
        return is_another or slot.path in self._restored

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Puts back what ``changes`` gave."""
        owners: dict[str, Any] = {}
        missing = dict(kept)
        for slot in list(self._slots()):
            owners[slot.path] = slot.value
            if slot.path in missing:
                self._restored.add(slot.path)
                owners[slot.path] = _put(slot, missing.pop(slot.path))
        for path, value in missing.items():
            self._put_anew(owners, path, value)

    def put_back(self) -> None:
        """Gives every value back that is not as it was, in the object that is there."""
        for slot in list(self._slots()):
            if slot.path not in self._marks or self._goes_by_fields(slot):
                continue
            if _mark(slot.value) != self._marks[slot.path]:
                _put(slot, self._first[slot.path])

    def _slots(self) -> Iterator[Slot]:
        return (slot for slot in slots_within(self._roots) if slot.place not in self._but)

    def _goes_by_fields(self, slot: Slot) -> bool:
        """Whether it is the object that was there at first, whose fields follow by themselves."""
        return self._records.get(slot.path, _NOTHING) is slot.value

    def _put_anew(self, owners: dict[str, Any], path: str, value: Any) -> None:
        """Gives an object an attribute that it had, and gets only later in a session."""
        owner, _, name = path.rpartition(".")
        if name.isidentifier() and carries_attributes(owners.get(owner)):
            self._restored.add(path)
            owners[path] = _VALUES.put(None, copy.deepcopy(value))
            set_attribute(owners[owner], name, owners[path])

    def _note_late(self, slot: Slot) -> None:
        """Takes down an object that training has made: the next session has none to go on with."""
        owner, _, name = slot.path.rpartition(".")  # a function's own have no owner
        if owner and name.isidentifier() and not {slot.path, owner} & self._paths:
            self.lost[owner] = "value that training made"

    def _note_lost(self, slot: Slot) -> None:
        """Takes down what is another thing than at the last look, and can be saved by nobody."""
        look = _look_at(slot.value)
        was_plain = slot.path in self._marks and slot.path not in self._looks
        before = self._looks.get(slot.path, _NOTHING if was_plain else look)
        self._looks[slot.path] = look
        if look is not None and (look != before or look.is_read_on):
            self.lost[slot.path] = look.kind


def _unmade(made: Iterable[Slot], unmarked: Sequence[str]) -> list[Slot]:
    """Returns the objects that nobody could make whole: of a part there is no saving."""
    return [
        slot
        for slot in made
        if any(each.startswith((f"{slot.path}.", f"{slot.path}[")) for each in unmarked)
    ]


def said_of(changed: Iterable[str]) -> str:
    """Returns why a generator that changes what it reads from cannot be read again."""
    named = ", ".join(list(changed)[:3])
    return f"the data's generator changes {named}, which a resume begins anew (change a copy)"


def _copy(value: Any) -> Any:
    """Returns a copy of a plain value; Keras' own containers would bring their layer with them."""
    return copy.deepcopy(_VALUES.detached(value))


def _put(slot: Slot, value: Any) -> Any:
    put = _VALUES.put(slot.value, copy.deepcopy(value))
    if put is not slot.value:
        slot.put(put)
    return put


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


def _has_parts(value: Any) -> bool:
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_record or isinstance(value, _PARTED)


@dataclasses.dataclass(frozen=True)
class _Look:
    """What an object that is not plain was when it was looked at.

    Attributes:
        kind: What is said of it, once it is another thing.
        held: What differs then.
        is_read_on: Whether it is another thing after each use, which nothing tells.
    """

    kind: str = dataclasses.field(compare=False)
    held: Any
    is_read_on: bool = False


def _look_at(value: Any) -> _Look | None:
    """Returns what tells that some of it has changed which could not be saved in any way."""
    if isinstance(value, _PARTED):
        return _look_into(value)
    kind = type(value).__name__
    if trains_nothing(value) or _VALUES.is_saved_elsewhere(value):
        return None
    if isinstance(value, Iterator):
        return _Look("iterator", None, is_read_on=operator.length_hint(value, 1) > 0)
    if is_entered(value):
        return _Look(kind, kind)
    is_array = isinstance(value, np.ndarray) and not value.dtype.hasobject
    if is_array or isinstance(value, array.array | bytearray):
        return _Look(kind, (id(value), hash_of(np.asarray(value).tobytes())))
    if isinstance(value, types.FunctionType):
        return _Look(kind, Fingerprint(value, looks_into(value, _mark)))
    inside = {} if callable(value) else attributes_of(value)
    parts = list(inside.values())[:_ITEMS_MAX]
    return _Look(kind, Fingerprint(value, [_mark(each) or id(each) for each in parts]))


def _look_into(value: Any) -> _Look | None:
    is_dict = isinstance(value, dict)
    pairs = list(value.items() if is_dict else enumerate(value))
    kinds: dict[str, None] = {}
    opaque = set()
    for key, each in pairs[:_ITEMS_MAX]:
        if found := [type(leaf).__name__ for leaf in _opaque([each])]:
            kinds |= dict.fromkeys(found)
            opaque.add((None if isinstance(value, set | frozenset | deque) else key, id(each)))
    others = [each for _, each in pairs[:_ITEMS_MAX] if _VALUES.mark(each) is None]
    if others and all(map(_shows, others)):
        return None
    keys = [key for key, _ in pairs] if is_dict else len(pairs)
    return _Look(next(iter(kinds), type(value).__name__), (keys, opaque))


def _shows(value: Any) -> bool:
    """Whether nothing is trained by what an object is: TensorFlow's writers of summaries, say."""
    return trains_nothing(value) or "summary" in str(type(value).__module__)


def _opaque(items: list[Any], depth: int = 0) -> Iterator[Any]:
    for item in items:
        if _VALUES.mark(item) is not None or _VALUES.is_saved_elsewhere(item):
            continue
        if isinstance(item, (*_HOLDERS, tuple)) and depth < 3:
            inner = list(item.values() if isinstance(item, dict) else item)
            yield from _opaque(inner[:_ITEMS_MAX], depth + 1)
        elif not trains_nothing(item):
            yield item
