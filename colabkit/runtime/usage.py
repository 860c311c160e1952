"""How busy the machine is, read now and then on a thread of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import psutil

from colabkit.runtime.advice import gigabytes
from colabkit.runtime.nvml import load_nvml

PERIOD_S = 2.0
_FIRST_S = 0.3


@dataclasses.dataclass(frozen=True, slots=True)
class GpuUsage:
    """How busy one GPU is.

    Attributes:
        name: As sold: "Tesla T4".
        used_bytes: What is taken of its memory.
        memory_bytes: All of its memory.
        busy_percent: Share of the time in which it computed, None where it does not tell.
    """

    name: str
    used_bytes: int
    memory_bytes: int
    busy_percent: int | None = None

    def describe(self) -> str:
        """Returns it in one line.

        Example:
            >>> GpuUsage("Tesla T4", 3 << 30, 15 << 30, 87).describe()
            'Tesla T4, 3.0 GB of 15.0 GB, 87% busy'
        """
        words = f"{self.name}, {gigabytes(self.used_bytes)} of {gigabytes(self.memory_bytes)}"
        return words if self.busy_percent is None else f"{words}, {self.busy_percent}% busy"


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """How busy the machine is.

    Attributes:
        used_bytes: What is taken of its memory.
        memory_bytes: All of its memory.
        process_bytes: What this process takes.
        busy_percent: Share of its processors' time that was used since the reading before.
        gpus: Its GPUs, in the driver's order.
    """

    used_bytes: int
    memory_bytes: int
    process_bytes: int
    busy_percent: float = 0.0
    gpus: tuple[GpuUsage, ...] = ()

    def describe(self) -> str:
        """Returns memory and processors in one line.

        Example:
            >>> Usage(6 << 30, 12 << 30, 3 << 30, 81.4).describe()
            '6.0 GB of 12.0 GB taken, 3.0 GB by this notebook, processors 81% busy'
        """
        return (
            f"{gigabytes(self.used_bytes)} of {gigabytes(self.memory_bytes)} taken,"
            f" {gigabytes(self.process_bytes)} by this notebook,"
            f" processors {self.busy_percent:.0f}% busy"
        )


class UsageReader:
    """Reads how busy the machine is every two seconds, until it is closed.

    Args:
        load: Returns the module ``pynvml`` or None.
        period_s: Seconds between two readings.
        on_reading: Given each reading, on the thread that reads.

    Example:
        >>> reader = UsageReader()
        >>> reader.close()
    """

    def __init__(
        self,
        load: Callable[[], Any] = load_nvml,
        *,
        period_s: float = PERIOD_S,
        on_reading: Callable[[Usage], None] | None = None,
    ) -> None:
        self.newest: Usage | None = None
        self._load = load
        self._period_s = period_s
        self._on_reading = on_reading
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="colabkit-usage", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops reading."""
        self._stop.set()
        self._thread.join(self._period_s)

    def _work(self) -> None:
        process = psutil.Process()
        psutil.cpu_percent()
        if self._stop.wait(min(_FIRST_S, self._period_s)):
            return
        with contextlib.ExitStack() as stack:
            gpus = _opened_gpus(self._load(), stack)
            while True:
                memory = psutil.virtual_memory()
                self.newest = Usage(
                    used_bytes=int(memory.total - memory.available),
                    memory_bytes=int(memory.total),
                    process_bytes=int(process.memory_info().rss),
                    busy_percent=psutil.cpu_percent(),
                    gpus=gpus(),
                )
                if self._on_reading is not None:
                    self._on_reading(self.newest)
                if self._stop.wait(self._period_s):
                    return


def _opened_gpus(nvml: Any, stack: contextlib.ExitStack) -> Callable[[], tuple[GpuUsage, ...]]:
    """Returns a reader of all GPUs; NVML stays open until the stack is closed."""
    if nvml is None:
        return tuple
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return tuple
    stack.callback(_shut, nvml)
    return lambda: _read(nvml)


def _read(nvml: Any) -> tuple[GpuUsage, ...]:
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        with contextlib.suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
            found.append(
                GpuUsage(
                    name=name.decode(errors="replace") if isinstance(name, bytes) else str(name),
                    used_bytes=int(memory.used),
                    memory_bytes=int(memory.total),
                    busy_percent=_busy_percent(nvml, handle),
                )
            )
    return tuple(found)


def _busy_percent(nvml: Any, handle: Any) -> int | None:
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:
        return None


def _shut(nvml: Any) -> None:
    with contextlib.suppress(nvml.NVMLError):
        nvml.nvmlShutdown()
