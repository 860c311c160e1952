"""What lives beside a run's objects and changes while it trains: a resume begins it anew."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from colabkit.frameworks.users_own import attributes_of

_COMPARED_MAX = 256
_LINK = "_lru_list_elem"
_TOLD = object()


class Bystander(NamedTuple):
    """What a run does not hold.

    Attributes:
        path: What leads to it, or to what it is a part of: ``trainer.teacher``.
        value: It.
    """

    path: str
    value: Any


class _Known(NamedTuple):
    path: str
    kept: weakref.ref[Any]
    mark: object


class Bystanders:
    """Takes down what lives beside a run's objects, and finds what has changed since.

    What a loop makes and throws away, a probe that is fitted behind each epoch say, is made by a
    resume as well: only what changes once it was taken down has changed.

    Args:
        mark: Returns what is another once an object has changed, None where nobody can tell.
    """

    def __init__(self, mark: Callable[[Any], object | None]) -> None:
        self._marks = mark
        self._known: dict[int, _Known] = {}
        self._next = 0

    def _mark(self, value: Any) -> object | None:
        with contextlib.suppress(Exception):  # a library's object may raise anything
            return self._marks(value)
        return None

    def take_down(self, found: Iterable[tuple[str, Any]]) -> None:
        """Takes down those that are new, by their paths."""
        for path, each in found:
            known = self._known.get(id(each))
            if known is None or known.kept() is not each:
                if (mark := self._mark(each)) is not None:
                    self._known[id(each)] = _Known(path, weakref.ref(each), mark)
            elif path and not known.path:
                self._known[id(each)] = known._replace(path=path)

    def renew(self, is_held: Callable[[Any], bool]) -> None:
        """Takes down anew those of which a checkpoint has at the moment what they hold."""
        for key, known in list(self._known.items()):
            each = known.kept()
            if each is not None and known.mark is not _TOLD and is_held(each):
                self._known[key] = known._replace(mark=self._mark(each))

    def changed(self) -> list[Bystander]:
        """Returns what has changed, each once; of very many a call looks at some."""
        keys = list(self._known)
        begin = self._next if self._next < len(keys) > _COMPARED_MAX else 0
        self._next = begin + _COMPARED_MAX
        turn = itertools.islice(itertools.cycle(keys), begin, begin + len(keys))
        found = map(self._look_at, itertools.islice(turn, _COMPARED_MAX))
        return [each for each in found if each is not None]

    def _look_at(self, key: int) -> Bystander | None:
        known = self._known[key]
        each = known.kept()
        if each is None:
            del self._known[key]
            return None
        mark = None if known.mark is _TOLD else self._mark(each)
        if mark is None or mark == known.mark:
            return None
        self._known[key] = known._replace(mark=_TOLD)
        return Bystander(known.path, each)


def unwrapped(value: object) -> object:
    """Returns the function that decorators and compilers have wrapped, or the value itself."""
    while not isinstance(value, type) and "__wrapped__" in (own := attributes_of(value)):
        value = own["__wrapped__"]
    return value


def remembered_by(function: object) -> list[Any]:
    """Returns what a function that ``functools.cache`` or ``lru_cache`` has wrapped has given."""
    if not isinstance(function, _CACHED):
        return []
    parts = gc.get_referents(function)
    kept = [each for each in parts if isinstance(each, dict) and each is not vars(function)]
    answers = [each for by_question in kept for each in by_question.values()]
    # One with a bound has links in their place, each of a question and its answer.
    pairs = itertools.pairwise(parts)
    answers += [each for each, of in pairs if isinstance(of, type) and of.__name__ == _LINK]
    return [each for each in answers if type(each).__name__ not in {_LINK, "object"}]


def is_cached(function: object) -> bool:
    """Whether a function remembers what it has given."""
    return isinstance(function, _CACHED)


_CACHED = type(functools.cache(lambda: None))
