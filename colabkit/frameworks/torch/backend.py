"""How the checkpoint side sees PyTorch's tensors: described, copied to the host, rebuilt."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch

from colabkit.checkpoint import TensorSpec, members_of
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

_form = operator.attrgetter("dtype", "shape", "device", "layout")
_MARKS = (torch.Tensor.data_ptr, operator.attrgetter("dtype"), operator.attrgetter("shape"))
_FEW = 256
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
_new_stream: Callable[..., Any] = torch.cuda.Stream
_new_event: Callable[..., Any] = torch.cuda.Event

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def can_be_stored(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values of a form that files of tensors know, or is made of such."""
    if tensor.device.type == "meta":
        return False
    if tensor.layout is not torch.strided:
        return all(map(_is_known, members_of(tensor).values() or [tensor]))
    is_wide = tensor.dtype is torch.complex128
    return is_wide or _is_known(tensor) or hasattr(tensor, "__tensor_flatten__")


def _is_known(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.dtype in _NAMES


def address_of(tensor: torch.Tensor) -> int:
    """Returns where a tensor's memory begins, 0 where it has none of its own."""
    return tensor.data_ptr() if tensor.layout is torch.strided else 0


def has_shared_elements(tensor: torch.Tensor) -> bool:
    """Whether several of its elements are one place in memory, as where it was expanded."""
    return tensor.layout is torch.strided and 0 in tensor.stride() and tensor.numel() > 1


class TorchBackend:
    """Copies tensors from any device into host memory without stalling the training step.

    Args:
        device: Where the model is trained. Where that is a GPU, what lies on any GPU is copied on
            a stream of its own; on other accelerators, copies are waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.tensor_type: type = torch.Tensor
        self.form: Callable[[Any], Hashable] = _form
        self.overlaps = device.type == "cuda"
        self._streams: dict[torch.device, Any] = {}

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, torch.Tensor)

    def describe(self, tensor: Any) -> TensorSpec:
        """Returns dtype, shape, size and address."""
        dtype = _NAMES.get(tensor.dtype)
        if tensor.layout is not torch.strided or tensor.is_quantized:
            message = f"A tensor of {tensor.dtype} in {tensor.layout} layout cannot be stored."
            raise StateError(message, where="", hint="Store a dense, unquantized tensor instead.")
        if dtype is None:
            message = f"A tensor of {tensor.dtype} cannot be stored."
            raise StateError(message, where="", hint="Store it in another type.")
        if tensor.device.type == "meta":
            message = "A tensor on the meta device has no values to store."
            raise StateError(message, where="", hint="Move it to a device, or leave it out.")
        return TensorSpec(
            dtype=dtype,
            shape=tuple(tensor.shape),
            nbytes=tensor.numel() * tensor.element_size(),
            address=tensor.data_ptr(),
        )

    def address(self, tensor: Any) -> int:
        """Returns where its memory begins, 0 where it has none of its own."""
        return address_of(tensor)

    def is_same(self, tensor: Any, other: Any) -> bool:
        """Whether two at one address are one: the same numbers, of the same form."""
        return bool(tensor.numel()) and _reads_as(tensor) == _reads_as(other)

    def axes_in_memory(self, tensor: Any) -> tuple[int, ...] | None:
        """Returns the axes, that of the longest step first; None for row after row, and gaps."""
        return axes_of(tensor)

    def transposed(self, tensor: Any, axes: Sequence[int]) -> Any:
        """Returns a tensor of the same memory with its axes in this order."""
        return tensor.detach().permute(*axes)

    def allocate(self, nbytes: int) -> Bytes:
        """Returns host memory, pinned where a GPU copies into it."""
        if self.overlaps:
            pinned: Bytes = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
            return pinned
        return np.empty(nbytes, np.uint8)

    def copy(self, tensors: Sequence[Any], into: Sequence[Bytes]) -> Callable[[], None]:
        """Starts copying; the function returned waits until all is in place.

        Tensors in host memory are copied before this returns.
        """
        if not self.overlaps:
            _copy_host(tensors, into)
            return _nothing
        by_device: dict[torch.device, list[tuple[Any, Bytes]]] = collections.defaultdict(list)
        for tensor, view in zip(tensors, into, strict=True):
            by_device[tensor.device].append((tensor, view))
        waits = []
        for device, pairs in by_device.items():
            if device.type == "cuda":
                waits.append(self._copy_from(device, pairs))
        for device, pairs in by_device.items():
            if device.type != "cuda":
                _copy_host(*zip(*pairs, strict=True))

        def wait_for_all() -> None:
            for wait in waits:
                wait()

        return wait_for_all

    def _copy_from(
        self, device: torch.device, pairs: Sequence[tuple[Any, Bytes]]
    ) -> Callable[[], None]:
        """Starts copying from one GPU, on a stream of its own."""
        stream = self._streams.get(device)
        if stream is None:
            stream = self._streams[device] = _new_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for tensor, view in pairs:
                _typed(view, tensor).copy_(tensor.detach(), non_blocking=True)
                tensor.record_stream(stream)
            # One that does not block spins, and takes a core from the data's workers.
            copied = _new_event(blocking=True)
            copied.record(stream)
        wait: Callable[[], None] = copied.synchronize
        return wait

    def packs(self, tensor: Any) -> bool:
        """Whether tensors of its form can be put together."""
        return can_be_stored(tensor) and _is_known(tensor)

    def gather(self, tensors: list[Any] | tuple[Any, ...]) -> Any:
        """Returns tensors of one form as rows of a new one, None where a form has changed."""
        first = tensors[0]
        with torch.no_grad(), contextlib.suppress(RuntimeError):
            # Joined along an axis that is there, which takes a fifth of stacking them.
            rows = torch.cat(tensors) if first.ndim else torch.stack(tensors)
            # By .data or resize_ a tensor changes its form and stays the same object.
            if rows.dtype is first.dtype and rows.numel() == len(tensors) * first.numel():
                return rows.resolve_conj().reshape(len(tensors), *first.shape)
        return None

    def part(self, gathered: Any) -> list[torch.Tensor]:
        """Returns the rows, each with memory of its own."""
        return [row.clone() for row in gathered.unbind(0)]

    def marks(self, tensors: Sequence[Any]) -> Sequence[Any] | None:
        """Returns what is the same while each has its form and place; None where one has none."""
        return marks_of(tensors)

    def rebuild(self, spec: TensorSpec, data: Bytes) -> torch.Tensor:
        """Returns a tensor over memory of its own."""
        dtype = _DTYPES[spec.dtype]
        if not spec.nbytes:
            return torch.empty(spec.shape, dtype=dtype)
        return torch.from_numpy(data).view(dtype).reshape(spec.shape)


def axes_of(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Returns the axes, that of the longest step first; None for row after row, and gaps."""
    if tensor.layout is not torch.strided or tensor.is_contiguous() or type(tensor) not in _PLAIN:
        return None
    steps = tensor.stride()
    axes = tuple(sorted(range(tensor.ndim), key=lambda axis: -steps[axis]))
    return axes if tensor.permute(axes).is_contiguous() else None


def marks_of(tensors: Sequence[Any]) -> list[list[Any]] | None:
    """Returns what is the same while each has its form and place; None where one has none."""
    with contextlib.suppress(RuntimeError):
        # A few at a time, which stay in the processor's cache until each mark was read.
        few = (tensors[at : at + _FEW] for at in range(0, len(tensors), _FEW))
        return [list(map(mark, each)) for each in few for mark in _MARKS]
    return None


def have_marks(tensors: Sequence[Any], marks: Sequence[Any] | None) -> bool:
    """Whether tensors still are what ``marks_of`` once gave."""
    places = range(0, len(tensors), _FEW)
    if marks is None or len(marks) != len(places) * len(_MARKS):
        return False
    # Compared and dropped by the few, too: 40,000 new forms would call the garbage collector.
    known = iter(marks)
    with contextlib.suppress(RuntimeError):
        few = (tensors[at : at + _FEW] for at in places)
        return all(list(map(mark, each)) == next(known) for each in few for mark in _MARKS)
    return False


def _reads_as(tensor: Any) -> tuple[Any, ...]:
    """Returns all that decides which numbers a tensor reads from its memory."""
    bits = (tensor.is_conj(), tensor.is_neg())
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride(), bits


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
