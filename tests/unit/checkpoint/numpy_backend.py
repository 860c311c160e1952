"""NumPy arrays as a framework's tensors, for tests without any framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from colabkit.checkpoint import TensorSpec


class Tensor:
    """A float32 tensor that is changed in place."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values, np.float32)


class NumpyBackend:
    overlaps = False

    def __init__(self) -> None:
        self.before_copy: Callable[[int], None] = lambda _: None

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, Tensor)

    def describe(self, tensor: Tensor) -> TensorSpec:
        values = tensor.values
        return TensorSpec("F32", values.shape, values.nbytes, values.ctypes.data)

    def allocate(self, nbytes: int) -> np.ndarray:
        return np.zeros(nbytes, np.uint8)

    def copy(self, tensors: Sequence[Tensor], into: Sequence[np.ndarray]) -> Callable[[], None]:
        self.before_copy(len(tensors))
        for tensor, view in zip(tensors, into, strict=True):
            np.copyto(view, tensor.values.reshape(-1).view(np.uint8))
        return lambda: None

    def rebuild(self, spec: TensorSpec, data: np.ndarray) -> Tensor:
        return Tensor(data.copy().view(np.float32).reshape(spec.shape))
