"""Device and precision for a PyTorch run."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from colabkit.errors import ArgumentError
from colabkit.frameworks.processes import process_count
from colabkit.runtime import preferred_device

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# What others call the same: Lightning, Accelerate, Keras, PyTorch.
_ALSO = {
    "fp32": (32, "32", "32-true", "no", "float32", torch.float32),
    "bf16": ("bf16-mixed", "bfloat16", "mixed_bfloat16", torch.bfloat16),
    "fp16": (16, "16", "16-mixed", "float16", "mixed_float16", torch.float16),
}
_BY_NAME = {other: name for name, others in _ALSO.items() for other in others}


@dataclasses.dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are kept in the forward pass.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        dtype: What autocast lowers to, or None for fp32.
    """

    name: str
    dtype: torch.dtype | None

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Returns the context of the forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler | None:
        """Returns the gradient scaler that fp16 needs, else None."""
        return torch.amp.GradScaler(device.type) if self.name == "fp16" else None


def choose_device(device: str | torch.device | None) -> torch.device:
    """Returns the device asked for, or what setup() settled on, or the best that works.

    Raises:
        ArgumentError: The device asked for does not exist here.
    """
    device = preferred_device() if device is None else device
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, ValueError) as error:
        message = f"device={device!r} cannot be used here: {str(error).splitlines()[0]}"
        hint = "Pass device=None to take what works, or device='cpu'."
        if str(device).startswith("gpu"):
            message = f"device={device!r} is no name that PyTorch knows."
            hint = "Write device='cuda', or leave it out to take what works."
        raise ArgumentError(message, argument="device", hint=hint) from error
    return chosen


def choose_precision(precision: Any, device: torch.device) -> Precision:
    """Returns the precision asked for; "auto" is fp32 on a CPU, bf16 where native, else fp16.

    Names that others have for the same are taken: "16-mixed", "bf16-mixed", 32, torch.float16.

    Raises:
        ArgumentError: The name is unknown.
    """
    if precision == "auto":
        if device.type != "cuda":
            return Precision("fp32", None)
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if native else "fp16"
    if isinstance(precision, str | int | torch.dtype):
        precision = _BY_NAME.get(precision, precision)
    if not isinstance(precision, str) or precision not in _PRECISIONS:
        hint = 'Pass "auto", "fp32", "bf16" or "fp16"; weights stay as they are in all of them.'
        raise ArgumentError.of("precision", precision, hint)
    return Precision(precision, _PRECISIONS[precision])


def moved(batch: Any, device: torch.device) -> Any:
    """Returns a batch with every tensor on a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, PackedSequence):
        return batch.to(device, non_blocking=True)  # type: ignore[arg-type]  # its stub is short
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(value, device) for value in batch)
    return batch


def environment_on(device: torch.device, *, in_pieces: bool) -> dict[str, Any]:
    """Returns what must be the same for the same bits.

    Args:
        device: Where the weights are.
        in_pieces: Whether each process has pieces of them.
    """
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "processor": "" if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "CPU_threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        # Kernels round the last elements of a piece as they do not round those in mid-tensor.
        "weights": f"in {process_count()} pieces" if in_pieces else "whole",
    }
