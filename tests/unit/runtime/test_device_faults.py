"""What is wrong with a GPU is told apart, each with its reason and its advice."""

from __future__ import annotations

import os

import pytest

from colabkit.errors import ColabKitError, GpuUnavailableError
from colabkit.runtime import (
    DeviceKind,
    GpuFault,
    Platform,
    detect_device,
)
from tests.unit.runtime import machines
from tests.unit.runtime.machines import OTHER_PID, Smi, fails, holding, probes

GB = 1 << 30
T4 = Smi(machines.T4_LINE)
T4_FULL = Smi(machines.T4_FULL_LINE)

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 14.74 GiB of"
    " which 1.06 MiB is free. Process 4321 has 14.74 GiB memory in use."
)


CASES = {
    "no GPU": (
        None,
        (),
        GpuFault.NO_GPU,
        "There is no GPU on this Google Colab machine.",
        "Runtime → Change runtime type → T4 GPU",
    ),
    "the tools of a driver but no card": (
        Smi(machines.NO_DEVICES),
        (),
        GpuFault.NO_GPU,
        "There is no GPU on this Google Colab machine.",
        "Runtime → Change runtime type → T4 GPU",
    ),
    "a CPU-only PyTorch": (
        T4,
        (
            fails(
                GpuFault.CPU_ONLY_BUILD,
                "Torch not compiled with CUDA enabled",
                version="2.11.0+cpu",
                cuda_version="",
            ),
        ),
        GpuFault.CPU_ONLY_BUILD,
        (
            "Tesla T4 is here, but PyTorch 2.11.0+cpu is built for the CPU only"
            ' ("Torch not compiled with CUDA enabled").'
        ),
        "colabkit.release() gives this one back",
    ),
    "a driver too old": (
        Smi(machines.OLD_DRIVER_LINE, header=machines.OLD_HEADER, is_old=True),
        (fails(GpuFault.DRIVER_TOO_OLD),),
        GpuFault.DRIVER_TOO_OLD,
        (
            "Tesla T4 is here, but its driver 470.82.01 (CUDA 11.4) is too old for"
            " PyTorch 2.11.0+cu128, which needs CUDA 12.8."
        ),
        "colabkit.release() gives this one back",
    ),
    "a driver that does not match its library": (
        Smi(machines.MISMATCH),
        (fails(GpuFault.OTHER, "Unexpected error from cudaGetDeviceCount()"),),
        GpuFault.DRIVER_BROKEN,
        (
            'The NVIDIA driver does not work ("Failed to initialize NVML:'
            ' Driver/library version mismatch").'
        ),
        "colabkit.release() gives this one back",
    ),
    "memory held by another process": (
        holding(OTHER_PID, "/usr/bin/python3"),
        (fails(GpuFault.OUT_OF_MEMORY, "CUDA out of memory."),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: process 4321 (/usr/bin/python3) holds 14.5 GB of its 15.0 GB.",
        "End it if it is yours (!kill 4321). Runtime → Manage sessions",
    ),
    "memory held by another process of unknown name and size": (
        holding(OTHER_PID, "[Insufficient Permissions]", "[N/A]"),
        (fails(GpuFault.OUT_OF_MEMORY),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: process 4321 holds its memory.",
        "!kill 4321",
    ),
    "memory held by a process that the driver hides": (
        T4_FULL,
        (fails(GpuFault.OUT_OF_MEMORY),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: a process that the driver does not name here holds its memory.",
        "Runtime → Manage sessions",
    ),
    "memory held by a process that only the framework names": (
        T4_FULL,
        (fails(GpuFault.OUT_OF_MEMORY, OUT_OF_MEMORY),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: process 4321 holds 14.7 GB of its 15.0 GB.",
        "!kill 4321",
    ),
    "memory held by earlier cells, as the driver says": (
        holding(os.getpid(), "/usr/bin/python3"),
        (fails(GpuFault.OUT_OF_MEMORY),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: earlier cells of this session hold 14.5 GB of its 15.0 GB.",
        "Restart the session",
    ),
    "memory held by earlier cells, as only the framework says": (
        T4_FULL,
        (fails(GpuFault.OUT_OF_MEMORY, own_bytes=14 * GB),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: earlier cells of this session hold 14.0 GB of its 15.0 GB.",
        "torch.cuda.empty_cache()",
    ),
    "memory held by earlier cells, under the number the host gives this container's process": (
        holding(OTHER_PID, ""),
        (fails(GpuFault.OUT_OF_MEMORY, own_bytes=14 * GB),),
        GpuFault.OUT_OF_MEMORY,
        "Tesla T4 is full: earlier cells of this session hold 14.0 GB of its 15.0 GB.",
        "Restart the session",
    ),
    "a GPU for one process alone": (
        holding(OTHER_PID, "python3"),
        (fails(GpuFault.BUSY),),
        GpuFault.BUSY,
        "Another process has Tesla T4 for itself: process 4321 (python3) holds 14.5 GB.",
        "End that process",
    ),
    "a GPU that PyTorch has dropped": (
        Smi(machines.P100_LINE),
        (fails(GpuFault.GPU_TOO_OLD),),
        GpuFault.GPU_TOO_OLD,
        (
            "Tesla P100-PCIE-16GB (compute capability 6.0) is older than"
            " PyTorch 2.11.0+cu128 still supports."
        ),
        "Runtime → Change runtime type",
    ),
    "slices, but none for us": (
        Smi(machines.A100_CUT_LINE, listing=machines.A100_NO_SLICES),
        (fails(GpuFault.NOT_SEEN, "No CUDA GPUs are available"),),
        GpuFault.NO_MIG_SLICE,
        (
            "NVIDIA A100-SXM4-40GB is cut into slices (MIG), and none of them is given to this"
            " machine."
        ),
        "Ask its owner for a slice",
    ),
    "a framework that cannot be imported": (
        T4,
        (fails(GpuFault.BROKEN_FRAMEWORK, "libcudart.so.12: cannot open shared object file"),),
        GpuFault.BROKEN_FRAMEWORK,
        (
            "Tesla T4 is here, but PyTorch cannot be imported"
            ' ("libcudart.so.12: cannot open shared object file").'
        ),
        "Reinstall PyTorch",
    ),
    "something else": (
        T4,
        (fails(GpuFault.OTHER, "CUDA error: unspecified launch failure"),),
        GpuFault.OTHER,
        (
            "Tesla T4 is here, but PyTorch 2.11.0+cu128 cannot use it"
            ' ("CUDA error: unspecified launch failure").'
        ),
        "colabkit.release() gives this one back",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_its_own_reason_and_advice(case):
    smi, frameworks, fault, reason, advice = CASES[case]
    device = detect_device(platform=Platform.COLAB, probes=probes(smi, *frameworks))
    assert device.kind is DeviceKind.CPU
    assert device.fault is fault
    assert device.reason == reason
    assert advice in device.advice
    assert str(device) == "CPU (Intel(R) Xeon(R) CPU @ 2.20GHz, 2 cores), 12.7 GB, fp32"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("platform", Platform)
def test_a_required_gpu_raises_what_a_preferred_one_says(case, platform):
    smi, frameworks, *_ = CASES[case]
    looked_at = probes(smi, *frameworks)
    device = detect_device(platform=platform, probes=looked_at)
    with pytest.raises(GpuUnavailableError) as caught:
        detect_device("require", platform=platform, probes=looked_at)
    assert (caught.value.reason, caught.value.advice) == (device.reason, device.advice)
    assert isinstance(caught.value, ColabKitError)
    assert isinstance(caught.value, RuntimeError)
    for sentence in (device.reason, device.advice):
        assert sentence.endswith(".")
        assert "{" not in sentence
        assert "  " not in sentence
