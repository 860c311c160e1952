"""What tests need that the virtual environment does not bring, and what goes untested without it.

``python -m tests.abilities`` prints the Debian packages of what is missing on this machine.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

_IN_CI = bool(os.environ.get("CI"))


@dataclass(frozen=True)
class Need:
    """Something that tests need; asked for by ``@pytest.mark.needs(...)`` or ``require``.

    Attributes:
        untested: What goes untested without it.
        lack: Returns what is missing here, "" when nothing is.
        package: The Debian package that brings it, "" where none does.
        can_be_had: Whether every machine can have it, so that CI must.
    """

    untested: str
    lack: Callable[[], str]
    package: str = ""
    can_be_had: bool = True

    def require(self) -> None:
        """Skips the test that asks where it is missing; in CI, fails it if it can be had."""
        lack = self.lack()
        if lack:
            end = pytest.fail if _IN_CI and self.can_be_had else pytest.skip
            end(f"{self.untested}: {lack}")


def _program(names: str, package: str, untested: str) -> Need:
    """A program by the names that it may have."""
    lack = f"{names.split()[0]} is not installed (apt-get install {package})"
    return Need(untested, lambda: "" if any(map(shutil.which, names.split())) else lack, package)


def _circumstance(untested: str, is_met: Callable[[], bool], lack: str) -> Need:
    """What no installation brings."""
    return Need(untested, lambda: "" if is_met() else lack, can_be_had=False)


def package(*names: str) -> Need:
    """Packages of Python, which the extra ``test`` brings."""

    def lack() -> str:
        return "" if all(map(importlib.util.find_spec, names)) else "not installed"

    return Need(f"what uses {' and '.join(names)}", lack)


def newer_package(*names: str) -> Need:
    """Packages that the extra ``test`` brings, and that do not go with the oldest versions."""
    need = package(*names)
    return replace(need, can_be_had=importlib.metadata.version("filelock") != "3.12.0")


def trainer(*names: str) -> Need:
    """Packages of other people's trainers: as newer packages, and some for no other processor."""
    need = newer_package(*names)
    hint = f"not installed (pip install {' '.join(names)})"
    return replace(
        need,
        untested=f"callbacks in {names[0]}",
        lack=lambda: hint if need.lack() else "",
        can_be_had=need.can_be_had and platform.machine() in {"x86_64", "AMD64"},
    )


@functools.cache
def _may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


@functools.cache
def _may_have_networks() -> bool:
    name = f"ck{os.getpid()}"
    if not shutil.which("ip"):
        return False
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return True


def _torch_is_for_the_cpu() -> bool:
    import torch

    return torch.version.cuda is None and getattr(torch.version, "hip", None) is None


def _torch_deals_out() -> bool:
    import torch.distributed.fsdp

    return hasattr(torch.distributed.fsdp, "fully_shard")


def _may_fuse() -> bool:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError:
        return False
    return True


def _lack_of_a_machine() -> str:
    from tests.colab_vm import missing_ability

    return missing_ability() or ""


SEVEN_ZIP = _program("7z", "p7zip-full", "7z archives, encrypted zips, ours as 7z reads them")
UNZIP = _program("unzip", "unzip", "zips as unzip unpacks them")
ZIP = _program("zip", "zip", "zips in parts as zip writes them")
BZIP2 = _program("bzip2", "bzip2", "tar.bz2 as tar unpacks it")
XZ = _program("xz", "xz-utils", "tar.xz as tar unpacks it")
RCLONE = _program("rclone", "rclone", "rclone's mount and remotes")
FUSERMOUNT = _program("fusermount3", "fuse3", "Drive as other programs mount it")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = _program(" ".join(BROWSERS), "chromium", "panels and cards in a browser")
BSDTAR = _program("bsdtar", "libarchive-tools", "our archives as bsdtar reads them")
# For the benchmarks alone: what unpacking is timed against.
ZSTD = _program("zstd", "zstd", "how fast tar unpacks tar.zst")
FROM_DEBIAN = (SEVEN_ZIP, ZIP, UNZIP, BZIP2, XZ, RCLONE, FUSERMOUNT, BROWSER, BSDTAR, ZSTD)

FUSE = _circumstance("Drive as a file system", _may_fuse, "/dev/fuse cannot be opened")
COLAB = Need("what runs on Colab's double", _lack_of_a_machine)
NETWORKS = _circumstance("hosts apart", _may_have_networks, "nobody may make a network here")
MOUNTS = _circumstance("full and read-only disks", _may_mount, "nobody may mount here")
SOAK = _circumstance(
    "the long sweeps", lambda: bool(os.environ.get("COLABKIT_SOAK")), "make soak runs them"
)
CPU_TORCH = _circumstance(
    "a GPU beside PyTorch for the CPU", _torch_is_for_the_cpu, "this one is built for a GPU"
)
PIECES = _circumstance("models in pieces", _torch_deals_out, "this PyTorch has no fully_shard")
FROZEN_TORCH = _circumstance(
    "the bits of runs of the first format",
    lambda: importlib.metadata.version("torch").startswith("2.13."),
    "they are those of PyTorch 2.13",
)
UNPRIVILEGED = _circumstance(
    "folders that may not be written", lambda: os.geteuid() != 0, "root may write everywhere"
)
GPU = "training on a GPU: on a machine that has one, pytest -m gpu runs it"


if __name__ == "__main__":
    print(*(need.package for need in FROM_DEBIAN if need.lack()))
