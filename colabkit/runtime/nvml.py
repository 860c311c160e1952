"""The driver's facts through NVIDIA's management library, by the package nvidia-ml-py."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from colabkit.runtime.gpus import ComputeCapability, DriverReport, Gpu, GpuProcess


def load_nvml() -> ModuleType | None:
    """Imports nvidia-ml-py; returns None when it is not installed."""
    try:
        with warnings.catch_warnings():
            # An older package of the same import name announces its own end.
            warnings.simplefilter("ignore")
            return importlib.import_module("pynvml")
    except ImportError:
        return None


class NvmlDriver:
    """Asks NVML, which is faster than ``nvidia-smi`` and starts no process.

    Args:
        load: Returns the module ``pynvml`` or None, for tests.

    Source:
        NVML API reference. Process numbers are those of the machine, not of a container.
    """

    def __init__(self, load: Callable[[], Any] = load_nvml) -> None:
        self._load = load

    def report(self) -> DriverReport | None:
        """Returns what NVML says, None when it cannot be asked here."""
        nvml = self._load()
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            missing = getattr(nvml, "NVMLError_LibraryNotFound", ())
            return None if isinstance(error, missing) else DriverReport(failure=str(error))
        try:
            return DriverReport(
                gpus=tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())),
                version=_text(nvml.nvmlSystemGetDriverVersion()),
                cuda_version=_cuda_version(nvml),
            )
        except nvml.NVMLError as error:
            return DriverReport(failure=str(error))
        finally:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _query(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    capability = _query(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    mig_mode = _query(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    holders = _query(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
    is_cut = bool(mig_mode and mig_mode[0])
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(_query(nvml, lambda: nvml.nvmlDeviceGetUUID(handle)) or ""),
        memory_bytes=int(memory.total) if memory else None,
        free_bytes=int(memory.free) if memory else None,
        compute_capability=ComputeCapability(*capability) if capability else None,
        mig_enabled=is_cut,
        mig_slices=_slices(nvml, handle) if is_cut else (),
        processes=tuple(_process(nvml, holder) for holder in holders),
    )


def _process(nvml: Any, holder: Any) -> GpuProcess:
    name = _query(nvml, lambda: nvml.nvmlSystemGetProcessName(holder.pid))
    return GpuProcess(int(holder.pid), _text(name or ""), holder.usedGpuMemory)


def _slices(nvml: Any, handle: Any) -> tuple[str, ...]:
    found = []
    for index in range(_query(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            name = _text(nvml.nvmlDeviceGetName(part))
        except nvml.NVMLError:
            continue  # this place holds no slice
        found.append(name.rpartition("MIG ")[2])
    return tuple(found)


def _cuda_version(nvml: Any) -> str:
    number = _query(nvml, lambda: nvml.nvmlSystemGetCudaDriverVersion_v2())
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _query(nvml: Any, ask: Callable[[], Any]) -> Any:
    """Returns an answer, or None where this card or driver does not give it."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
