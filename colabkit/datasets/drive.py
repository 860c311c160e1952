"""Google Drive's mount as a dataset's source: whether it answers, and mounting it again."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil

from colabkit.runtime import Platform, detect_platform, mount
from colabkit.storage import DEFAULT_MOUNTPOINT, drive_part

_PROBE_TIMEOUT_S = 3.0
_MOUNT_TIMEOUT_S = 60.0


class DriveMount:
    """The mount that a path on Drive lies on.

    Args:
        mountpoint: Where Drive is mounted.
    """

    def __init__(self, mountpoint: str = DEFAULT_MOUNTPOINT) -> None:
        self._mountpoint = mountpoint

    def is_alive(self) -> bool:
        """Returns whether it answers, asked on a thread: a dead mount may hang the question."""
        if not is_mounted(self._mountpoint):
            return False
        answers: list[bool] = []
        root = Path(self._mountpoint) / "MyDrive"
        asking = threading.Thread(
            target=lambda: answers.append(root.is_dir()), name="colabkit-probe", daemon=True
        )
        asking.start()
        asking.join(_PROBE_TIMEOUT_S)
        return answers == [True]

    def mount(self) -> None:
        """Mounts it again.

        Raises:
            DriveMountError: It cannot be mounted.
        """
        mount(
            self._mountpoint,
            is_mounted=lambda: is_mounted(self._mountpoint),
            timeout_s=_MOUNT_TIMEOUT_S,
            is_lost=True,
        )


def mount_under(path: str) -> DriveMount | None:
    """Returns the mount that a path lies on, None when it is not on Colab's Drive."""
    on_drive = detect_platform() is Platform.COLAB and drive_part(path) is not None
    return DriveMount() if on_drive else None


def is_mounted(mountpoint: str) -> bool:
    """Whether something is mounted there, by the mount table: a dead mount may hang a look."""
    return any(part.mountpoint == mountpoint for part in psutil.disk_partitions(all=True))
