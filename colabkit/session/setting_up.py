"""setup(): makes the machine ready, in one cell that may be run again and again."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from colabkit.errors import ArgumentError, StorageError
from colabkit.other_names import answering
from colabkit.projects import watch_folder
from colabkit.runtime import (
    Device,
    DeviceKind,
    Platform,
    detect_device,
    detect_platform,
    expect_hours,
    prefer_device,
    session_clock,
)
from colabkit.session.adding_packages import add_packages, check_request
from colabkit.session.drive import mounted_or_why, status_without
from colabkit.session.gpu_reminder import remind_of_idle_gpu
from colabkit.session.other_names import OF_SETUP
from colabkit.session.records import DriveStatus, Session
from colabkit.storage import DEFAULT_MOUNTPOINT, active_mount, locate

_SEED_MAX = 2**32 - 1
_devices: dict[str, Device] = {}


@answering(OF_SETUP)
def setup(
    gpu: bool | Literal["require"] = True,
    *,
    drive: bool = True,
    workdir: str | Path | None = None,
    packages: str | Path | Iterable[str] = (),
    allow_changes: bool = False,
    seed: int | None = None,
    mountpoint: str | Path = DEFAULT_MOUNTPOINT,
    remount_after_hours: float | None = None,
    session_hours: float | None = None,
) -> Session:
    """Makes the machine ready: GPU or CPU, Drive, working folder, packages.

    What cannot be had is one line of the result that says why and what works without. Run
    again, it does only what is not well.

    Args:
        gpu: True takes a GPU if one works, else the CPU; "require" takes nothing else;
            False takes the CPU. ``fit`` follows it.
        drive: Whether to mount Drive where there is one to mount.
        workdir: A folder to work in: it becomes the current one, and its modules can be
            imported; ``reload`` takes up what was edited. Names of Drive, "MyDrive/project",
            work.
        packages: Requirements as pip takes them, or the path of a requirements file, on Drive
            too. What is missing is installed, and its wheels are kept on Drive, so that the
            next machine installs them without the network.
        allow_changes: Whether packages may change the versions of the frameworks that are
            installed: torch, tensorflow, numpy, jax, keras.
        seed: Seeds Python's, NumPy's and PyTorch's generators, for the weights a new model
            begins with; 0 to 2**32 - 1. ``fit`` has a seed of its own.
        mountpoint: Where Drive is to be.
        remount_after_hours: Mounts Drive anew, between two steps, when the mount is that old
            and nothing waits to be copied; by default as ``mount`` was told, else only when it is
            lost.
        session_hours: How long such a machine lasts, when you know better than 12 hours.

    Returns:
        What the machine is and has; a notebook shows it as a card.

    Raises:
        ArgumentError: An argument cannot be used; nothing was done.
        GpuUnavailableError: A GPU is required and none works.
        PackageChangeError: A package would change a framework; nothing was installed.
        StorageError: ``workdir`` is no folder, or a requirements file is not there.

    Example:
        >>> session = setup(gpu=False, drive=False)
        >>> session.precision
        'fp32'
    """
    _check(seed, session_hours, remount_after_hours)
    packages = check_request(packages)
    platform = detect_platform()
    device = _device(gpu, platform)
    if session_hours is not None:
        expect_hours(session_hours)
    status = _drive(mountpoint, platform, remount_after_hours, wanted=drive)
    installed = add_packages(packages, status, platform, allow_changes=allow_changes)
    if installed.has_new_framework:
        _devices.clear()
        device = _device(gpu, platform)
    remind_of_idle_gpu(device, platform)
    folder = _work_in(workdir) if workdir is not None else Path.cwd()
    if seed is not None:
        _seed(seed)
    mount = active_mount()
    age_s = mount.age_s if mount is not None else None
    clock = session_clock(platform, on_tpu=device.kind is DeviceKind.TPU)
    return Session(
        platform=platform,
        device=device,
        drive=status,
        workdir=folder,
        clock=clock.mounted(None if age_s is None else clock.clock() - age_s),
        packages=installed.checks,
        notes=installed.notes,
    )


def _check(
    seed: int | None, session_hours: float | None, remount_after_hours: float | None
) -> None:
    if seed is not None and not (isinstance(seed, int) and 0 <= seed <= _SEED_MAX):
        raise ArgumentError.of("seed", seed, f"Pass 0 to {_SEED_MAX}.")
    hours = {"session_hours": session_hours, "remount_after_hours": remount_after_hours}
    for name, value in hours.items():
        if value is not None and not value > 0:
            raise ArgumentError.of(name, value, "Pass hours above 0.")


def _device(gpu: bool | Literal["require"], platform: Platform) -> Device:
    """Looks once: a GPU that works goes on working, and asking it takes a while."""
    device = _devices.get(repr(gpu)) or detect_device(gpu, platform=platform)
    if device.fault is None:
        _devices[repr(gpu)] = device
    prefer_device(device.torch_device)
    return device


def _drive(
    mountpoint: str | Path, platform: Platform, remount_after_hours: float | None, *, wanted: bool
) -> DriveStatus:
    if not wanted:
        return status_without("not asked for", platform)
    return mounted_or_why(mountpoint, remount_after_hours=remount_after_hours)


def _work_in(workdir: str | Path) -> Path:
    folder = locate(workdir).absolute()
    if not folder.is_dir():
        there, hint = "There is no such folder.", "Make it first, or check its spelling."
        if folder.exists():
            there, hint = "It is a file.", f"Pass the folder it lies in, {str(folder.parent)!r}."
        message = f"workdir is {str(workdir)!r}, which means {folder}. {there}"
        raise StorageError(message, path=folder, operation="work in", hint=hint)
    os.chdir(folder)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    watch_folder(folder)
    return folder


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # the generator that users' code draws from
    if importlib.util.find_spec("torch") is not None and "tensorflow" not in sys.modules:
        importlib.import_module("torch").manual_seed(seed)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)
