"""What is mounted where, told by the mount table and never by ``exists``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import psutil

_SLOW = ("fuse", "nfs", "cifs", "smb", "9p", "afs", "drvfs", "davfs", "ceph", "lustre", "glusterfs")
_LOCAL_FUSE = ("fuseblk", "fusectl", "fuse-overlayfs", "fuse.overlayfs")
_TABLE = Path("/proc/self/mounts")


@dataclasses.dataclass(frozen=True, slots=True)
class Mounted:
    """A row of the mount table.

    Attributes:
        mountpoint: Where it is mounted.
        kind: The type of the file system.
    """

    mountpoint: str
    kind: str


def _table() -> list[Mounted]:
    if not _TABLE.exists():
        return [Mounted(p.mountpoint, p.fstype) for p in psutil.disk_partitions(all=True)]
    rows = _TABLE.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [Mounted(_unescaped(row.split(" ")[1]), row.split(" ")[2]) for row in rows]


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def is_mountpoint(path: str | Path) -> bool:
    """Whether the mount table has something at a path; asks nothing of what is mounted.

    Example:
        >>> is_mountpoint("/proc")
        True
    """
    wanted = str(Path(path).absolute())
    return any(mounted.mountpoint == wanted for mounted in _table())


def mounted_below(path: str | Path) -> Mounted | None:
    """Returns what a path lies on, None where the mount table does not say.

    In a chroot, for one, it lacks what the root folder lies on.
    """
    resolved, best = Path(path).resolve(), None
    for mounted in _table():
        # Of two mounted at one place the later one is on top.
        if resolved.is_relative_to(mounted.mountpoint) and (
            best is None or len(mounted.mountpoint) >= len(best.mountpoint)
        ):
            best = mounted
    return best


def filesystem_type(path: str | Path) -> str:
    """Returns the type of the file system a path lies on, "" when unknown."""
    mounted = mounted_below(path)
    return mounted.kind if mounted else ""


def is_slow(path: str | Path) -> bool:
    """Whether a path lies on a network or FUSE file system, as Drive's mount does."""
    kind = filesystem_type(path)
    return kind.startswith(_SLOW) and kind not in _LOCAL_FUSE
