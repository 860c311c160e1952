"""The programs that put Drive into a folder of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from colabkit import runtime
from colabkit.storage.mounts import is_mountpoint


class Mounter(Protocol):
    """One way to mount Drive."""

    name: str
    """What the user calls it: "colab", "rclone"."""

    def root(self, mountpoint: Path) -> Path:
        """Returns where My Drive begins under a mountpoint."""
        ...

    def is_listed(self, mountpoint: Path) -> bool:
        """Whether something is mounted there, dead or alive; asks nothing of it."""
        ...

    def mount(
        self,
        mountpoint: Path,
        *,
        timeout_s: float,
        is_alive: Callable[[], bool],
        is_lost: bool,
        anew: bool,
    ) -> None:
        """Mounts it, taking down first what is lost or to be made anew; raises DriveMountError."""
        ...

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Uploads what waits and takes the mount down; raises StorageError."""
        ...


class ColabMounter:
    """google.colab's own mount: asks the person in the notebook's page for access."""

    name = "colab"

    def root(self, mountpoint: Path) -> Path:
        """Returns where My Drive begins under a mountpoint."""
        return mountpoint / "MyDrive"

    def is_listed(self, mountpoint: Path) -> bool:
        """Whether something is mounted there, dead or alive."""
        return is_mountpoint(mountpoint)

    def mount(
        self,
        mountpoint: Path,
        *,
        timeout_s: float,
        is_alive: Callable[[], bool],
        is_lost: bool,
        anew: bool,
    ) -> None:
        """Mounts it, taking down first what is lost or to be made anew."""
        runtime.mount(
            mountpoint, is_mounted=is_alive, timeout_s=timeout_s, is_lost=is_lost, force=anew
        )

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Uploads what waits and takes the mount down."""
        runtime.flush_and_unmount(mountpoint, timeout_s=timeout_s)
