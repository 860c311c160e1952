"""The processor and the memory of this machine."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path

import psutil


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """What the machine has besides a GPU.

    Attributes:
        processor: As sold: "Intel(R) Xeon(R) CPU @ 2.20GHz".
        cores: How many of its cores this process may use.
        memory_bytes: All of its memory.
        free_bytes: What could be taken of it now.
    """

    processor: str
    cores: int
    memory_bytes: int
    free_bytes: int


def read_host(root: str | Path = "/") -> Host:
    """Returns the processor and the memory of this machine.

    Args:
        root: Where the file system begins, for tests.
    """
    memory = psutil.virtual_memory()
    return Host(_processor(Path(root)), _cores(), int(memory.total), int(memory.available))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor(root: Path) -> str:
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
