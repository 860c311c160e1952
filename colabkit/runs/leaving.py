"""Loops that tell how they were left: at their end, on purpose, or by an error."""

from __future__ import annotations

import dis
import functools
import gc
import inspect
import itertools
import re
import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar

from colabkit.runs.loop_source import is_installed, loop_at

T = TypeVar("T")
# What runs where ``break`` and ``return`` let go of a loop's iterator; no error stands there.
_LETTING_GO = frozenset({"POP_TOP", "POP_ITER"})
_WAITING = frozenset({"YIELD_VALUE", "RESUME", "SEND"})
_DEPTH_MAX = 3
_COUNTERS = {"enumerate": enumerate, "islice": itertools.islice, "zip": zip}
_PACKAGE = str(Path(__file__).parents[1])
# What these have read and not yet given, or add up, is in no checkpoint.
_HOLDERS: dict[str, Any] = {
    "accumulate": itertools.accumulate,
    "batched": getattr(itertools, "batched", None),  # from Python 3.12 on
    "cycle": itertools.cycle,
    "groupby": itertools.groupby,
    "pairwise": itertools.pairwise,
    "tee": type(itertools.tee(())[0]),
    "zip_longest": itertools.zip_longest,
}
HOLDERS = frozenset(_HOLDERS)
_KINDS = _COUNTERS | _HOLDERS
_STEPS_OF_A_LOOP = frozenset({"backward", "step", "apply_gradients", "update"})
_ACCESSES = re.compile(r"(LOAD|STORE)_(?:FAST|NAME|GLOBAL|DEREF)")


class Loop(Generic[T]):
    """An iterator that belongs to the loop over it, whoever else may hold on to this object.

    A progress bar kept in a variable would otherwise keep a loop open that ``break`` has left.

    Args:
        steps: What is looped over.
    """

    def __init__(self, steps: Generator[T, None, None]) -> None:
        self._held: Generator[T, None, None] | None = steps
        self._given = weakref.ref(steps)

    @classmethod
    def knowing_itself(
        cls, make: Callable[[Sequence[weakref.ref[Any]]], Generator[T, None, None]]
    ) -> Loop[T]:
        """Returns a loop over what is made, which is told where it finds itself."""
        own: list[weakref.ref[Any]] = []
        steps = make(own)
        own.append(weakref.ref(steps))
        return cls(steps)

    def __iter__(self) -> Iterator[T]:
        steps, self._held = self._held or self._given(), None
        return iter(()) if steps is None else steps

    def __next__(self) -> T:
        if self._held is None:
            self._held = self._given()
        if self._held is None:
            raise StopIteration
        return next(self._held)

    def close(self) -> None:
        """Ends the loop as an error would: its open step does not count as done."""
        steps = self._held or self._given()
        if steps is not None:
            steps.close()


def was_left_on_purpose() -> bool:
    """Whether ``break`` or ``return`` closes the generator that calls this, and not an error.

    A generator is told no more than that it is closed. But the frame that lets go of it
    stands at an instruction that only ``break`` and ``return`` lead to, while an error is at
    the instruction that raised it.
    """
    frame = sys._getframe(1).f_back
    while frame is not None and _is_waiting(frame):
        frame = frame.f_back
    return frame is not None and _instruction(frame) in _LETTING_GO


def counted_by(loop: weakref.ref[Any]) -> tuple[str, ...]:
    """Returns what counts the steps of a loop by itself, or reads ahead of them.

    That is enumerate, islice, zip with another one, pairwise and the like. Asked from within the
    loop's generator.
    """
    steps = loop()
    names = {n for frame in frames_over(steps) for n in _KINDS if n in frame.f_code.co_names}
    if not names:
        return ()
    # Looking through all objects takes a tenth of a second: only where the name stands.
    kinds = tuple(kind for name in names if (kind := _KINDS[name]) is not None)
    found = (each for each in gc.get_objects() if type(each) in kinds and _counts(each, steps))
    return tuple(sorted({type(each).__name__.lstrip("_") for each in found}))


def carried_over(loop: weakref.ref[Any]) -> dict[str, Any]:
    """Returns the variables that each step of a loop reads and then sets for the next, by name.

    Asked from within the loop's generator, at the head of a ``for`` statement.
    """
    found: dict[str, Any] = {}
    for frame in frames_over(loop()):
        names = carried_in(frame)
        found |= {name: frame.f_locals[name] for name in names if name in frame.f_locals}
    return found


def read_on_by(loop: weakref.ref[Any]) -> tuple[str, ...]:
    """Returns the iterators without a state that each step of a loop calls ``next`` on.

    Asked from within the loop's generator, at the head of a ``for`` statement.
    """
    steps, found = loop(), []
    for frame in frames_over(steps):
        # What stands in a source is read there, with what becomes of it.
        body = () if loop_at(frame) is not None else body_of(frame)
        for called, given in itertools.pairwise(each for each in body if each.argval is not None):
            value = value_of(given.argval, frame) if called.argval == "next" else None
            goes_on = hasattr(value, "state_dict") or _is_ours(value, steps)
            if isinstance(value, Iterator) and not (goes_on or isinstance(value, Loop)):
                found.append(given.argval)
    return tuple(dict.fromkeys(found))


def reads_ahead(loop: weakref.ref[Any]) -> str:
    """Returns the function that holds what it reads of a loop until later, "" where there is none.

    One that calls ``next`` before its own loop and in it, or keeps what that gives in an
    attribute, as prefetchers do. Asked from within the loop's generator.
    """
    steps: Any = loop()
    frame = steps.gi_frame.f_back
    if frame is None or _instruction(frame) == "FOR_ITER":
        return ""
    found = list(dis.get_instructions(frame.f_code))
    if frame.f_code.co_flags & inspect.CO_GENERATOR:
        holds = [each.argval for each in found].count("next") > 1
    else:
        stores = (e for e in found if e.offset > frame.f_lasti and e.opname.startswith("STORE_"))
        is_kept = getattr(next(stores, None), "opname", "") == "STORE_ATTR"
        holds = is_kept and _STEPS_OF_A_LOOP.isdisjoint(frame.f_code.co_names)
    return frame.f_code.co_name if holds else ""


def is_read_behind(loop: weakref.ref[Any]) -> bool:
    """Whether what the steps of a loop set is read behind it, which one that is through sets not.

    Asked from within the loop's generator, at the head of a ``for`` statement.
    """
    for frame in frames_over(loop()):
        if is_installed(frame.f_code):
            continue  # a progress bar sees to its own
        is_set, is_read = _set_and_read_behind(frame.f_lasti, frame.f_code)
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            own = (each for each in frame.f_globals.values() if inspect.isfunction(each))
            is_read = is_read.union(*(each.__code__.co_names for each in own))
        if is_set & is_read:
            return True
    return False


@functools.lru_cache(maxsize=32)  # each epoch asks again
def _set_and_read_behind(offset: int, code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the names that a loop's body sets, and those read behind it as they are then."""
    body = _body_at(offset, code)
    is_set = frozenset(n for e in body for verb, n in accesses(e) if verb == "STORE")
    ends = body[-1].offset if body else offset
    first: dict[str, str] = {}
    for each in dis.get_instructions(code):
        if each.offset > ends:
            for verb, name in accesses(each):
                first.setdefault(name, verb)
    return is_set, frozenset(name for name, verb in first.items() if verb == "LOAD")


def value_of(name: object, frame: FrameType) -> object:
    return frame.f_locals.get(name, frame.f_globals.get(name)) if isinstance(name, str) else None


def body_of(frame: FrameType) -> Sequence[dis.Instruction]:
    """Returns the instructions of the ``for`` statement at whose head a frame stands."""
    return _body_at(frame.f_lasti, frame.f_code)


@functools.lru_cache(maxsize=8)  # each epoch asks again
def _body_at(offset: int, code: CodeType) -> Sequence[dis.Instruction]:
    found = list(dis.get_instructions(code))
    head = next((n for n, each in enumerate(found) if each.offset == offset), len(found))
    if head == len(found) or found[head].opname != "FOR_ITER":
        return ()
    return tuple(each for each in found[head + 1 :] if each.offset < found[head].argval)


def carried_in(frame: FrameType) -> list[str]:
    first: dict[str, str] = {}
    is_set = set()
    for each in body_of(frame):
        for verb, name in accesses(each):
            first.setdefault(name, verb)
            if verb == "STORE":
                is_set.add(name)
    return [name for name, verb in first.items() if verb == "LOAD" and name in is_set]


def accesses(each: dis.Instruction) -> Iterator[tuple[str, str]]:
    """Yields which names an instruction reads and sets: newer Pythons take two in one."""
    names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
    return zip(_ACCESSES.findall(each.opname), names, strict=False)


def frames_over(steps: Any) -> list[FrameType]:
    """Returns who reads on in a loop that is running: progress bars, and the user's statement.

    Of a loop that another one reads, that one begins it anew: then it is nobody.
    """
    frame, found = steps.gi_frame.f_back, []
    while frame is not None:
        if frame.f_code is steps.gi_code:
            return []
        found.append(frame)
        frame = frame.f_back if frame.f_code.co_flags & inspect.CO_GENERATOR else None
    return found


def _counts(counter: object, steps: Any) -> bool:
    inner = _inner_of(counter)
    others = [each for each in inner if not _leads_to(each, steps)]
    if len(others) == len(inner):
        return False
    return type(counter) is not zip or not all(_is_ours(each, steps) for each in others)


def _is_ours(iterator: object, steps: Any) -> bool:
    """Whether an iterator is a loop over the same run, which goes on where it stopped, too."""
    return getattr(iterator, "gi_code", None) is steps.gi_code


def reads_loop(iterator: object, depth: int = 0) -> bool:
    """Whether an iterator is a loop over a run, or gives what one gives: a progress bar's."""
    code = getattr(iterator, "gi_code", None)
    if isinstance(iterator, Loop) or (code is not None and code.co_filename.startswith(_PACKAGE)):
        return True
    return depth < _DEPTH_MAX and any(reads_loop(e, depth + 1) for e in _inner_of(iterator))


def _leads_to(iterator: object, steps: object, depth: int = 0) -> bool:
    """Whether an iterator gives what the steps give: itself, or through a progress bar."""
    if isinstance(iterator, Loop):
        iterator = iterator._given()
    if iterator is steps or depth >= _DEPTH_MAX:
        return iterator is steps
    return any(_leads_to(each, steps, depth + 1) for each in _inner_of(iterator))


def _inner_of(iterator: object) -> list[Any]:
    frame = getattr(iterator, "gi_frame", None)
    held = list(frame.f_locals.values()) if frame is not None else gc.get_referents(iterator)
    if type(iterator) is _HOLDERS["tee"]:
        held = gc.get_referents(*held)  # its iterator is that of the items it has read
    # zip keeps its own in a tuple.
    flat = [each for value in held for each in (value if type(value) is tuple else (value,))]
    # Asked of the type: an object of the user's may answer to any name, or raise.
    return [each for each in flat if hasattr(type(each), "__next__")]


def _is_waiting(frame: FrameType) -> bool:
    is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
    return bool(is_generator) and _instruction(frame) in _WAITING


def _instruction(frame: FrameType) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]
