"""What objects keep as attributes and training changes, kept with a run's checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from colabkit.checkpoint import deep_copy
from colabkit.frameworks.code_variables import CodeVariables
from colabkit.frameworks.looks import Fingerprint, looks_into, trains_nothing
from colabkit.frameworks.paths import UNCHANGING, put_at, reached, steps_of, within
from colabkit.frameworks.plain_values import (
    REMOVED,
    PlainValues,
    base_of,
    can_be_made,
    is_removed,
    is_unmakeable,
)
from colabkit.frameworks.users_own import (
    attributes_of,
    carries_attributes,
    is_of_users_class,
    package_of,
    set_attribute,
)

_DEPTH_MAX = 3
_LOOKED_AT_MAX = 64
# A look at each save takes 2 ms for as many numbers as 100,000, or 50 MB of an array.
_BYTES_MAX, _ITEMS_MAX, _NUMBERS_MAX = 16 << 20, 10_000, 1_000_000
_SAMPLES = 4096  # of a large array
_NOTHING = object()
_NUMBERS = frozenset({bool, float, int, type(None)})
# What they note of a quantized weight follows from the weight, and is made with it.
_KEPT_WITH_WEIGHTS = frozenset({"awq", "bitsandbytes", "gptqmodel", "hqq", "quanto", "torchao"})


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """A look at all that an owner keeps.

    Attributes:
        holders: What carries attributes, by path.
        seen: Identities of those, each of which is entered once.
        found: What is kept, by path.
        entered: What carries attributes and is made anew where it is not there, by path.
        apart: The same by identity.
    """

    holders: dict[str, Any]
    seen: set[int]
    found: dict[str, Any] = dataclasses.field(default_factory=dict)
    entered: dict[str, Any] = dataclasses.field(default_factory=dict)
    apart: dict[int, Any] = dataclasses.field(default_factory=dict)


class Attributes:
    """The attributes of an object that have changed since it was made.

    A callback that closes an augmentation at some epoch, or counts, does so once; a resume in
    another process must find it done. What training has left alone is the notebook's own
    business. Attributes of the user's own objects that it refers to belong to it, and those of a
    library's in which a module gathers tensors, or counts; what else is a library's does not.

    Args:
        owner: A callback, an optimizer, or a module.
        values: What is plain.
        leave_out: Names that others look after.
        is_new: Whether the owner itself was made by training, and all of it has changed.
        names_lost: Whether what changes and can be saved by nobody is told. What code names may
            be anything, a figure or a table that is only looked at.
    """

    def __init__(
        self,
        owner: Any,
        values: PlainValues,
        *,
        leave_out: frozenset[str] = frozenset(),
        is_new: bool = False,
        names_lost: bool = True,
    ) -> None:
        self.owner = owner
        self.values = values
        self._leave_out = leave_out
        self._names_lost = names_lost
        self._restored: set[str] = set()
        self.filled: list[object] = []
        """Into what a checkpoint's values were put, and those that are objects."""
        self._large: dict[str, Any] = {}
        # A library's objects, once tensors were seen there; those of the last look.
        self._gathering: set[str] = set()
        self._newly_open: list[str] = []
        # Objects in lists and dicts whose attributes the last look has taken down.
        self._opened: set[str] = set()
        # What the last look has met before, by a second path.
        self._again: dict[str, Any] = {}
        self._entered: dict[str, Any] = {}
        # Of the last look, what nobody can save, and objects with no other such parts than files.
        self._unmarked: list[str] = []
        self._passed_over: set[str] = set()
        # What a library's objects held at first, and those whose numbers have changed since.
        self._then: dict[str, dict[str, Any]] = {}
        self._counting: set[str] = set()
        self._marks: dict[str, Any] = {}
        # Kept, so that no later object takes the place in memory by which these are known.
        self._first = {} if is_new else self._own()
        self._marks |= {path: values.mark(value) for path, value in self._first.items()}
        self._opaque: dict[str, Any] | None = None
        self._outlines: dict[str, Any] = {}
        self.with_state: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        self.may_share = False
        """Whether training has changed more than numbers and words, as of the last look."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the changed ones by the path that leads to them.

        What has a state of its own is noted in ``with_state``, and what has changed since the
        last call and can be saved by nobody in ``lost``.
        """
        holders: dict[str, Any] = {}
        now = self._own(holders)
        changed, opaque = self._compared(now)
        if self._leave_unmade(now):
            changed, opaque = self._compared(now)
        changed = self._removed(now, holders) | changed
        self.may_share = any(type(value) not in UNCHANGING for value in changed.values())
        self._note_lost(opaque)
        if isinstance(self.owner, CodeVariables):
            self.lost |= self.owner.exchanged()
        self._note_large()
        return changed

    def _compared(self, now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Fingerprint]]:
        """Returns what has changed, and what nobody can save as it is."""
        changed: dict[str, Any] = {}
        opaque: dict[str, Fingerprint] = {}
        self.with_state, self._unmarked = {}, list(self._large)
        for path, value in now.items():
            if value is self._first.get(path, _NOTHING) and type(value) in UNCHANGING:
                if path in self._restored:
                    changed[path] = value
                continue
            mark = self.values.mark(value)
            if mark is None:
                self._unmarked.append(path)
                self._inspect(path, value, opaque)
            elif path in self._restored or mark != self._marks.get(path, _NOTHING):
                changed[path] = self.values.detached(value)
                # Into one of its kind a resume puts what it holds.
                if is_unmakeable(value) and type(value) is not type(self._first.get(path)):
                    opaque[path] = Fingerprint.of_kind(type(value))
        return changed, opaque

    def _leave_unmade(self, now: Mapping[str, Any]) -> bool:
        """Passes over objects that nobody could make whole: of a part there is no saving.

        What writes, shows or waits and is made when it is needed is then made so again.
        """
        unmade: dict[str, list[Any]] = {}
        for path in self._unmarked:
            above = path
            while above := above.rpartition(".")[0]:
                if above in self._entered and not self.values.is_saved_elsewhere(now.get(path)):
                    unmade.setdefault(above, []).append(now.get(path))
        self._passed_over = {p for p, parts in unmade.items() if all(map(trains_nothing, parts))}
        ids = {id(self._entered.pop(path)) for path in unmade}
        self.values.apart = {i: each for i, each in self.values.apart.items() if i not in ids}
        return bool(unmade)

    def load_state_dict(self, state: Mapping[str, Any], near: Any = None) -> None:
        """Puts them back: into the tensors and lists that are there, which others may hold too.

        Args:
            state: What ``state_dict`` gave.
            near: Where tensors belong when neither the owner nor what is there says so.
        """
        near = self.values.place_of(self.owner) or near
        for path, value in state.items():
            *above, (_, name) = steps_of(path)
            owner = reached(self.owner, above)
            if is_removed(value):
                if name in attributes_of(owner):
                    delattr(owner, name)
                continue
            there = getattr(owner, name, None)
            if owner is not None and self.values.may_be_replaced(owner, name, there):
                put = self.values.put(there, value, near)
                set_attribute(owner, name, put)
                self._restored.add(path)
                self.filled += [each for each in (owner, put) if type(each) not in _FOR_GOOD]

    def as_now(self) -> Callable[[], None]:
        """Returns what puts back what is plain now, and small, wherever it has changed since."""
        before: dict[str, Any] = {}
        for path, value in self._own().items():
            is_large = hasattr(type(value), "nbytes") and value.nbytes > _BYTES_MAX
            if not is_large and self.values.mark(value) is not None:
                with contextlib.suppress(RuntimeError):  # tensors of a graph are not to be copied
                    before[path] = deep_copy(self.values.detached(value))

        def put_back() -> None:
            changed = self.state_dict()
            self.load_state_dict({path: before[path] for path in changed if path in before})

        return put_back

    def _own(self, holders: dict[str, Any] | None = None) -> dict[str, Any]:
        """Returns what the owner keeps, by path; ``holders`` is given what carries it, likewise."""
        look = _Look({} if holders is None else holders, {id(self.owner)})
        self._large, self._newly_open, self._opened, self._again = {}, [], set(), {}
        self.values.apart = {}
        self._walk(self.owner, "", 0, look)
        self.values.apart, self._entered = look.apart, look.entered
        return look.found

    def _walk(self, owner: object, path: str, depth: int, look: _Look) -> None:
        code = owner if isinstance(owner, CodeVariables) else None
        own = attributes_of(owner) if code is None else code.variables()
        look.holders[path.removesuffix(".")] = owner
        for name, value in own.items():
            if depth == 0 and name in self._leave_out:
                continue
            if id(value) in look.seen:
                self._again[path + name] = value
            elif (depth or code is not None) and _is_large(value):
                self._large[path + name] = value
            else:
                self._take(path + name, value, owner, depth, look)

    def _take(self, path: str, value: Any, owner: object, depth: int, look: _Look) -> None:
        """Takes down one of them, and what lies within."""
        is_open = self.values.is_open(value) or self._is_open(path, value, owner)
        if depth < _DEPTH_MAX and is_open and not self.values.is_whole(value):
            if path not in self._gathering:
                look.found[path] = value
                self._opened.add(path)
            self._enter(path, value, depth, look)
            return
        look.found[path] = value
        look.found.update(self._counted(path, value))
        for place, part in self._open_in(path, value, owner) if depth < _DEPTH_MAX else ():
            self._opened.add(place)
            if id(part) not in look.seen:
                self._enter(place, part, depth, look)

    def _enter(self, path: str, value: object, depth: int, look: _Look) -> None:
        look.seen.add(id(value))
        if can_be_made(value):
            look.entered[path] = look.apart[id(value)] = value
        self._walk(value, f"{path}.", depth + 1, look)

    def places(self) -> Iterator[tuple[str, Any]]:
        """Yields what is kept and may be shared, by path: objects, arrays, and what rows hold."""
        own = self._own()
        yield "", self.owner
        yield from self._entered.items()  # by this path go their attributes
        for path, value in {**own, **self._again}.items():
            yield from within(path, value)

    def at(self, path: str) -> Any:
        """Returns what a path leads to, None where it leads nowhere."""
        return reached(self.owner, steps_of(path))

    def put_at(self, path: str, value: Any) -> bool:
        """Puts a value there; returns whether it leads anywhere."""
        return put_at(self.owner, steps_of(path), value)

    def _removed(self, now: Mapping[str, Any], holders: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a sign for each attribute that was there and that training has taken away."""
        if isinstance(self.owner, CodeVariables):
            return {}
        found: dict[str, Any] = {}
        for path in self._first.keys() - now.keys():
            above, _, name = path.rpartition(".")
            while above not in holders:
                above, _, name = above.rpartition(".")
            name = name.partition("[")[0]
            if name not in attributes_of(holders[above]):
                found[f"{above}.{name}" if above else name] = REMOVED
        return found

    def _open_in(
        self, path: str, value: Any, holder: Any, depth: int = 0
    ) -> Iterator[tuple[str, Any]]:
        """Yields the objects in lists and dicts that are their attributes, each by its path."""
        if not isinstance(value, list | tuple | deque | dict) or len(value) > _LOOKED_AT_MAX:
            return
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            is_leaf = type(part) in UNCHANGING or self.values.is_whole(part)
            if is_leaf or type(key) not in UNCHANGING:
                continue
            place = f"{path}[{key!r}]"
            if depth < _DEPTH_MAX:
                yield from self._open_in(place, part, holder, depth + 1)
            if self._is_open(place, part, holder) and self.values.mark(part) is None:
                yield place, part

    def _is_open(self, path: str, value: Any, holder: Any) -> bool:
        """Whether the attributes of an object are all it is, and belong to the owner.

        Those of the user's own classes do; of a library's, where a module gathers tensors there.
        """
        if not _has_attributes_alone(value):
            return False
        if base_of(value) is not None and self.values.mark(value) is not None:
            return False  # a container, whose attributes are kept with what it holds
        kind = type(value)
        if is_of_users_class(kind) or path in self._gathering:
            return True
        if not has_state(self.owner) or package_of(kind) in _KEPT_WITH_WEIGHTS:
            return False
        above = path.rpartition(".")[0]
        is_part = above in self._gathering and package_of(kind) == package_of(type(holder))
        if is_part or any(map(self._is_or_holds_tensors, attributes_of(value).values())):
            self._gathering.add(path)
            self._newly_open.append(f"{path}.")
            return True
        return False

    def _counted(self, path: str, value: Any) -> dict[str, Any]:
        """Returns the numbers that a library's object counts for a module, by path; none before."""
        if not (has_state(self.owner) and _has_attributes_alone(value)) or trains_nothing(value):
            return {}
        own = attributes_of(value)
        before = self._then.setdefault(path, dict(own))
        if path not in self._counting:
            now = [(name, each) for name, each in own.items() if type(each) in _NUMBERS]
            was = [(name, each) for name, each in before.items() if type(each) in _NUMBERS]
            if now == was:
                return {}
            self._counting.add(path)
            self._marks |= {f"{path}.{n}": self.values.mark(each) for n, each in was}
        return {f"{path}.{n}": each for n, each in own.items() if type(each) in _NUMBERS}

    def _is_or_holds_tensors(self, value: Any) -> bool:
        if isinstance(value, dict | list | tuple):
            value = next(iter(value.values() if isinstance(value, dict) else value), None)
        return self.values.is_whole(value)

    def _inspect(
        self, path: str, value: Any, opaque: dict[str, Fingerprint], depth: int = 0
    ) -> None:
        """Takes down what is not plain: objects with a state, and what else they may be."""
        if has_state(value):
            self.with_state[path] = value
        elif path in self._opened:
            opaque |= {path: Fingerprint(value, None)} if path not in self._passed_over else {}
        elif isinstance(value, deque | dict | list | tuple) and depth < _DEPTH_MAX:
            if len(value) > _LOOKED_AT_MAX:
                opaque[path] = Fingerprint(value, hash(tuple(map(id, value))))
                return
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            parts = [(key, part) for key, part in pairs if self.values.mark(part) is None]
            inside: dict[str, Fingerprint] = {}
            for key, part in parts:
                self._inspect(f"{path}[{key!r}]", part, inside, depth + 1)
            if inside:
                opaque[path] = Fingerprint(value, [*inside.values()])
        elif trains_nothing(value):
            return
        elif issubclass(type(value), Iterator):
            # Whoever keeps one takes from it, and where it is can nobody tell.
            self.lost[path] = "iterator"
        elif not self.values.is_saved_elsewhere(value):
            opaque[path] = Fingerprint(value, self._mark_inside(value))

    def _mark_inside(self, value: Any) -> Any:
        if isinstance(value, types.FunctionType):
            return looks_into(value, self.values.mark)
        if has_state(self.owner) and not is_of_users_class(type(value)):
            return None  # each layer of a model may hold the same large configuration
        inside = list(attributes_of(value).items())[:_LOOKED_AT_MAX]
        return [(name, self.values.mark(each)) for name, each in inside]

    def _note_large(self) -> None:
        """Takes down what is too large to be looked at in full, and changes."""
        for path, value in self._large.items():
            outline = _outline(value)
            if self._outlines.setdefault(path, outline) != outline:
                self.lost[path] = type(value).__name__

    def _note_lost(self, opaque: dict[str, Fingerprint]) -> None:
        before, self._opaque = self._opaque, opaque
        if before is None or not self._names_lost:
            return  # what a session makes before its first step, the next one makes as well
        for path, look in opaque.items():
            # What lies in an object that was not looked into before was there before.
            if look != before.get(path) and not path.startswith(tuple(self._newly_open)):
                self.lost[path] = look.kind


def has_state(value: object) -> bool:
    """Whether an object can be saved and loaded by methods of its own."""
    if isinstance(value, type):
        return False
    try:
        found = [getattr(value, name, None) for name in ("state_dict", "load_state_dict")]
    except Exception:  # noqa: BLE001  # a user's own __getattr__ may raise anything
        return False
    return all(map(callable, found))


# Two that are equal may be one object, and neither is what the other's holder changes.
_FOR_GOOD = UNCHANGING | {tuple, frozenset}


def _is_large(value: Any) -> bool:
    """Whether a look at each save would cost too much, as a data set's arrays and lists do."""
    if isinstance(value, np.ndarray):
        return value.nbytes > _BYTES_MAX
    if not isinstance(value, list | tuple | dict | set) or len(value) <= _ITEMS_MAX:
        return False
    is_row = type(value) is list and len(value) <= _NUMBERS_MAX
    return not (is_row and len(kinds := set(map(type, value))) == 1 and kinds <= {float, int})


def _outline(value: Any) -> Any:
    """Returns what most likely differs once a large value has changed."""
    if isinstance(value, np.ndarray):
        row = value.reshape(-1) if value.flags.c_contiguous else value.flat
        return id(value), np.array(row[:: max(1, value.size // _SAMPLES)]).tobytes()
    return id(value), len(value)


def _has_attributes_alone(value: Any) -> bool:
    # What a run saves by itself has its own way; modules and optimizers are such.
    if has_state(value) or isinstance(value, type) or not carries_attributes(value):
        return False
    return not hasattr(type(value), "log_epoch")
