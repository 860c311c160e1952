"""PyTorch asked to use the GPU."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from colabkit.runtime.faults import GpuFault, fault_in
from colabkit.runtime.frameworks import IMPORT_FAILURES, FrameworkReport, first_line
from colabkit.runtime.gpus import ComputeCapability

_NAME = "PyTorch"


class TorchFramework:
    """PyTorch; imported only when it is probed."""

    module = "torch"

    def prepare(self) -> None:
        """PyTorch needs nothing set beforehand."""

    def probe(self) -> FrameworkReport:
        """Imports PyTorch and computes one number on the GPU."""
        try:
            import torch  # imported on use
        except IMPORT_FAILURES as error:
            return FrameworkReport(_NAME, fault=GpuFault.BROKEN_FRAMEWORK, said=first_line(error))
        if sys.platform == "darwin":
            return _on_apple(torch)
        cuda = torch.version.cuda or getattr(torch.version, "hip", None)
        if cuda is None:
            return FrameworkReport(
                _NAME,
                version=torch.__version__,
                fault=GpuFault.CPU_ONLY_BUILD,
                said="Torch not compiled with CUDA enabled",
            )
        return _on_cuda(torch, cuda)

    def hide_gpu(self) -> str:
        """PyTorch uses no GPU unless told to."""
        return ""


def _on_cuda(torch: Any, cuda: str) -> FrameworkReport:
    try:
        with warnings.catch_warnings():
            # PyTorch's warnings on old cards and drivers are said in words of ours.
            warnings.simplefilter("ignore")
            torch.cuda.init()
            index = torch.cuda.current_device()
            # A kernel must run: a card too old for this build still gives memory.
            torch.ones(1, device=f"cuda:{index}").add_(1).item()
        properties = torch.cuda.get_device_properties(index)
        free_bytes, _ = torch.cuda.mem_get_info(index)
    except (RuntimeError, AssertionError) as error:
        # AssertionError is how a CPU-only build refuses.
        return FrameworkReport(
            _NAME,
            version=torch.__version__,
            fault=fault_in(str(error)),
            said=first_line(error),
            cuda_version=cuda,
            own_bytes=_own_bytes(torch),
        )
    return FrameworkReport(
        _NAME,
        version=torch.__version__,
        cuda_version=cuda,
        name=properties.name,
        uuid=str(getattr(properties, "uuid", "")),
        memory_bytes=properties.total_memory,
        free_bytes=free_bytes,
        own_bytes=_own_bytes(torch),
        compute_capability=ComputeCapability(properties.major, properties.minor),
        count=torch.cuda.device_count(),
    )


def _own_bytes(torch: Any) -> int:
    if not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_reserved())


def _on_apple(torch: Any) -> FrameworkReport:
    if not torch.backends.mps.is_available():
        return FrameworkReport(
            _NAME,
            version=torch.__version__,
            fault=GpuFault.NOT_SEEN,
            said="this PyTorch or this macOS is too old for Apple's GPU",
        )
    try:
        torch.ones(1, device="mps").add_(1).item()
    except RuntimeError as error:
        return FrameworkReport(
            _NAME, version=torch.__version__, fault=fault_in(str(error)), said=first_line(error)
        )
    return FrameworkReport(
        _NAME,
        version=torch.__version__,
        backend="mps",
        name="Apple GPU",
        memory_bytes=int(torch.mps.recommended_max_memory()),
    )
