"""Whether the numbers in a tensor's bytes are finite, or numbers at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from colabkit.checkpoint.snapshot import SnapshotTensor
from colabkit.storage import Bytes

_BY_DOT = {"F32": np.float32, "F64": np.float64, "C64": np.float32}
_EXPONENTS = {"F16": 0x7C00, "BF16": 0x7F80}
_PART = 1 << 18


def can_go_on(trained: Iterable[SnapshotTensor], moments: Iterable[SnapshotTensor]) -> bool:
    """Whether training can: no weight is NaN or infinite, and of what goes into them none is NaN.

    An infinite mean of squares only holds a weight where it is.
    """
    if not all(is_finite(each.spec.dtype, each.view) for each in trained):
        return False
    return not any(has_nan(each.spec.dtype, each.view) for each in moments)


def is_moment(tensor: SnapshotTensor, moments: Mapping[str, str]) -> bool:
    """Whether an optimizer keeps it of a weight.

    Args:
        tensor: One of a snapshot.
        moments: By section, what the keys of such begin with.
    """
    begins = moments.get(tensor.section, "")
    return bool(begins and tensor.spec.shape) and tensor.key.startswith(begins)


def is_finite(dtype: str, data: Bytes) -> bool:
    """Returns False when any number is NaN or infinite; forms without such are finite.

    Args:
        dtype: The name safetensors gives the form.
        data: The tensor's bytes, in this machine's order.

    Example:
        >>> is_finite("F32", np.array([1.0, np.nan], np.float32).view(np.uint8))
        False
    """
    if dtype in _EXPONENTS:
        words, ones = data.view(np.uint16), np.uint16(_EXPONENTS[dtype])
        parts = (words[start : start + _PART] for start in range(0, len(words), _PART))
        return not any(bool(((part & ones) == ones).any()) for part in parts)
    if dtype in _BY_DOT:
        numbers = data.view(_BY_DOT[dtype])
        pieces = (numbers[start : start + _PART] for start in range(0, len(numbers), _PART))
        return all(_are_finite(piece) for piece in pieces)
    return True


def has_nan(dtype: str, data: Bytes) -> bool:
    """Whether any number is NaN; infinite ones are not.

    Args:
        dtype: The name safetensors gives the form.
        data: The tensor's bytes, in this machine's order.

    Example:
        >>> has_nan("F32", np.array([1.0, np.inf], np.float32).view(np.uint8))
        False
    """
    if dtype in _EXPONENTS:
        words, ones = data.view(np.uint16), np.uint16(_EXPONENTS[dtype])
        parts = (words[start : start + _PART] for start in range(0, len(words), _PART))
        return any(bool(((part & np.uint16(0x7FFF)) > ones).any()) for part in parts)
    if dtype in _BY_DOT:
        numbers = data.view(_BY_DOT[dtype])
        pieces = (numbers[start : start + _PART] for start in range(0, len(numbers), _PART))
        return any(_have_nan(piece) for piece in pieces)
    return False


def _have_nan(numbers: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        # Of squares no two cancel out: their sum is NaN only where one is.
        return bool(np.isnan(np.dot(numbers, numbers)))


def _are_finite(numbers: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        # A product is finite only where all numbers are, and costs a tenth of asking each.
        return bool(np.isfinite(np.dot(numbers, numbers))) or bool(np.isfinite(numbers).all())
