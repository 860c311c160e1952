"""What kind of file system a path lies on."""

from __future__ import annotations

from pathlib import Path

import psutil

_SLOW = ("fuse", "nfs", "cifs", "smb", "9p", "afs", "drvfs", "davfs", "ceph", "lustre", "glusterfs")
_LOCAL_FUSE = ("fuseblk", "fusectl", "fuse-overlayfs", "fuse.overlayfs")


def filesystem_type(path: str | Path) -> str:
    """Returns the type of the file system a path lies on, "" when unknown."""
    resolved = Path(path).resolve()
    best = ("", "")
    for partition in psutil.disk_partitions(all=True):
        mountpoint = partition.mountpoint
        if resolved.is_relative_to(mountpoint) and len(mountpoint) >= len(best[0]):
            best = (mountpoint, partition.fstype)
    return best[1]


def is_slow(path: str | Path) -> bool:
    """Whether a path lies on a network or FUSE file system, as Drive's mount does."""
    kind = filesystem_type(path)
    return kind.startswith(_SLOW) and kind not in _LOCAL_FUSE
