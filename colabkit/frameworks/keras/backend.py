"""How the checkpoint side sees TensorFlow's variables: held as they are now, copied later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

from colabkit.checkpoint import TensorSpec
from colabkit.errors import StateError

_NAMES = {
    tf.float64: "F64",
    tf.float32: "F32",
    tf.float16: "F16",
    tf.bfloat16: "BF16",
    tf.int64: "I64",
    tf.int32: "I32",
    tf.int16: "I16",
    tf.int8: "I8",
    tf.uint64: "U64",
    tf.uint32: "U32",
    tf.uint16: "U16",
    tf.uint8: "U8",
    tf.bool: "BOOL",
    tf.complex64: "C64",
    tf.as_dtype("float8_e4m3fn"): "F8_E4M3",
    tf.as_dtype("float8_e5m2"): "F8_E5M2",
}
_NUMPY: dict[str, Any] = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
_NUMPY |= {name: t.as_numpy_dtype for t, name in _NAMES.items() if name not in _NUMPY}

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Held:
    """A variable's value at one moment, without a copy.

    TensorFlow never writes into a tensor that somebody still holds: a step that updates the
    variable meanwhile gives it new memory.
    """

    __slots__ = ("spec", "tensor")

    def __init__(self, tensor: Any) -> None:
        name = _NAMES.get(tensor.dtype)
        if name is None:
            message = f"A variable of {tensor.dtype.name} cannot be stored."
            raise StateError(message, where="", hint="Keep it outside the model.")
        shape = tuple(tensor.shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * tensor.dtype.size
        self.tensor = tensor
        self.spec = TensorSpec(name, shape, nbytes)


def hold(variable: Any) -> Any:
    """Holds the value that a Keras or TensorFlow variable has now."""
    inner = variable.value
    tensor = inner() if callable(inner) else inner.value()
    return tensor.numpy() if tensor.dtype == tf.complex128 else Held(tensor)


class KerasBackend:
    """Copies held values into host memory, on whichever thread asks."""

    overlaps = False

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, Held)

    def describe(self, tensor: Any) -> TensorSpec:
        """Returns dtype, shape, size and address."""
        spec: TensorSpec = tensor.spec
        return spec

    def allocate(self, nbytes: int) -> Bytes:
        """Returns host memory."""
        return np.empty(nbytes, np.uint8)

    def copy(self, tensors: Sequence[Any], into: Sequence[Bytes]) -> Callable[[], None]:
        """Copies, and lets each value go as soon as it is copied."""
        for held, view in zip(tensors, into, strict=True):
            np.copyto(view, _bytes_of(held))
            held.tensor = None
        return _nothing

    def rebuild(self, spec: TensorSpec, data: Bytes) -> np.ndarray[Any, Any]:
        """Returns an array over memory of its own."""
        array: np.ndarray[Any, Any] = data.copy().view(_NUMPY[spec.dtype]).reshape(spec.shape)
        return array


def _bytes_of(held: Held) -> Bytes:
    tensor = held.tensor
    if tensor.dtype == tf.bfloat16:
        # NumPy cannot look into it; its bits it can.
        tensor = tf.bitcast(tensor, tf.uint16)
    # What NumPy knows is looked at in place in host memory; the rest is copied there.
    in_place = "CPU" in tensor.device and not held.spec.dtype.startswith("F8")
    array = np.asarray(memoryview(tensor)) if in_place else tensor.numpy()
    flat: Bytes = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat


def _nothing() -> None:
    return None
