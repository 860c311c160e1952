"""Whether the numbers in a tensor's bytes are finite."""

from __future__ import annotations

import numpy as np

from colabkit.storage import Bytes

_BY_DOT = {"F32": np.float32, "F64": np.float64, "C64": np.float32}
_EXPONENTS = {"F16": 0x7C00, "BF16": 0x7F80}
_PART = 1 << 18


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


def _are_finite(numbers: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        # A product is finite only where all numbers are, and costs a tenth of asking each.
        return bool(np.isfinite(np.dot(numbers, numbers))) or bool(np.isfinite(numbers).all())
