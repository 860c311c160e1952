"""The programs that put Drive into a folder of this machine."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colabkit import runtime
from colabkit.errors import ArgumentError, DriveMountError, MountFailure, StorageError
from colabkit.notebook import in_notebook
from colabkit.storage.fuse import take_down
from colabkit.storage.mounter import Mounter, MountRequest
from colabkit.storage.mounts import (
    Mounted,
    answers,
    device_of,
    drive_mountpoints,
    is_mountpoint,
    mounted_below,
)
from colabkit.storage.ocamlfuse_mount import OcamlfuseMounter
from colabkit.storage.rclone_mount import RcloneMounter

_BUSY_S, _PAUSE_S = 3.0, 0.5


class ColabMounter:
    """google.colab's own mount: asks the person in the notebook's page for access.

    Args:
        readonly: Whether it is mounted to be read only.
    """

    name = "colab"
    drive = "colab"

    def __init__(self, *, readonly: bool = False) -> None:
        self.readonly = readonly

    def root(self, mountpoint: Path) -> Path:
        """Returns where My Drive begins under a mountpoint."""
        return mountpoint / "MyDrive"

    def is_listed(self, mountpoint: Path) -> bool:
        """Whether something is mounted there, dead or alive."""
        return is_mountpoint(mountpoint)

    def mount(self, mountpoint: Path, wanted: MountRequest) -> None:
        """Mounts it, taking down first what is lost.

        Google's program is started over a mount that is in use, and fails for ever then: what
        an open file or somebody's working folder still holds is let go of beforehand.
        """
        others = [other for other in drive_mountpoints() if other != mountpoint]
        is_alive_at = next((other for other in others if answers(self.root(other))), None)
        # A script cannot mount, and would take down what its notebook mounts meanwhile.
        if is_alive_at is None and wanted.is_lost and in_notebook():
            with contextlib.suppress(StorageError):  # google.colab tries in its own way, too
                take_down(mountpoint, is_dead=True)
        runtime.mount(
            mountpoint,
            is_mounted=wanted.is_alive,
            timeout_s=wanted.timeout_s,
            is_lost=wanted.is_lost and is_mountpoint(mountpoint),
            others=() if is_alive_at is None else (str(is_alive_at),),
            readonly=self.readonly,
        )

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Uploads what waits and takes the mount down.

        Whoever looks into it at that moment keeps it busy: the page's list of files, a thread.
        """
        ends_s = time.monotonic() + min(timeout_s, _BUSY_S)
        while True:
            try:
                return runtime.flush_and_unmount(mountpoint, timeout_s=timeout_s)
            except StorageError:
                if time.monotonic() >= ends_s:
                    raise
            time.sleep(_PAUSE_S)


class FolderMounter:
    """A folder where you have mounted Drive yourself, by whatever means.

    What it lies on when it is first seen is Drive; once that leaves the mount table, Drive is
    lost, though the folder may still be there. Where the table never had it, as in a chroot,
    the folder's device tells.
    """

    name = "folder"

    def __init__(self) -> None:
        self._below: Mounted | None = None
        self._device: int | None = None

    def root(self, mountpoint: Path) -> Path:
        """Returns its folder MyDrive, or the folder itself where it has none."""
        inside = mountpoint / "MyDrive"
        return inside if inside.is_dir() else mountpoint

    def is_listed(self, mountpoint: Path) -> bool:
        """Returns whether what it lay on at first is mounted still."""
        if self._below is not None:
            return is_mountpoint(self._below.mountpoint)
        device = device_of(mountpoint)
        if self._device is None and device is not None:
            self._device, self._below = device, mounted_below(mountpoint)
        return device is not None and device == self._device

    def mount(self, mountpoint: Path, wanted: MountRequest) -> None:
        """Raises DriveMountError: only you know how it is mounted."""
        if wanted.is_lost or self._device is not None:
            what = "What you mounted there is gone"
            hint = "Mount it as you did the first time: training and uploads go on then."
        else:
            what = "There is no folder"
            hint = "Mount Drive there first, or pass mountpoint= with the folder where it is."
        message = f"{what}: {mountpoint}; with backend='folder' you mount Drive yourself."
        cause = MountFailure.NOT_OURS
        raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Raises StorageError: what you mounted is yours to unmount."""
        del timeout_s
        message = f"{mountpoint} was mounted by you, and stays mounted."
        hint = "Unmount it as its program wants it, so that it uploads what waits."
        raise StorageError(message, path=mountpoint, operation="unmount", hint=hint)


_BACKENDS: dict[str, Callable[..., Mounter]] = {
    "colab": ColabMounter,
    "rclone": RcloneMounter,
    "ocamlfuse": OcamlfuseMounter,
    "folder": FolderMounter,
}


def mounter_for(backend: str | Mounter, **options: Any) -> Mounter:
    """Returns the program that mounts Drive.

    Args:
        backend: "colab", "rclone", "ocamlfuse", "folder", or a mounter.
        **options: What the backend takes, such as ``remote`` for rclone.

    Raises:
        ArgumentError: There is no such backend, or it takes no such option.

    Example:
        >>> mounter_for("rclone", remote="gdrive").remote
        'gdrive:'
    """
    if not isinstance(backend, str):
        return backend
    if backend not in _BACKENDS:
        hint = f"Pass one of {', '.join(map(repr, _BACKENDS))}."
        raise ArgumentError.of("backend", backend, hint)
    made_by = _BACKENDS[backend]
    known = list(inspect.signature(made_by).parameters)
    for option in options:
        if option not in known:
            message = f"backend {backend!r} takes no {option}."
            hint = f"It takes {', '.join(known)}." if known else "It takes no options."
            raise ArgumentError(message, argument=option, hint=hint)
    return made_by(**options)
