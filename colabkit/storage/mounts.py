"""What is mounted where, told by the mount table and never by ``exists``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import psutil

_SLOW = ("fuse", "nfs", "cifs", "smb", "9p", "afs", "drvfs", "davfs", "ceph", "lustre", "glusterfs")
_LOCAL_FUSE = ("fuseblk", "fusectl", "fuse-overlayfs", "fuse.overlayfs")
_TABLE = Path("/proc/self/mounts")


def is_mountpoint(path: str | Path) -> bool:
    """Whether the mount table has something at a path; asks nothing of what is mounted.

    Example:
        >>> is_mountpoint("/proc")
        True
    """
    wanted = str(Path(path).absolute())
    if not _TABLE.exists():
        return any(p.mountpoint == wanted for p in psutil.disk_partitions(all=True))
    with _TABLE.open(encoding="utf-8", errors="surrogateescape") as table:
        return any(_unescaped(line.split(" ")[1]) == wanted for line in table)


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


@dataclasses.dataclass(frozen=True, slots=True)
class Mounted:
    """What a path lies on.

    Attributes:
        mountpoint: Where it is mounted.
        kind: The type of the file system, "" when unknown.
    """

    mountpoint: str
    kind: str


def mounted_below(path: str | Path) -> Mounted:
    """Returns the file system that a path lies on."""
    resolved = Path(path).resolve()
    best = Mounted("/", "")
    for partition in psutil.disk_partitions(all=True):
        mountpoint = partition.mountpoint
        if resolved.is_relative_to(mountpoint) and len(mountpoint) >= len(best.mountpoint):
            best = Mounted(mountpoint, partition.fstype)
    return best


def filesystem_type(path: str | Path) -> str:
    """Returns the type of the file system a path lies on, "" when unknown."""
    return mounted_below(path).kind


def is_slow(path: str | Path) -> bool:
    """Whether a path lies on a network or FUSE file system, as Drive's mount does."""
    kind = filesystem_type(path)
    return kind.startswith(_SLOW) and kind not in _LOCAL_FUSE
