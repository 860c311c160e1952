"""How the checkpoint side sees JAX's arrays: copied where they lie, brought to the host later."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from colabkit.checkpoint import TensorSpec
from colabkit.errors import StateError
from colabkit.storage import Bytes

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_NUMPY: dict[str, Any] = {
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
_NUMPY |= {code: np.dtype(name) for name, code in _NAMES.items() if code not in _NUMPY}
# By type and not by its name, which takes NumPy longer to say than all else takes.
_CODES = {np.dtype(kind): code for code, kind in _NUMPY.items()}


def is_key(value: Any) -> bool:
    """Whether a value is an array of typed random keys."""
    return isinstance(value, jax.Array) and bool(
        jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    )


def _copies_of(arrays: Sequence[Any]) -> list[Any]:
    return [jnp.copy(array) for array in arrays]


# One call for all: one by one, each would cost the training thread 80 microseconds.
_copied: Callable[[Sequence[Any]], list[Any]] = jax.jit(_copies_of)


class _Held:
    """What an array was at one moment, let go as soon as it is on the host."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array


class JaxBackend:
    """Holds arrays as they are, without waiting; any thread brings them to the host.

    A step that is given its state to overwrite deletes the arrays that were passed: what is only
    referred to would be gone before it is written. So they are copied on their device, except in
    host memory: what NumPy looks at there, JAX leaves alone, and gives the step other memory.
    """

    overlaps = False

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, jax.Array) and not is_key(value)

    def describe(self, tensor: Any) -> TensorSpec:
        """Returns dtype, shape and size."""
        name = _CODES.get(tensor.dtype)
        if name is None:
            message = f"An array of {tensor.dtype} cannot be stored."
            raise StateError(message, where="", hint="Keep it in a type of 8 bits or more.")
        if tensor.is_deleted():
            raise deleted_error(of="an array of the run")
        return TensorSpec(name, tensor.shape, tensor.nbytes)

    def hold(self, tensors: Sequence[Any]) -> list[Any]:
        """Looks at what lies in host memory, and starts a copy of all else on its own device."""
        found: list[Any] = [None] * len(tensors)
        by_devices: dict[Any, list[int]] = collections.defaultdict(list)
        for place, tensor in enumerate(tensors):
            devices = tensor.sharding.device_set
            if all(device.platform == "cpu" for device in devices):
                found[place] = _Held(np.asarray(tensor))
            else:
                by_devices[frozenset(devices)].append(place)
        for places in by_devices.values():
            for place, copy in zip(places, _copied([tensors[n] for n in places]), strict=True):
                found[place] = _Held(copy)
        return found

    def allocate(self, nbytes: int) -> Bytes:
        """Returns host memory."""
        return np.empty(nbytes, np.uint8)

    def copy(self, tensors: Sequence[Any], into: Sequence[Bytes]) -> Callable[[], None]:
        """Brings what is held to the host, and lets each go."""
        for held in tensors:
            if isinstance(held.array, jax.Array):
                held.array.copy_to_host_async()
        for held, view in zip(tensors, into, strict=True):
            np.copyto(view, np.ascontiguousarray(held.array).reshape(-1).view(np.uint8))
            held.array = None
        return _nothing

    def rebuild(self, spec: TensorSpec, data: Bytes) -> np.ndarray[Any, Any]:
        """Returns an array in host memory; where it belongs, only its owner knows."""
        array: np.ndarray[Any, Any] = data.copy().view(_NUMPY[spec.dtype]).reshape(spec.shape)
        return array


def deleted_error(*, of: str) -> StateError:
    """Returns the error for an array that a step was given to overwrite."""
    message = f"{of} was given to a function that overwrites it (donate_argnums), and is gone."
    hint = "Assign what the function returns: run.state = step(run.state, ...)."
    return StateError(message, where=of, hint=hint)


def _nothing() -> None:
    return None
