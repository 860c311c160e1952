"""What the checkpoint side needs to know of a tensor, whatever framework it comes from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from colabkit.storage import Bytes

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_NUMPY = {
    "f8": "F64", "f4": "F32", "f2": "F16", "c8": "C64", "b1": "BOOL",
    "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8",
    "u8": "U64", "u4": "U32", "u2": "U16", "u1": "U8",
}  # fmt: skip
_FROM_NUMPY = {name: code for code, name in _NUMPY.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's form.

    Attributes:
        dtype: The name safetensors gives it: "F32", "BF16", "I64", ...
        shape: Its dimensions.
        nbytes: Size in bytes.
        address: Where its memory begins; it tells tensors apart, and is no part of the form.
    """

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    address: int = dataclasses.field(default=0, compare=False)


class TensorBackend(Protocol):
    """A framework's tensors, seen from the checkpoint side."""

    overlaps: bool
    """Whether ``copy`` returns before the bytes are in place."""

    def is_tensor(self, value: object) -> bool:
        """Whether a value is stored as a tensor."""
        ...

    def describe(self, tensor: Any) -> TensorSpec:
        """Returns dtype, shape, size and address."""
        ...

    def allocate(self, nbytes: int) -> Bytes:
        """Returns host memory."""
        ...

    def copy(self, tensors: Sequence[Any], into: Sequence[Bytes]) -> Callable[[], None]:
        """Starts copying; the function returned waits until all is in place."""
        ...

    def rebuild(self, spec: TensorSpec, data: Bytes) -> Any:
        """Returns a tensor over memory of its own."""
        ...


@runtime_checkable
class TellsApart(Protocol):
    """A backend that knows when two names stand for one tensor, such as tied weights."""

    def address(self, tensor: Any) -> int:
        """Returns where its memory begins, 0 where it has none of its own."""
        ...

    def is_same(self, tensor: Any, other: Any) -> bool:
        """Whether two at one address are one: the same numbers, of the same form."""
        ...


@runtime_checkable
class LaysOut(Protocol):
    """A backend whose tensors may lie otherwise than row after row."""

    def axes_in_memory(self, tensor: Any) -> tuple[int, ...] | None:
        """Returns the axes, that of the longest step first; None for row after row, and gaps."""
        ...

    def transposed(self, tensor: Any, axes: Sequence[int]) -> Any:
        """Returns a tensor of the same memory with its axes in this order."""
        ...


@runtime_checkable
class Holding(Protocol):
    """A backend whose tensors training may take away, so that a snapshot needs its own."""

    def hold(self, tensors: Sequence[Any]) -> list[Any]:
        """Starts to copy tensors where they lie; ``copy`` takes what is returned."""
        ...


def describe_array(array: np.ndarray[Any, Any]) -> TensorSpec | None:
    """Returns the form of a NumPy array, None when it holds no plain numbers."""
    name = _NUMPY.get(array.dtype.str[1:])
    if name is None or not array.dtype.isnative:
        return None
    address = array.__array_interface__["data"][0]
    return TensorSpec(name, array.shape, array.nbytes, address)


def rebuild_array(spec: TensorSpec, data: Bytes) -> np.ndarray[Any, Any]:
    """Returns a NumPy array with memory of its own."""
    return data.copy().view(_FROM_NUMPY[spec.dtype]).reshape(spec.shape)


def expected_nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Returns the size in bytes of a tensor of this form."""
    return ITEM_BYTES[dtype] * math.prod(shape)
