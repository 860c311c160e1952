"""Which machine this is and what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.runtime.clock import SessionClock, machine_started_s, session_clock
    from colabkit.runtime.colab import (
        MountOutcome,
        flush_and_unmount,
        mount,
        unassign,
    )
    from colabkit.runtime.device import Device, DeviceKind, Probes, detect_device
    from colabkit.runtime.driver import read_driver
    from colabkit.runtime.faults import GpuFault
    from colabkit.runtime.frameworks import FrameworkReport, GpuFramework
    from colabkit.runtime.gpus import ComputeCapability, Driver, DriverReport, Gpu, GpuProcess
    from colabkit.runtime.host import Host, read_host
    from colabkit.runtime.mounting import check_mountpoint, how_to_answer
    from colabkit.runtime.nvidia_smi import Answer, SmiDriver
    from colabkit.runtime.nvml import NvmlDriver
    from colabkit.runtime.packages import (
        PackageCheck,
        PackageState,
        check_packages,
        is_same_version,
        missing,
        requirement_allows,
    )
    from colabkit.runtime.platform import Platform, detect_platform
    from colabkit.runtime.preferences import (
        expect_hours,
        expected_limit_s,
        prefer_device,
        preferred_device,
    )
    from colabkit.runtime.starting import run_to_end, start_program
    from colabkit.runtime.tensorflow_gpu import TensorFlowFramework
    from colabkit.runtime.torch_gpu import TorchFramework
    from colabkit.runtime.tpu import Tpu, find_tpu
    from colabkit.runtime.usage import GpuUsage, Usage, UsageReader

__all__ = [
    "Answer",
    "ComputeCapability",
    "Device",
    "DeviceKind",
    "Driver",
    "DriverReport",
    "FrameworkReport",
    "Gpu",
    "GpuFault",
    "GpuFramework",
    "GpuProcess",
    "GpuUsage",
    "Host",
    "MountOutcome",
    "NvmlDriver",
    "PackageCheck",
    "PackageState",
    "Platform",
    "Probes",
    "SessionClock",
    "SmiDriver",
    "TensorFlowFramework",
    "TorchFramework",
    "Tpu",
    "Usage",
    "UsageReader",
    "check_mountpoint",
    "check_packages",
    "detect_device",
    "detect_platform",
    "expect_hours",
    "expected_limit_s",
    "find_tpu",
    "flush_and_unmount",
    "how_to_answer",
    "is_same_version",
    "machine_started_s",
    "missing",
    "mount",
    "prefer_device",
    "preferred_device",
    "read_driver",
    "read_host",
    "requirement_allows",
    "run_to_end",
    "session_clock",
    "start_program",
    "unassign",
]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "clock": "SessionClock machine_started_s session_clock",
        "colab": "MountOutcome flush_and_unmount mount unassign",
        "device": "Device DeviceKind Probes detect_device",
        "driver": "read_driver",
        "faults": "GpuFault",
        "frameworks": "GpuFramework FrameworkReport",
        "gpus": "ComputeCapability Driver DriverReport Gpu GpuProcess",
        "host": "Host read_host",
        "mounting": "check_mountpoint how_to_answer",
        "nvidia_smi": "Answer SmiDriver",
        "nvml": "NvmlDriver",
        "packages": (
            "PackageCheck PackageState check_packages is_same_version missing requirement_allows"
        ),
        "platform": "Platform detect_platform",
        "preferences": "expect_hours expected_limit_s prefer_device preferred_device",
        "starting": "run_to_end start_program",
        "tensorflow_gpu": "TensorFlowFramework",
        "torch_gpu": "TorchFramework",
        "tpu": "Tpu find_tpu",
        "usage": "GpuUsage Usage UsageReader",
    },
)
