"""What a driver says of the GPUs of this machine."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Protocol


class ComputeCapability(NamedTuple):
    """What a GPU's hardware can do, as NVIDIA numbers it.

    Example:
        >>> str(ComputeCapability(7, 5)), ComputeCapability(12, 0) > ComputeCapability(8, 9)
        ('7.5', True)
    """

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclasses.dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU.

    Attributes:
        pid: Its number, in the eyes of the driver.
        name: Its program, "" where the driver does not tell.
        memory_bytes: What it holds, None where the driver does not tell.
    """

    pid: int
    name: str = ""
    memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its driver sees it.

    Attributes:
        name: As sold: "Tesla T4".
        uuid: Names this very card: "GPU-…".
        memory_bytes: All of its memory, None where the driver does not tell.
        free_bytes: What nobody holds of it.
        compute_capability: What its hardware can do.
        mig_enabled: Whether it is cut into slices (multi-instance GPU).
        mig_slices: The slices by their profile: "1g.5gb".
        processes: Who holds its memory; empty too where the driver hides it.
    """

    name: str
    uuid: str = ""
    memory_bytes: int | None = None
    free_bytes: int | None = None
    compute_capability: ComputeCapability | None = None
    mig_enabled: bool = False
    mig_slices: tuple[str, ...] = ()
    processes: tuple[GpuProcess, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class DriverReport:
    """What one look at the driver gave.

    Attributes:
        gpus: The GPUs, in the driver's order.
        version: The driver's version: "550.54.15".
        cuda_version: The newest CUDA it can run: "12.4", "" when not known.
        failure: The driver's own words when it did not work, "" when it did.
    """

    gpus: tuple[Gpu, ...] = ()
    version: str = ""
    cuda_version: str = ""
    failure: str = ""


class Driver(Protocol):
    """A way to ask the driver."""

    def report(self) -> DriverReport | None:
        """Returns what the driver says, None when this way to ask does not exist here."""
