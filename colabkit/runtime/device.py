"""Which device training runs on here, in which precision, and why it is not a GPU."""

from __future__ import annotations

import dataclasses
import enum
import os
import platform as machine
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from colabkit.errors import ArgumentError, GpuUnavailableError
from colabkit.notebook import Card, Row, Tone, card_html
from colabkit.runtime.advice import Explanation, explain, gigabytes
from colabkit.runtime.driver import read_driver
from colabkit.runtime.faults import GpuFault
from colabkit.runtime.findings import Findings, gpu_in_use, judge
from colabkit.runtime.frameworks import FrameworkReport, GpuFramework, to_probe
from colabkit.runtime.gpus import ComputeCapability, DriverReport
from colabkit.runtime.host import Host, read_host
from colabkit.runtime.notices import notices_for
from colabkit.runtime.platform import Platform, detect_platform
from colabkit.runtime.tensorflow_gpu import TensorFlowFramework
from colabkit.runtime.torch_gpu import TorchFramework
from colabkit.runtime.tpu import Tpu, find_tpu

_BF16_FROM = ComputeCapability(8, 0)


class DeviceKind(enum.Enum):
    """A kind of device."""

    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"
    TPU = "tpu"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Device:
    """What this machine trains on.

    Attributes:
        kind: CPU, CUDA, MPS or TPU.
        name: As sold: "Tesla T4".
        memory_bytes: Its memory, None when not known.
        free_bytes: What is free of it, None when not known.
        compute_capability: What a CUDA device's hardware can do.
        driver_version: The GPU driver's: "550.54.15", "" without one.
        precision: "bf16" where it is native, "fp16" on older GPUs, else "fp32".
        count: How many such devices are here.
        fault: Why it is not a GPU, None when it is one.
        reason: The same in a sentence, "" for a GPU.
        advice: What to do about it, "" for a GPU.
        confirmed_by: The frameworks that allocated on the GPU.
        notices: What else the user should know, one sentence each.
    """

    kind: DeviceKind
    name: str
    memory_bytes: int | None = None
    free_bytes: int | None = None
    compute_capability: ComputeCapability | None = None
    driver_version: str = ""
    precision: str = "fp32"
    count: int = 1
    fault: GpuFault | None = None
    reason: str = ""
    advice: str = ""
    confirmed_by: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def is_gpu(self) -> bool:
        """Whether training runs on a GPU."""
        return self.kind in {DeviceKind.CUDA, DeviceKind.MPS}

    @property
    def torch_device(self) -> str:
        """What ``model.to(...)`` takes; PyTorch runs beside a TPU on the CPU."""
        return "cpu" if self.kind is DeviceKind.TPU else self.kind.value

    def describe(self) -> str:
        """Returns the device in one line.

        Example:
            >>> t4 = Device(DeviceKind.CUDA, "Tesla T4", 15360 << 20, precision="fp16",
            ...     compute_capability=ComputeCapability(7, 5), driver_version="550.54.15")
            >>> t4.describe()
            'Tesla T4, 15.0 GB, compute capability 7.5, driver 550.54, fp16'
        """
        several = self.count > 1
        parts = [f"{self.count} × {self.name}" if several else self.name]
        if self.memory_bytes is not None:
            parts.append(gigabytes(self.memory_bytes) + (" each" if several else ""))
        if self.compute_capability is not None:
            parts.append(f"compute capability {self.compute_capability}")
        if self.driver_version:
            parts.append(f"driver {'.'.join(self.driver_version.split('.')[:2])}")
        return ", ".join([*parts, self.precision])

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        return f"<Device {self.kind.value}: {self.describe()}>"

    def _repr_html_(self) -> str:
        return card_html(Card("Device", self._rows()))

    def _rows(self) -> tuple[Row, ...]:
        """Returns what there is to say of it, line by line."""
        several = f"{self.count} × " if self.count > 1 else ""
        tone = Tone.GOOD if self.fault is None else Tone.NOTE
        rows = [Row("Trains on", f"{several}{self.name}", tone)]
        if self.memory_bytes is not None:
            free = f", {gigabytes(self.free_bytes)} free" if self.free_bytes is not None else ""
            rows.append(Row("Memory", gigabytes(self.memory_bytes) + free))
        if self.compute_capability is not None:
            driver = f", driver {self.driver_version}" if self.driver_version else ""
            rows.append(Row("Hardware", f"compute capability {self.compute_capability}{driver}"))
        rows.append(Row("Precision", self.precision))
        if self.reason:
            rows.append(Row("Why no GPU", self.reason, Tone.NOTE, self.advice))
        rows += [Row("Note", notice, Tone.NOTE) for notice in self.notices]
        return tuple(rows)


@dataclasses.dataclass(frozen=True, slots=True)
class Probes:
    """How a machine is looked at; each can be replaced.

    Attributes:
        driver: Asks the GPU driver.
        tpu: Looks for a TPU.
        host: Reads the processor and the memory.
        frameworks: Those that can confirm a GPU, the preferred first.
        is_apple: Whether this is a Mac with Apple's own processor.
        environ: The environment.
    """

    driver: Callable[[], DriverReport | None] = read_driver
    tpu: Callable[[], Tpu | None] = find_tpu
    host: Callable[[], Host] = read_host
    frameworks: Sequence[GpuFramework] = (TorchFramework(), TensorFlowFramework())
    is_apple: bool = (machine.system(), machine.machine()) == ("Darwin", "arm64")
    environ: Mapping[str, str] = dataclasses.field(default_factory=lambda: os.environ)


def detect_device(
    gpu: bool | Literal["require"] = True,
    *,
    platform: Platform | None = None,
    probes: Probes | None = None,
) -> Device:
    """Returns what training runs on here; imports a framework only where there is a GPU.

    Args:
        gpu: True takes a GPU if one works, else the CPU with the reason; "require" takes
            nothing else; False takes the CPU.
        platform: The kind of machine; looked up by default.
        probes: How the machine is looked at, for tests.

    Raises:
        ArgumentError: ``gpu`` is none of these.
        GpuUnavailableError: A GPU is required and none works.

    Example:
        >>> detect_device(gpu=False).kind
        <DeviceKind.CPU: 'cpu'>
    """
    asked: object = gpu
    if not (isinstance(asked, bool) or asked == "require"):
        raise ArgumentError.of("gpu", gpu, 'Pass True, False or "require".')
    probes = Probes() if probes is None else probes
    platform = detect_platform() if platform is None else platform
    findings = _probe(probes, platform, wanted=gpu is not False)
    fault = judge(findings)
    if fault is None:
        return _gpu_device(findings)
    why = explain(fault, findings)
    if gpu == "require":
        raise GpuUnavailableError(reason=why.reason, advice=why.advice)
    if fault is GpuFault.TPU_MACHINE and findings.tpu is not None:
        return _tpu_device(findings.tpu, why)
    notices = () if findings.wanted else _hide_gpus(probes.frameworks)
    return _cpu_device(probes.host(), fault, why, notices)


def _probe(probes: Probes, platform: Platform, *, wanted: bool) -> Findings:
    if not wanted:
        return Findings(wanted=False, platform=platform)
    driver = probes.driver()
    has_driver = driver is not None and bool(driver.gpus or driver.failure)
    reports: list[FrameworkReport] = []
    if has_driver or probes.is_apple:
        for framework in probes.frameworks:
            framework.prepare()
        reports = [framework.probe() for framework in to_probe(probes.frameworks)]
    return Findings(
        platform=platform,
        driver=driver,
        tpu=None if has_driver else probes.tpu(),
        frameworks=tuple(reports),
        visible_devices=probes.environ.get("CUDA_VISIBLE_DEVICES"),
        pid=os.getpid(),
    )


def _hide_gpus(frameworks: Sequence[GpuFramework]) -> tuple[str, ...]:
    return tuple(filter(None, (framework.hide_gpu() for framework in frameworks)))


def _gpu_device(findings: Findings) -> Device:
    gpu, working = gpu_in_use(findings), findings.working
    confirmed = [report.framework for report in findings.frameworks if report.fault is None]
    report = working or FrameworkReport("", count=len(findings.gpus))
    if report.backend == "mps":
        kind, capability, precision = DeviceKind.MPS, None, "fp32"
    else:
        kind = DeviceKind.CUDA
        capability = report.compute_capability or (gpu.compute_capability if gpu else None)
        precision = _cuda_precision(capability)
    # The driver knows the card's full size, the framework that of a slice.
    whole = gpu if gpu is not None and not gpu.mig_enabled else None
    memory_bytes = whole.memory_bytes if whole is not None else None
    free_bytes = whole.free_bytes if whole is not None else None
    return Device(
        kind=kind,
        name=report.name or (gpu.name if gpu is not None else "GPU"),
        memory_bytes=report.memory_bytes if memory_bytes is None else memory_bytes,
        free_bytes=free_bytes if report.free_bytes is None else report.free_bytes,
        compute_capability=capability,
        driver_version=findings.driver.version if findings.driver is not None else "",
        precision=precision,
        count=report.count,
        confirmed_by=tuple(confirmed),
        notices=notices_for(findings),
    )


def _cuda_precision(capability: ComputeCapability | None) -> str:
    if capability is None:
        return "fp32"
    return "bf16" if capability >= _BF16_FROM else "fp16"


def _tpu_device(tpu: Tpu, why: Explanation) -> Device:
    return Device(
        kind=DeviceKind.TPU,
        name=f"TPU {tpu.generation}".strip(),
        count=tpu.chips,
        fault=GpuFault.TPU_MACHINE,
        reason=why.reason,
        advice=why.advice,
    )


def _cpu_device(host: Host, fault: GpuFault, why: Explanation, notices: tuple[str, ...]) -> Device:
    cores = "1 core" if host.cores == 1 else f"{host.cores} cores"
    return Device(
        kind=DeviceKind.CPU,
        name=f"CPU ({host.processor}, {cores})",
        memory_bytes=host.memory_bytes,
        free_bytes=host.free_bytes,
        fault=fault,
        reason=why.reason,
        advice=why.advice,
        notices=notices,
    )
