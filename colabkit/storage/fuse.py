"""What every program that mounts through FUSE needs: the device, and a way to unmount."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from colabkit.errors import DriveMountError, MountFailure, StorageError
from colabkit.storage.mounts import is_mountpoint
from colabkit.storage.programs import is_installed, run_program

_UNMOUNT_S = 20.0
_BUSY_S = 5.0
_PAUSE_S = 0.1


def missing_program(mountpoint: Path, program: str, hint: str) -> DriveMountError:
    """Returns the error for a program that is not installed."""
    message = f"Drive is not mounted at {mountpoint}: {program} is not installed."
    return DriveMountError(message, cause=MountFailure.NO_PROGRAM, path=mountpoint, hint=hint)


def require_fuse(mountpoint: Path) -> None:
    """Makes sure that this machine mounts through FUSE at all.

    Raises:
        DriveMountError: ``/dev/fuse`` cannot be opened, or fusermount is missing.
    """
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        message = (
            f"Drive is not mounted at {mountpoint}: /dev/fuse cannot be opened"
            f" ({os.strerror(error.errno or 0)})."
        )
        hint = 'Without FUSE, write straight to Drive with ckpt_dir="rclone://REMOTE/FOLDER".'
        cause = MountFailure.NOT_SUPPORTED
        raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint) from error
    if _fusermount() is None:
        raise missing_program(mountpoint, "fusermount3", "Run: apt-get install fuse3")


def await_mount(mountpoint: Path, *, timeout_s: float, is_alive: Callable[[], bool]) -> None:
    """Waits until a mount that was begun is there and answers.

    Raises:
        DriveMountError: It was not in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_alive():
        if time.monotonic() >= deadline_s:
            message = f"Drive is not mounted at {mountpoint}: no answer within {timeout_s:.0f} s."
            hint = "Check the network, then run the cell again."
            cause = MountFailure.TIMED_OUT
            raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)
        time.sleep(_PAUSE_S)


def take_down(mountpoint: Path, *, is_dead: bool = False) -> None:
    """Takes a FUSE mount down; a dead one is let go of at once, whoever still holds it.

    Raises:
        StorageError: It is in use.
    """
    said = "nothing here can unmount"
    deadline_s = time.monotonic() + _BUSY_S
    while is_mountpoint(mountpoint):
        for command in _unmounting(is_dead=is_dead):
            said = run_program([*command, str(mountpoint)], timeout_s=_UNMOUNT_S).said
            if not is_mountpoint(mountpoint):
                return
        # One that lay below another, now taken down, has its turn in the next round.
        if time.monotonic() >= deadline_s:
            message = f"Drive at {mountpoint} could not be unmounted: {said}."
            hint = "Close the files that are open there, and leave the folder with os.chdir."
            raise StorageError(message, path=mountpoint, operation="unmount", hint=hint)
        time.sleep(_PAUSE_S)


def _unmounting(*, is_dead: bool) -> list[list[str]]:
    """Returns the commands that unmount, the mountpoint left out, in the order to be tried."""
    fusermount = _fusermount()
    commands = [[fusermount, "-u", *(["-z"] if is_dead else [])]] if fusermount else []
    # Where FUSE's own program is not installed, or root has mounted without it.
    commands += [["umount", *(["-l"] if is_dead else [])]] if is_installed("umount") else []
    return commands


def _fusermount() -> str | None:
    return next((name for name in ("fusermount3", "fusermount") if is_installed(name)), None)
