"""Whether this machine has GPUs, told by the driver without importing a framework."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from colabkit.runtime.gpus import Driver, DriverReport
from colabkit.runtime.nvidia_smi import SmiDriver
from colabkit.runtime.nvml import NvmlDriver

# WSL shows its GPUs as /dev/dxg only.
_TRACES = ("dev/nvidiactl", "dev/nvidia0", "dev/dxg", "proc/driver/nvidia/version")


def has_driver_traces(root: str | Path = "/") -> bool:
    """Whether the system shows any sign of an NVIDIA driver; takes microseconds."""
    if any((Path(root) / trace).exists() for trace in _TRACES):
        return True
    return shutil.which("nvidia-smi") is not None


def read_driver(
    drivers: Sequence[Driver] | None = None, *, root: str | Path = "/"
) -> DriverReport | None:
    """Returns what the driver says of the GPUs, None when there is no driver.

    The environment is not asked: ``NVIDIA_VISIBLE_DEVICES=all`` is set on machines
    without a GPU too.

    Args:
        drivers: The ways to ask, best first; NVML and ``nvidia-smi`` by default.
        root: Where the file system begins, for tests.
    """
    if drivers is None:
        if not has_driver_traces(root):
            return None
        drivers = (NvmlDriver(), SmiDriver())
    failed: DriverReport | None = None
    for driver in drivers:
        report = driver.report()
        if report is not None and not report.failure:
            return report
        failed = failed or report
    if failed is not None and not has_devices(root):
        # The tools are installed, but no card is plugged in.
        return DriverReport()
    return failed


def has_devices(root: str | Path = "/") -> bool:
    """Whether the system shows a card itself, not only its tools."""
    folder = Path(root) / "dev"
    cards = [path for path in folder.glob("nvidia[0-9]*") if path.name[6:].isdigit()]
    return bool(cards) or (folder / "dxg").exists()
