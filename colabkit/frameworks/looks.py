"""What differs once an object has changed that no checkpoint can hold: an identity, an inside."""

from __future__ import annotations

import contextlib
import random
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from colabkit.frameworks.users_own import package_of

_DEPTH_MAX = 3
_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState)
# They show, write or wait, and nothing is trained by what they are.
_TRAINING_NOTHING = frozenset(
    {
        "_csv", "_io", "_thread", "IPython", "colabkit", "comet_ml", "concurrent", "contextlib",
        "csv", "datetime", "io", "ipywidgets", "logging", "matplotlib", "mlflow", "pathlib", "rich",
        "tensorboard", "tensorboardX", "threading", "time", "tqdm", "wandb", "weakref",
    }
)  # fmt: skip


class Fingerprint:
    """What an object was when it was looked at, without keeping it alive where that can be.

    A function is also the one that the same code has made anew, where its inside is the same.
    """

    def __init__(self, value: Any, inside: Any) -> None:
        self.kind = type(value).__name__
        self._inside = inside
        self._code = value.__code__ if _is_function(value) and inside is not None else None
        try:
            self._held: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._held = lambda: value

    @classmethod
    def of_kind(cls, kind: type) -> Fingerprint:
        """Returns what any object of a class was."""
        look = cls(kind, None)
        look.kind = kind.__name__
        return look

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return False
        is_same = self._held() is other._held()
        if self._code is None:
            return is_same and self._inside == other._inside
        return is_same or (self._code is other._code and self._inside == other._inside)

    __hash__ = None  # type: ignore[assignment]


def looks_into(function: types.FunctionType, mark: Callable[[Any], Any], depth: int = 0) -> Any:
    """Returns what differs once a function works with other values: defaults, and its closure's."""
    looks: list[Any] = []
    for part in _held_by(function):
        if package_of(type(part)) in _TRAINING_NOTHING:
            continue
        inside = None
        if (plain := mark(part)) is None and _is_function(part) and depth < _DEPTH_MAX:
            inside = looks_into(part, mark, depth + 1)
        looks.append(Fingerprint(part, inside) if plain is None else plain)
    return looks


def _held_by(function: types.FunctionType) -> Iterator[Any]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    yield from vars(function).values()


def _is_function(value: Any) -> bool:
    return isinstance(value, types.FunctionType)


def trains_nothing(value: object) -> bool:
    if isinstance(value, (type, types.ModuleType, *_GENERATORS)):
        return True
    return package_of(type(value)) in _TRAINING_NOTHING
