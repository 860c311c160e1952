"""Gives a lent machine back, after Drive has uploaded what was written to it."""

from __future__ import annotations

import time
from collections.abc import Callable

from colabkit.errors import StorageError
from colabkit.notebook import files_words, said_if_it_lasts, silence_s
from colabkit.runtime import Platform, detect_platform, unassign
from colabkit.storage.drive_mount import DriveMount, MountState, RemountOutcome
from colabkit.storage.mounters import ColabMounter
from colabkit.storage.places import mount_in_use, use_mount

_LOOK_S = 1.0
_SAY_S = 60.0
_QUIET_S = 10.0


def give_back(
    *,
    say: Callable[[str], None],
    upload: Callable[[Callable[[str], None]], bool],
    timeout_s: float = 3600.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Waits until all is uploaded, unmounts Drive and gives the machine back; does not return.

    What is unmounted is what the mount table shows, whoever mounted it, from this notebook or
    from another process: the machine's end would cut its uploads.

    Args:
        say: Tells the user a sentence.
        upload: Brings to Drive what still waits on the local disk, and returns whether that is
            all of it; it is given ``say``.
        timeout_s: How long to wait for the upload.
        clock: Seconds that only grow.
        sleep: Waits some seconds.

    Raises:
        StorageError: Not everything was copied or uploaded in time; the machine is kept.
        MachineReleaseError: The machine could not be given back.
    """
    if detect_platform() is not Platform.COLAB:
        say("This machine is not lent by Colab: there is nothing to give back.")
        return
    mount = mount_in_use()
    if mount is not None:
        _revive(mount)
    is_all = upload(say)
    ends_s = clock() + timeout_s
    while mount is not None and mount.probe() is MountState.MOUNTED:
        _wait_for_upload(mount, say, timeout_s, clock, sleep)
        say("Drive uploads what it still holds, and is unmounted.")
        with said_if_it_lasts("Drive is still uploading.", after_s=_QUIET_S):
            mount.unmount(timeout_s=max(1.0, ends_s - clock()))
        if not isinstance(mount.mounter, ColabMounter):
            use_mount(None)  # besides it, Google's own program may have mounted Drive
        mount = mount_in_use()
    there = "Everything" if is_all else "Everything else"
    known = "No Drive is mounted." if mount is None else f"{there} is on Drive."
    say(f"{known} The machine is given back; this notebook disconnects now.")
    unassign()


def _revive(mount: DriveMount) -> None:
    """Mounts again what may hold something that is not uploaded.

    What somebody has unmounted after everything was seen to be uploaded is let be.

    Raises:
        DriveLostError: It cannot be mounted.
    """
    if mount.probe() is not MountState.LOST:
        return
    if not mount.mounter.is_listed(mount.mountpoint) and not mount.is_unsure:
        return
    result = mount.remount(now=True)
    if result.outcome not in {RemountOutcome.FINE, RemountOutcome.REMOUNTED}:
        raise mount.lost_error() from result.error


def _wait_for_upload(
    mount: DriveMount,
    say: Callable[[str], None],
    timeout_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    began_s = said_s = clock()
    while waiting := mount.pending():
        now_s = clock()
        if now_s - began_s >= timeout_s:
            message = (
                f"After {timeout_s:.0f} s Drive has not uploaded {len(waiting)} of the files"
                f" written, {waiting[0]} among them."
            )
            hint = "The machine is kept. Look whether your Drive or its trash is full."
            raise StorageError(message, path=waiting[0], operation="upload", hint=hint)
        if now_s == began_s or now_s - said_s >= silence_s(_SAY_S):
            say(f"Waiting for Drive to upload {files_words(len(waiting))}.")
            said_s = now_s
        sleep(_LOOK_S)
