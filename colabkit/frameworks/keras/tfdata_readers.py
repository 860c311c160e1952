"""Who else reads a pipeline that is trained on: each iterator draws an order of its shuffles."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

_ITER = tf.data.Dataset.__iter__
_LISTENERS: list[Callable[[Any], None]] = []


def begun(dataset: Any) -> Iterator[Any]:
    """Returns an iterator of training's own, of which no listener is told."""
    iterator: Iterator[Any] = _ITER(dataset)
    return iterator


@contextlib.contextmanager
def noting_readers(listen: Callable[[Any], None]) -> Iterator[None]:
    """Has a function told of each dataset that anybody else begins to read, before it is begun."""
    _LISTENERS.append(listen)
    tf.data.Dataset.__iter__ = _begun_by_others
    try:
        yield
    finally:
        _LISTENERS.remove(listen)
        if not _LISTENERS:
            tf.data.Dataset.__iter__ = _ITER


def _begun_by_others(dataset: Any) -> Any:
    for listen in _LISTENERS:
        listen(dataset)
    return _ITER(dataset)


class OtherReaders:
    """Iterators of callbacks, counted by how many passes had begun before each.

    A later session draws as many orders at the same places.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._drawn: Counter[int] = Counter()

    def state(self) -> list[list[int]]:
        """Returns them for a checkpoint."""
        return [[place, count] for place, count in sorted(self._counts.items())]

    def restore(self, state: Iterable[Sequence[int]]) -> None:
        """Takes what ``state`` gave."""
        self._counts = Counter({place: count for place, count in state})  # noqa: C416

    def note(self, place: int) -> None:
        """Counts one that begins after so many passes."""
        self._drawn[place] += 1
        self._counts[place] += 1

    def missing(self, place: int) -> int:
        """Returns how many of a place this session has yet to begin, and counts them as begun."""
        count = max(0, self._counts[place] - self._drawn[place])
        self._drawn[place] += count
        return count
