"""How a machine's Drive behaves; may change while it runs."""

from __future__ import annotations

import dataclasses
import enum
import errno
import itertools
import json
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path


class UploadOrder(enum.StrEnum):
    """Which of the files that are ready is sent first."""

    SMALLEST = "smallest"  # a manifest written last overtakes its shards
    OLDEST = "oldest"


class Attributes(enum.StrEnum):
    """Which extended attributes answer."""

    ALL = "all"
    ID = "id"
    NONE = "none"


@dataclass(frozen=True)
class Fault:
    """Calls of one kind fail: first with ``errnos[0]``, then the next, the last one repeated.

    Counted are the calls that reach Drive: a large read or write is one for each 128 KiB.

    Attributes:
        op: The call as a program knows it: "read", "write", "listdir", "close", "open", "stat",
            "create", "mkdir", "rename", "unlink", "truncate", "fsync", "getxattr" or "*".
        path: A pattern in the manner of ``fnmatch`` for the path below the mountpoint.
        errnos: The errno of the first failing call, the second, and so on.
        hangs_s: How long each failing call takes first; then it fails only if there is an errno.
        skip: How many matching calls succeed first.
        count: How many calls fail; None means for ever.
    """

    op: str = "*"
    path: str = "*"
    errnos: tuple[int, ...] = (errno.EIO,)
    skip: int = 0
    count: int | None = None
    hangs_s: float = 0.0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class DriveRules:
    """How Drive behaves.

    Attributes:
        upload_delay_s: How long after its last close a file waits for its upload, and any other
            change for its way to the cloud.
        upload_bytes_per_s: Bandwidth towards the cloud; None means unlimited, 0 means no way out.
        download_bytes_per_s: Bandwidth from the cloud; None means unlimited.
        latency_s: What each call to the mount takes in addition.
        view_delay_s: For how long a folder's listing may be older than the cloud.
        entries_per_folder: More entries fail with errno 5.
        upload_order: Which file goes first.
        attributes: Which extended attributes answer.
        cache_survives: Whether a mount goes on with the cache that a killed one left behind.
        faults: Calls that fail.
    """

    upload_delay_s: float = 0.02
    upload_bytes_per_s: int | None = None
    download_bytes_per_s: int | None = None
    latency_s: float = 0.0
    view_delay_s: float = 0.2
    entries_per_folder: int = 10_000
    upload_order: UploadOrder = UploadOrder.SMALLEST
    attributes: Attributes = Attributes.ALL
    cache_survives: bool = True
    faults: tuple[Fault, ...] = ()


_write_number = itertools.count()


def write_json(path: Path, value: object) -> None:
    """Writes a control file so that a reader sees the old or the new one, never half."""
    aside = path.with_name(f".{path.name}-{os.getpid()}-{next(_write_number)}")
    aside.write_text(json.dumps(value))
    # A file system's own clock stands still for milliseconds, and a file's number is used again:
    # by both a reader would take what is written next for what it has read.
    os.utime(aside, ns=(time.time_ns(),) * 2)
    aside.replace(path)


def write_rules(path: Path, rules: DriveRules) -> None:
    write_json(path, dataclasses.asdict(rules))


def read_rules(path: Path) -> DriveRules:
    """Reads the rules; the default ones where no file says otherwise."""
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return DriveRules()
    raw["upload_order"] = UploadOrder(raw["upload_order"])
    raw["attributes"] = Attributes(raw["attributes"])
    raw["faults"] = tuple(
        Fault(**fault | {"errnos": tuple(fault["errnos"])}) for fault in raw["faults"]
    )
    return DriveRules(**raw)
