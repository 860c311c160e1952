"""What callbacks without a state of their own change, kept with a run's checkpoints."""

from __future__ import annotations

import copy
import site
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colabkit.training.kept_values import refilled

_PLAIN = (bool, int, float, str, type(None))
_HOLDERS = (list, tuple, dict, set, deque)
_ITEMS_MAX = 10_000
_DEPTH_MAX = 3


class CallbackMemory:
    """The plain attributes of a callback that have changed since it was passed.

    A callback that closes an augmentation at some epoch, or counts, does so once; a resume in
    another process must find it done. Attributes of the user's own objects that it refers to
    belong to it; what is a library's does not.

    Args:
        callback: An object without ``state_dict``.
    """

    def __init__(self, callback: object) -> None:
        self._callback = callback
        self._first = dict(_values_of(callback))
        self._restored: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Returns the changed values by the path that leads to them."""
        return {
            path: value
            for path, value in _values_of(self._callback)
            if path in self._restored or path not in self._first or value != self._first[path]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets what had changed."""
        for path, value in state.items():
            *way, name = path.split(".")
            owner: Any = self._callback
            for step in way:
                owner = getattr(owner, step, None)
            if owner is not None:
                setattr(owner, name, refilled(getattr(owner, name, None), value))
                self._restored.add(path)


def _values_of(root: object) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()

    def walk(owner: object, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        seen.add(id(owner))
        for name, value in vars(owner).items():
            if type(value) in _PLAIN or (depth == 0 and _is_small(value)):
                yield path + name, copy.copy(value)
            elif depth < _DEPTH_MAX and id(value) not in seen and _is_of_the_user(value):
                yield from walk(value, f"{path}{name}.", depth + 1)

    yield from walk(root, "", 0)


def _is_small(value: object) -> bool:
    if type(value) not in _HOLDERS or len(value) > _ITEMS_MAX:  # type: ignore[arg-type]
        return False
    items = [*value, *value.values()] if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
    return all(type(item) in _PLAIN for item in items)


def _is_of_the_user(value: object) -> bool:
    """Whether an object's class comes from a notebook or the user's own files."""
    if not hasattr(value, "__dict__") or isinstance(value, type):
        return False
    # What a run saves by itself has its own way; modules and optimizers are such.
    if hasattr(value, "state_dict") or callable(getattr(value, "log_epoch", None)):
        return False
    name = type(value).__module__
    if name == "__main__":
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and not any(Path(file).is_relative_to(root) for root in _LIBRARIES)


_LIBRARIES = {
    Path(root)
    for root in (
        *(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        str(Path(__file__).parents[1]),
    )
}
