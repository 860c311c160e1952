"""How objects give their state and take it back."""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import Any

import numpy as np

_PAIRS = (("state_dict", "load_state_dict"), ("get_state", "set_state"), ("getstate", "setstate"))
_DATA = (bool, int, float, complex, str, bytes, bytearray, type(None), enum.Enum)
_ROWS = (list, tuple, set, frozenset, dict, collections.deque)


def state_pair_of(value: Any) -> tuple[str, str] | None:
    """Returns the names of the methods that give and take an object's state, None without."""
    return next(
        (p for p in _PAIRS if all(callable(getattr(value, each, None)) for each in p)), None
    )


def has_no_state(value: Any) -> bool:
    """Whether it is an object that only pickle could store, neither data nor with such methods.

    Example:
        >>> has_no_state([1.0]), has_no_state(object())
        (False, True)
    """
    is_data = isinstance(value, (*_DATA, *_ROWS, np.random.Generator))
    is_data = is_data or hasattr(type(value), "dtype") or dataclasses.is_dataclass(value)
    return not is_data and state_pair_of(value) is None
