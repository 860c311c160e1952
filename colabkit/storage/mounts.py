"""What is mounted where, told by the mount table and never by ``exists``."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from colabkit.storage.asking import asked

_SLOW = ("fuse", "nfs", "cifs", "smb", "9p", "afs", "drvfs", "davfs", "ceph", "lustre", "glusterfs")
_LOCAL_FUSE = ("fuseblk", "fusectl", "fuse-overlayfs", "fuse.overlayfs")
_DRIVE = "fuse.drive"
_TABLE = Path("/proc/self/mounts")
_LINKS_MAX = 40
_PROBE_S = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class Mounted:
    """A row of the mount table.

    Attributes:
        mountpoint: Where it is mounted.
        kind: The type of the file system.
        is_readonly: Whether nothing can be written to it.
    """

    mountpoint: str
    kind: str
    is_readonly: bool = False


def _table() -> list[Mounted]:
    if not _TABLE.exists():
        import psutil  # imported where there is no table to read

        partitions = psutil.disk_partitions(all=True)
        return [Mounted(p.mountpoint, p.fstype, "ro" in p.opts.split(",")) for p in partitions]
    rows = _TABLE.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [_mounted(row) for row in rows]


def _mounted(row: str) -> Mounted:
    _source, mountpoint, kind, options, *_ = row.split(" ")
    return Mounted(_unescaped(mountpoint), kind, "ro" in options.split(","))


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


def is_readonly(path: str | Path) -> bool:
    """Whether what is mounted at a path takes nothing that is written to it.

    Example:
        >>> is_readonly("/proc")
        False
    """
    wanted = str(Path(path).absolute())
    return any(mounted.is_readonly for mounted in _table() if mounted.mountpoint == wanted)


def drive_mountpoints() -> list[Path]:
    """Returns where Google's own program has mounted Drive, dead or alive, the newest first.

    It runs once on a machine: of several, the newest alone can be alive.
    """
    found = [Path(m.mountpoint) for m in _table() if m.kind == _DRIVE]
    return list(dict.fromkeys(reversed(found)))


def led_to(path: str | Path, *, unasked: Collection[Path]) -> Path:
    """Returns where a path leads: absolute, its links followed, no ".." in it.

    Args:
        path: A path of this machine.
        unasked: Where no link is looked for: a mount that is dead may hang whoever asks it.

    Example:
        >>> led_to("/proc/self/../version", unasked=[Path("/proc")])
        PosixPath('/proc/version')
    """
    absolute = Path(path).absolute()
    parts = collections.deque(absolute.parts[1:])
    where, links = Path(absolute.anchor), 0
    while parts:
        part = parts.popleft()
        where = where.parent if part == ".." else where / part
        if where in unasked:
            return Path(os.path.normpath(where.joinpath(*parts)))
        try:
            target = where.readlink()
        except OSError:
            continue
        links += 1
        if links > _LINKS_MAX:
            break
        where = Path(target.anchor) if target.is_absolute() else where.parent
        parts.extendleft(reversed(target.parts[1 if target.is_absolute() else 0 :]))
    return Path(os.path.normpath(where.joinpath(*parts)))


def device_of(folder: Path) -> int | None:
    """Returns the device that a folder lies on, None when there is none or no answer in time.

    A dead mount may hang whoever asks it, and then it is a thread that hangs.
    """
    try:
        found = asked(folder.stat, timeout_s=_PROBE_S)
    except OSError:
        return None
    return found.st_dev if stat.S_ISDIR(found.st_mode) else None


def answers(folder: Path) -> bool:
    """Whether a folder is there and can be looked at in time."""
    return device_of(folder) is not None


def mounted_below(path: str | Path) -> Mounted | None:
    """Returns what a path lies on, None where the mount table does not say.

    In a chroot, for one, it lacks what the root folder lies on.
    """
    table, best = _table(), None
    where = led_to(path, unasked=[Path(m.mountpoint) for m in table if m.kind == _DRIVE])
    for mounted in table:
        # Of two mounted at one place the later one is on top.
        if where.is_relative_to(mounted.mountpoint) and (
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
