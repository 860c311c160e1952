"""What a program that mounts Drive is asked, whichever it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True, slots=True)
class MountRequest:
    """How a mount is wanted.

    Attributes:
        timeout_s: How long to wait for it, and for the person who allows it.
        is_alive: Looks whether it is there and answers.
        is_lost: Whether what is mounted there is dead, and must be taken down first.
    """

    timeout_s: float
    is_alive: Callable[[], bool]
    is_lost: bool = False


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

    def mount(self, mountpoint: Path, wanted: MountRequest) -> None:
        """Mounts it, taking down first what is lost; raises DriveMountError."""
        ...

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Uploads what waits and takes the mount down; raises StorageError."""
        ...


@runtime_checkable
class Naming(Protocol):
    """A mounter that knows which Drive it mounts, whatever the mountpoint."""

    drive: str
    """The same for the same Drive on this machine, in every process."""


@runtime_checkable
class Telling(Protocol):
    """A mounter whose program says itself what is uploaded."""

    def is_uploaded(self, mountpoint: Path, path: Path) -> bool | None:
        """Returns whether a file is on Drive, None when the program does not say."""
        ...
