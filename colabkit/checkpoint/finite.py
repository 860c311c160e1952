"""Whether the numbers in a tensor's bytes are finite, or numbers at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

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
    return not _any_part(dtype, data, of_words=_have_all_ones, of_numbers=_are_not_finite)


def has_nan(dtype: str, data: Bytes) -> bool:
    """Whether any number is NaN; infinite ones are not.

    Args:
        dtype: The name safetensors gives the form.
        data: The tensor's bytes, in this machine's order.

    Example:
        >>> has_nan("F32", np.array([1.0, np.inf], np.float32).view(np.uint8))
        False
    """
    return _any_part(dtype, data, of_words=_have_more_than_ones, of_numbers=_have_nan)


def _any_part(
    dtype: str,
    data: Bytes,
    *,
    of_words: Callable[[np.ndarray, np.uint16], bool],
    of_numbers: Callable[[np.ndarray], bool],
) -> bool:
    """Whether any part is so: of halves by their words and exponent of ones, else by numbers."""
    if dtype in _EXPONENTS:
        ones = np.uint16(_EXPONENTS[dtype])
        return any(of_words(part, ones) for part in _parts(data.view(np.uint16)))
    return dtype in _BY_DOT and any(map(of_numbers, _parts(data.view(_BY_DOT[dtype]))))


def _parts(numbers: np.ndarray) -> Iterator[np.ndarray]:
    return (numbers[start : start + _PART] for start in range(0, len(numbers), _PART))


def _have_all_ones(words: np.ndarray, ones: np.uint16) -> bool:
    return bool(((words & ones) == ones).any())


def _have_more_than_ones(words: np.ndarray, ones: np.uint16) -> bool:
    return bool(((words & np.uint16(0x7FFF)) > ones).any())


def _have_nan(numbers: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        # Of squares no two cancel out: their sum is NaN only where one is.
        return bool(np.isnan(np.dot(numbers, numbers)))


def _are_not_finite(numbers: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        # A product is finite only where all numbers are, and costs a tenth of asking each.
        return not (np.isfinite(np.dot(numbers, numbers)) or np.isfinite(numbers).all())
