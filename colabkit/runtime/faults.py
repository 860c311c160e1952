"""Why a GPU cannot be used, told from what drivers and frameworks say."""

from __future__ import annotations

import enum


class GpuFault(enum.Enum):
    """Why training does not run on a GPU."""

    NOT_WANTED = "no GPU was asked for"
    NO_GPU = "this machine has no GPU"
    TPU_MACHINE = "this machine has a TPU in its place"
    CPU_ONLY_BUILD = "the framework is built for the CPU only"
    DRIVER_TOO_OLD = "the driver is older than the framework needs"
    DRIVER_BROKEN = "the driver does not work"
    OUT_OF_MEMORY = "the GPU's memory is taken"
    BUSY = "another process has the GPU for itself"
    HIDDEN = "the environment hides the GPU"
    GPU_TOO_OLD = "the framework no longer knows this GPU"
    NO_MIG_SLICE = "the GPU is cut into slices, and none is here"
    BROKEN_FRAMEWORK = "the framework cannot be imported"
    NOT_SEEN = "the framework does not find the GPU"
    OTHER = "the framework cannot use the GPU"


# The first that is found in the framework's words decides; both frameworks quote CUDA's own.
_SIGNS = (
    ("not compiled with cuda", GpuFault.CPU_ONLY_BUILD),
    ("driver on your system is too old", GpuFault.DRIVER_TOO_OLD),
    ("driver version is insufficient", GpuFault.DRIVER_TOO_OLD),
    ("unsupported display driver / cuda driver combination", GpuFault.DRIVER_TOO_OLD),
    ("forward compatibility was attempted", GpuFault.DRIVER_TOO_OLD),
    ("out of memory", GpuFault.OUT_OF_MEMORY),
    ("out_of_memory", GpuFault.OUT_OF_MEMORY),
    ("resource exhausted", GpuFault.OUT_OF_MEMORY),
    ("oom when allocating", GpuFault.OUT_OF_MEMORY),
    ("dst tensor is not initialized", GpuFault.OUT_OF_MEMORY),
    ("no kernel image is available", GpuFault.GPU_TOO_OLD),
    ("busy or unavailable", GpuFault.BUSY),
    ("no cuda gpus are available", GpuFault.NOT_SEEN),
    ("no cuda-capable device", GpuFault.NOT_SEEN),
    ("found no nvidia driver", GpuFault.DRIVER_BROKEN),
    ("driver/library version mismatch", GpuFault.DRIVER_BROKEN),
    ("couldn't communicate with the nvidia driver", GpuFault.DRIVER_BROKEN),
    ("system not yet initialized", GpuFault.DRIVER_BROKEN),
)


def fault_in(said: str) -> GpuFault:
    """Returns what a framework's error means.

    Example:
        >>> fault_in("CUDA out of memory. Tried to allocate 20.00 MiB.")
        <GpuFault.OUT_OF_MEMORY: "the GPU's memory is taken">
    """
    lowered = said.lower()
    for sign, fault in _SIGNS:
        if sign in lowered:
            return fault
    return GpuFault.OTHER
