"""Machines to look at: recorded words of nvidia-smi, and frameworks that say what they say."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from colabkit.runtime import (
    Answer,
    ComputeCapability,
    DriverReport,
    FrameworkReport,
    GpuFault,
    Host,
    Probes,
    SmiDriver,
    Tpu,
)

T4 = "GPU-8f1a9c4e-3b0d-5d0e-9a67-2f6c1f0e7b55"
T4_SECOND = "GPU-0c2d4b1a-7e55-1d93-b4c1-9e8f5a6d2c11"
A100 = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
T4_LINE = f"{T4}, Tesla T4, 15360, 15095, 550.54.15, [N/A], 7.5\n"
T4_FULL_LINE = f"{T4}, Tesla T4, 15360, 3, 550.54.15, [N/A], 7.5\n"
T4_PAIR = T4_LINE + f"{T4_SECOND}, Tesla T4, 15360, 15095, 550.54.15, [N/A], 7.5\n"
P100_LINE = f"{T4}, Tesla P100-PCIE-16GB, 16384, 16269, 560.35.03, [N/A], 6.0\n"
OLD_DRIVER_LINE = f"{T4}, Tesla T4, 15360, 15095, 470.82.01, [N/A]\n"
A100_CUT_LINE = (
    f"{A100}, NVIDIA A100-SXM4-40GB, 40960, [Insufficient Permissions], 535.104.05, Enabled, 8.0\n"
)
A100_LINE = f"{A100}, NVIDIA A100-SXM4-40GB, 40960, 40326, 535.104.05, Disabled, 8.0\n"
A100_SLICES = f"""GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A100})
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 2g.10gb     Device  1: (UUID: MIG-0ed0a8b9-9a4b-5bdb-a7b7-9b9a2cd1d3c4)
"""
A100_NO_SLICES = f"GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A100})\n"
HEADER = """Sat Mar 15 09:12:44 2025
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
"""
OLD_HEADER = HEADER.replace("550.54.15", "470.82.01").replace("12.4", "11.4")
NO_FIELD = 'Field "compute_cap" is not a valid field to query.\n\n'
NO_DEVICES = "No devices were found\n"
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure"
    " that the latest NVIDIA driver is installed and running.\n\n"
)
MISMATCH = (
    "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.183\n"
)

HOST = Host("Intel(R) Xeon(R) CPU @ 2.20GHz", 2, 13_609_431_040, 12_003_000_320)
OTHER_PID = 4321


@dataclasses.dataclass
class Smi:
    """Answers as nvidia-smi does; a text that says it failed makes it fail."""

    gpus: str
    processes: str = ""
    listing: str = ""
    header: str = HEADER
    is_old: bool = False

    def __call__(self, arguments: Sequence[str]) -> Answer:
        asked = arguments[0] if arguments else ""
        if asked == "-L":
            return Answer(self.listing, ok=True)
        if asked.startswith("--query-compute-apps"):
            return Answer(self.processes, ok=True)
        if not asked:
            return Answer(self.header, ok=True)
        if self.is_old and "compute_cap" in asked:
            return Answer(NO_FIELD, ok=False)
        return Answer(self.gpus, ok=not self.gpus.startswith(("NVIDIA-SMI", "Failed", "No dev")))

    def report(self) -> DriverReport | None:
        return SmiDriver(self).report()


@dataclasses.dataclass
class Said:
    """A framework that gives one report."""

    result: FrameworkReport
    module: str = "sys"  # a module that is imported for sure
    hidden: str = ""
    calls: list[str] = dataclasses.field(default_factory=list)

    def prepare(self) -> None:
        self.calls.append("prepare")

    def probe(self) -> FrameworkReport:
        self.calls.append("probe")
        return self.result

    def hide_gpu(self) -> str:
        self.calls.append("hide")
        return self.hidden


def works(name: str = "Tesla T4", capability: tuple[int, int] = (7, 5), **more: Any) -> Said:
    told: dict[str, Any] = {"memory_bytes": 15_828_320_256, "free_bytes": 15_727_263_744, **more}
    report = FrameworkReport(
        "PyTorch",
        version="2.11.0+cu128",
        cuda_version="12.8",
        name=name,
        compute_capability=ComputeCapability(*capability),
        **told,
    )
    return Said(report)


def fails(fault: GpuFault, said: str = "", **more: object) -> Said:
    facts = {"version": "2.11.0+cu128", "cuda_version": "12.8", **more}
    return Said(FrameworkReport("PyTorch", fault=fault, said=said, **facts))


def holding(pid: int, name: str, mib: str = "14892") -> Smi:
    return Smi(T4_FULL_LINE, processes=f"{T4}, {pid}, {mib}, {name}\n")


def probes(
    smi: Smi | None,
    *frameworks: Said,
    tpu: Tpu | None = None,
    environ: Mapping[str, str] | None = None,
    is_apple: bool = False,
) -> Probes:
    return Probes(
        driver=smi.report if smi is not None else lambda: None,
        tpu=lambda: tpu,
        host=lambda: HOST,
        frameworks=frameworks,
        is_apple=is_apple,
        environ=environ or {},
    )


def fake_module(monkeypatch: Any, name: str, module: Any) -> None:
    monkeypatch.setitem(sys.modules, name, module)
