"""Loops that tell how they were left: at their end, on purpose, or by an error."""

from __future__ import annotations

import dis
import gc
import inspect
import sys
import weakref
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# What runs where ``break`` and ``return`` let go of a loop's iterator; no error stands there.
_LETTING_GO = frozenset({"POP_TOP", "POP_ITER"})
_WAITING = frozenset({"YIELD_VALUE", "RESUME", "SEND"})
_DEPTH_MAX = 3


class Loop(Generic[T]):
    """An iterator that belongs to the loop over it, whoever else may hold on to this object.

    A progress bar kept in a variable would otherwise keep a loop open that ``break`` has left.

    Args:
        steps: What is looped over.
    """

    def __init__(self, steps: Generator[T, None, None]) -> None:
        self._held: Generator[T, None, None] | None = steps
        self._given = weakref.ref(steps)

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


def is_enumerated(loop: weakref.ref[Any]) -> bool:
    """Whether ``enumerate`` counts the steps of a loop, asked from within its generator."""
    frame = sys._getframe(1).f_back
    named = False
    while frame is not None and not named:
        named = "enumerate" in frame.f_code.co_names
        frame = frame.f_back if frame.f_code.co_flags & inspect.CO_GENERATOR else None
    steps = loop()
    # Looking through all objects takes a tenth of a second: only where the name stands.
    return named and any(
        _leads_to(counter.__reduce__()[1][0], steps)
        for counter in gc.get_objects()
        if type(counter) is enumerate
    )


def _leads_to(iterator: object, steps: object, depth: int = 0) -> bool:
    """Whether an iterator gives what the steps give: itself, or through a progress bar."""
    if isinstance(iterator, Loop):
        iterator = iterator._given()
    if iterator is steps or depth >= _DEPTH_MAX:
        return iterator is steps
    frame = getattr(iterator, "gi_frame", None)
    inner = frame.f_locals.values() if frame is not None else gc.get_referents(iterator)
    return any(_leads_to(each, steps, depth + 1) for each in inner if hasattr(each, "__next__"))


def _is_waiting(frame: FrameType) -> bool:
    is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
    return bool(is_generator) and _instruction(frame) in _WAITING


def _instruction(frame: FrameType) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]
