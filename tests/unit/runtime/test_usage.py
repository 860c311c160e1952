"""How busy the machine is."""

from __future__ import annotations

import threading
import types

import pytest

from colabkit.runtime import GpuUsage, Usage, UsageReader


class NvmlError(Exception):
    pass


class Nvml:
    """Stands for nvidia-ml-py on a machine with one T4."""

    NVMLError = NvmlError

    def __init__(self, *, tells_use: bool = True, works: bool = True) -> None:
        self.open, self.tells_use, self.works = 0, tells_use, works
        self.read = threading.Event()

    def nvmlInit(self):  # noqa: N802
        if not self.works:
            raise NvmlError
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return b"Tesla T4"

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return types.SimpleNamespace(used=3 << 30, total=15 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        self.read.set()
        if not self.tells_use:
            raise NvmlError
        return types.SimpleNamespace(gpu=87)


def usage_of(nvml) -> Usage:
    reader = UsageReader(lambda: nvml, period_s=0.01)
    try:
        while reader.newest is None:
            assert reader._thread.is_alive()
    finally:
        reader.close()
        reader._thread.join(300)  # it is waited for no longer than for a reading
    return reader.newest


def test_memory_and_processors_of_this_machine_are_read():
    usage = usage_of(None)
    assert 0 < usage.process_bytes < usage.memory_bytes
    assert 0 < usage.used_bytes < usage.memory_bytes
    assert usage.gpus == ()
    assert "by this notebook" in usage.describe()


@pytest.mark.parametrize(("tells_use", "busy_percent"), [(True, 87), (False, None)])
def test_gpus_are_read_and_the_library_is_let_go_of(tells_use, busy_percent):
    nvml = Nvml(tells_use=tells_use)
    assert usage_of(nvml).gpus == (GpuUsage("Tesla T4", 3 << 30, 15 << 30, busy_percent),)
    assert nvml.open == 0


def test_a_driver_that_does_not_work_is_passed_over():
    assert usage_of(Nvml(works=False)).gpus == ()


def test_closing_ends_the_thread_at_once():
    reader = UsageReader(lambda: None, period_s=1000.0)
    reader.close()
    assert not reader._thread.is_alive()
