"""How the checkpoint side sees PyTorch's tensors: described, copied to the host, rebuilt."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch

from colabkit.checkpoint import TensorSpec
from colabkit.errors import StateError

_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}

_new_stream: Callable[..., Any] = torch.cuda.Stream
_new_event: Callable[..., Any] = torch.cuda.Event

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class TorchBackend:
    """Copies tensors from any device into host memory without stalling the training step.

    Args:
        device: Where the model is trained; on a GPU the copies run on a stream of their own.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.tensor_type = torch.Tensor
        self.overlaps = self._on_gpu = device.type == "cuda"
        self._stream: Any = _new_stream(device) if self._on_gpu else None

    def is_tensor(self, value: object) -> bool:
        """Whether a value is stored as a tensor."""
        return isinstance(value, torch.Tensor)

    def describe(self, tensor: Any) -> TensorSpec:
        """Returns dtype, shape, size and address."""
        dtype = _NAMES.get(tensor.dtype)
        if dtype is None or tensor.layout is not torch.strided or tensor.is_quantized:
            message = f"A tensor of {tensor.dtype} in {tensor.layout} layout cannot be stored."
            raise StateError(message, where="", hint="Store a dense, unquantized tensor instead.")
        if tensor.device.type == "meta":
            message = "A tensor on the meta device has no values to store."
            raise StateError(message, where="", hint="Move it to a device, or leave it out.")
        return TensorSpec(
            dtype=dtype,
            shape=tuple(tensor.shape),
            nbytes=tensor.numel() * tensor.element_size(),
            address=tensor.data_ptr(),
        )

    def allocate(self, nbytes: int) -> Bytes:
        """Returns host memory, pinned where a GPU copies into it."""
        if self._on_gpu:
            pinned: Bytes = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
            return pinned
        return np.empty(nbytes, np.uint8)

    def copy(self, tensors: Sequence[Any], into: Sequence[Bytes]) -> Callable[[], None]:
        """Starts copying; the function returned waits until all is in place.

        Tensors in host memory are copied before this returns.
        """
        if not self._on_gpu:
            _copy_host(tensors, into)
            return _nothing
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for tensor, view in zip(tensors, into, strict=True):
                _typed(view, tensor).copy_(tensor.detach(), non_blocking=tensor.is_cuda)
                if tensor.is_cuda:
                    tensor.record_stream(self._stream)
            copied = _new_event()
            copied.record(self._stream)
        wait: Callable[[], None] = copied.synchronize
        return wait

    def form(self, tensor: Any) -> Hashable:
        """Returns what tensors put together have in common."""
        return (tensor.dtype, tensor.shape, tensor.device, tensor.layout)

    def packs(self, tensor: Any) -> bool:
        """Whether tensors of its form can be put together."""
        is_dense = tensor.layout is torch.strided and tensor.device.type != "meta"
        return is_dense and tensor.dtype in _NAMES

    def gather(self, tensors: list[Any]) -> Any:
        """Returns tensors of one form as rows of a new one, None where a form has changed."""
        first = tensors[0]
        with torch.no_grad(), contextlib.suppress(RuntimeError):
            # Joined along an axis that is there, which takes a fifth of stacking them.
            rows = torch.stack(tensors) if not first.ndim else torch.cat(tensors)
            # By .data or resize_ a tensor changes its form and stays the same object.
            if rows.dtype is first.dtype and rows.numel() == len(tensors) * first.numel():
                return rows.resolve_conj().reshape(len(tensors), *first.shape)
        return None

    def part(self, gathered: Any) -> list[torch.Tensor]:
        """Returns the rows, each with memory of its own."""
        return [row.clone() for row in gathered.unbind(0)]

    def rebuild(self, spec: TensorSpec, data: Bytes) -> torch.Tensor:
        """Returns a tensor over memory of its own."""
        dtype = _DTYPES[spec.dtype]
        if not spec.nbytes:
            return torch.empty(spec.shape, dtype=dtype)
        return torch.from_numpy(data).view(dtype).reshape(spec.shape)


def _copy_host(tensors: Sequence[Any], into: Sequence[Bytes]) -> None:
    for tensor, view in zip(tensors, into, strict=True):
        is_flat = tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
        if is_flat and tensor.device.type == "cpu":
            # Through no array: what NumPy has looked at, PyTorch does not let a model resize.
            ctypes.memmove(view.ctypes.data, tensor.data_ptr(), len(view))
        else:
            _typed(view, tensor).copy_(tensor.detach())


def _typed(view: Bytes, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(view).view(like.dtype).reshape(like.shape)


def _nothing() -> None:
    return None
