"""Random streams of each thread's own, so that several threads can fetch batches at a time.

Python and NumPy have one global stream each. While threads are at work, whoever draws from
it is asked which thread he is: one that fetches a batch draws from that batch's streams.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

_own = threading.local()
# An abandoned reader may be closed by the collector in the middle of another's beginning.
_lock = threading.RLock()
_REAL_NUMPY: Any = np.random.mtrand._rand  # the state that np.random's functions share
_REAL_PYTHON: Any = random._inst  # and that of random's
# NumPy wraps these in functions of its own.
_ALSO = {"seed": "seed", "ranf": "random_sample", "sample": "random_sample"}


class _Shared(np.random.RandomState):
    """Stands for NumPy's own state, for who takes the state itself to draw from it."""

    def __getattribute__(self, name: str) -> Any:
        return getattr(getattr(_own, "numpy", _REAL_NUMPY), name)


@contextlib.contextmanager
def own_streams(seed: int) -> Iterator[None]:
    """Gives the calling thread global streams of its own for a while."""
    _own.python = random.Random(seed)  # noqa: S311  # the user draws from it
    _own.numpy = np.random.RandomState(seed & 0xFFFFFFFF)
    try:
        yield
    finally:
        del _own.python, _own.numpy


@contextlib.contextmanager
def streams_by_thread() -> Iterator[None]:
    """Has every draw from a global stream look whose it is; within it, ``own_streams`` work."""
    _Streams.enter()
    try:
        yield
    finally:
        _Streams.leave()


def global_states() -> tuple[object, bytes, int]:
    """Returns where the global streams are."""
    name, keys, position, *_ = _REAL_NUMPY.get_state()
    del name
    return _REAL_PYTHON.getstate(), keys.tobytes(), position


class _Streams:
    """The functions put in place of others, as long as anybody needs them."""

    users = 0
    modules = 0
    places: tuple[tuple[ModuleType, str, Any, Any], ...] = ()

    @classmethod
    def enter(cls) -> None:
        with _lock:
            cls.users += 1
            if cls.users > 1:
                return
            if cls.modules != len(sys.modules):
                cls.places, cls.modules = tuple(_places()), len(sys.modules)
            for module, name, _, instead in cls.places:
                setattr(module, name, instead)

    @classmethod
    def leave(cls) -> None:
        with _lock:
            cls.users -= 1
            if cls.users:
                return
            for module, name, original, _ in cls.places:
                setattr(module, name, original)


def _places() -> Iterator[tuple[ModuleType, str, Any, Any]]:
    """Yields where in any module one of the functions is, imported by name ones among them."""
    wanted = {id(original): (original, instead) for original, instead in _replacements()}
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType) or module.__name__ == __name__:
            continue
        for name, value in list(vars(module).items()):
            if id(value) in wanted:
                yield module, name, *wanted[id(value)]


def _replacements() -> Iterator[tuple[Any, Any]]:
    yield _REAL_NUMPY, _Shared(0)
    for module, kind, shared in (
        (random, "python", _REAL_PYTHON),
        (np.random, "numpy", _REAL_NUMPY),
    ):
        for name, value in list(vars(module).items()):
            if getattr(value, "__self__", None) is shared:
                yield value, _asking(value, kind, name)
            elif kind == "numpy" and name in _ALSO:
                yield value, _asking(value, kind, _ALSO[name])


def _asking(original: Callable[..., Any], kind: str, name: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def draw(*args: Any, **named: Any) -> Any:
        own = getattr(_own, kind, None)
        return original(*args, **named) if own is None else getattr(own, name)(*args, **named)

    return draw
