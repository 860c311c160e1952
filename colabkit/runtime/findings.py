"""Judges from all that was found whether a GPU can be used; nothing here looks or acts."""

from __future__ import annotations

import dataclasses
import itertools
import re

from colabkit.runtime.faults import GpuFault, fault_in
from colabkit.runtime.frameworks import FrameworkReport
from colabkit.runtime.gpus import DriverReport, Gpu, GpuProcess
from colabkit.runtime.platform import Platform
from colabkit.runtime.tpu import Tpu

_IN_USE = re.compile(r"Process (\d+) has ([\d.]+) (MiB|GiB) memory in use")
_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """All that was found about this machine's accelerators.

    Attributes:
        wanted: Whether a GPU was asked for.
        platform: The kind of machine.
        driver: What the driver says, None without one.
        tpu: The TPU, None without one.
        frameworks: What came of each framework's try; empty when none was asked.
        visible_devices: ``CUDA_VISIBLE_DEVICES``, None when it is not set.
        pid: This process's number.
    """

    wanted: bool = True
    platform: Platform = Platform.OTHER
    driver: DriverReport | None = None
    tpu: Tpu | None = None
    frameworks: tuple[FrameworkReport, ...] = ()
    visible_devices: str | None = None
    pid: int = 0

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the driver lists."""
        return self.driver.gpus if self.driver is not None else ()

    @property
    def working(self) -> FrameworkReport | None:
        """The first framework that could use the GPU."""
        return next((report for report in self.frameworks if report.fault is None), None)

    @property
    def hides_gpus(self) -> bool:
        """Whether the environment hides every GPU."""
        return self.visible_devices is not None and self.visible_devices.strip() in {"", "-1"}


def judge(findings: Findings) -> GpuFault | None:
    """Returns why no GPU can be used, None when one can.

    Example:
        >>> judge(Findings())
        <GpuFault.NO_GPU: 'this machine has no GPU'>
    """
    if not findings.wanted:
        return GpuFault.NOT_WANTED
    if findings.working is not None:
        return None
    driver_failure = findings.driver.failure if findings.driver is not None else ""
    if findings.frameworks:
        fault = findings.frameworks[0].fault
        if fault in {GpuFault.NOT_SEEN, GpuFault.OTHER, GpuFault.DRIVER_BROKEN}:
            return _why_not_seen(findings, driver_failure) or fault
        return fault
    if findings.gpus:
        return _why_not_seen(findings, driver_failure)
    if driver_failure:
        return _driver_fault(driver_failure)
    return GpuFault.TPU_MACHINE if findings.tpu is not None else GpuFault.NO_GPU


def _why_not_seen(findings: Findings, driver_failure: str) -> GpuFault | None:
    """Returns why a GPU that is there is not seen, None when nothing explains it."""
    if findings.hides_gpus:
        return GpuFault.HIDDEN
    if driver_failure:
        return _driver_fault(driver_failure)
    if findings.gpus and all(gpu.mig_enabled and not gpu.mig_slices for gpu in findings.gpus):
        return GpuFault.NO_MIG_SLICE
    return None


def _driver_fault(driver_failure: str) -> GpuFault:
    fault = fault_in(driver_failure)
    return GpuFault.DRIVER_BROKEN if fault is GpuFault.OTHER else fault


def gpu_in_use(findings: Findings) -> Gpu | None:
    """Returns the GPU that training uses, or would, None when the driver lists none."""
    working = findings.working
    if working is not None:
        for gpu in findings.gpus:
            if working.uuid and gpu.uuid.endswith(working.uuid):
                return gpu
        for gpu in findings.gpus:
            if gpu.name == working.name:
                return gpu
    visible = (findings.visible_devices or "").partition(",")[0].strip()
    if visible.isdigit() and int(visible) < len(findings.gpus):
        return findings.gpus[int(visible)]
    for gpu in findings.gpus:
        if visible and gpu.uuid.startswith(visible):
            return gpu
    return findings.gpus[0] if findings.gpus else None


def others_on(gpu: Gpu | None, findings: Findings) -> tuple[GpuProcess, ...]:
    """Returns the other processes that hold a GPU's memory, the largest first.

    Source:
        PyTorch's error names them too: "Process 4321 has 14.74 GiB memory in use."
    """
    processes = list(gpu.processes) if gpu is not None else []
    if not processes:
        told = [_IN_USE.findall(report.said) for report in findings.frameworks]
        processes = [
            GpuProcess(int(pid), memory_bytes=int(float(size) * _UNITS[unit]))
            for pid, size, unit in itertools.chain(*told)
        ]
    others = [process for process in processes if process.pid != findings.pid]
    return tuple(sorted(others, key=lambda process: -(process.memory_bytes or 0)))


def own_bytes_on(gpu: Gpu | None, findings: Findings) -> int:
    """Returns what this very process holds of a GPU's memory."""
    told = [p.memory_bytes or 0 for p in (gpu.processes if gpu else ()) if p.pid == findings.pid]
    return max([*told, *(report.own_bytes for report in findings.frameworks)], default=0)


def is_held_by_itself(gpu: Gpu | None, findings: Findings) -> bool:
    """Whether most of what is taken of a GPU's memory is taken by this very process.

    In a container the driver may list this process under a number it does not know itself
    by, so sizes are compared before numbers are.
    """
    own_bytes = own_bytes_on(gpu, findings)
    if gpu is not None and gpu.memory_bytes is not None and gpu.free_bytes is not None:
        return own_bytes > (gpu.memory_bytes - gpu.free_bytes) / 2
    return own_bytes > sum(process.memory_bytes or 0 for process in others_on(gpu, findings))
