"""Iterators that several loops read on: where they stand is in no checkpoint."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from colabkit.frameworks.begun_anew import read_on
from colabkit.runs.leaving import HOLDERS, Loop, counted_by, read_on_by, reads_ahead

_SHARED = (
    "several loops read on from one iterator, which a resume begins anew: give each loop a list, a"
    " loader, or an iterator of its own"
)
_COUNTED = "{}() counts from 0 again after a resume, where run.batch goes on"
_PAIRED = "zip() begins what it pairs anew after a resume, where run.batch and run.step go on"
_HELD = "what {}() has read of the loop and not yet given is lost at a resume: read the loop itself"
_DEPTH_MAX = 3
_Source = TypeVar("_Source")


class SharedIterators:
    """Tells whether a loop reads an iterator that another one has read.

    Attributes:
        reasons: Why a run whose loops read so is not exact.
    """

    def __init__(self) -> None:
        self.reasons: tuple[str, ...] = ()
        self._known: list[weakref.ref[Any]] = []
        # Those of one loop alone: a list's iterator, which holds the list, can be held but so.
        self._newest: list[Any] = []

    def noted(self, read: _Source) -> _Source:
        """Returns what a loop reads; sources that know their place are not taken down."""
        # A progress bar gives what it was made of.
        source = getattr(read, "iterable", read)
        found = list(_iterators_in(source)) if not hasattr(source, "state_dict") else []
        before = [*self._newest, *(ref() for ref in self._known)]
        is_shared = any(each is other for each in found for other in before)
        if is_shared and _SHARED not in self.reasons:
            self.reasons += (_SHARED,)
        self._known, self._newest = [ref for ref in self._known if ref() is not None], []
        for each in found:
            try:
                self._known.append(weakref.ref(each))
            except TypeError:
                self._newest.append(each)
        return read

    def note_loop(
        self, loop: weakref.ref[Any], counts_for_eye: Callable[[], bool] = lambda: False
    ) -> None:
        """Notes what besides a loop counts its steps, or is read on by them.

        Args:
            loop: The loop.
            counts_for_eye: Asks whether the numbers that ``enumerate`` gives are only shown.
        """
        counted = [e for e in counted_by(loop) if e != "enumerate" or not counts_for_eye()]
        found = [_words_for(name).format(name) for name in counted]
        found += [_HELD.format(name) for name in filter(None, [reads_ahead(loop)])]
        found += read_on(read_on_by(loop))
        self.reasons = tuple(dict.fromkeys((*self.reasons, *found)))


def _words_for(name: str) -> str:
    if name in HOLDERS:
        return _HELD
    return _PAIRED if name == "zip" else _COUNTED


def _iterators_in(source: object, depth: int = 0) -> Iterator[Any]:
    """Yields an iterator and those that it reads from, as islice and zip do."""
    if not isinstance(source, Iterator) or isinstance(source, Loop) or depth > _DEPTH_MAX:
        return
    yield source
    frame = getattr(source, "gi_frame", None)
    inner = gc.get_referents(source) if frame is None else list(frame.f_locals.values())
    for value in inner:
        # zip and map keep theirs in a tuple.
        for each in value if type(value) is tuple else (value,):
            yield from _iterators_in(each, depth + 1)
