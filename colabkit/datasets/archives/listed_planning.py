"""Archives that another package reads: its listing checked as a zip's directory is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from colabkit.datasets.archives.limits import Limits
from colabkit.datasets.archives.members import FileTable, PathColumn
from colabkit.datasets.archives.names import check_clashes, folders_of
from colabkit.datasets.archives.remarks import Remarks
from colabkit.datasets.archives.safety import check_mode, parents, placed
from colabkit.errors import ArchiveCorruptError, ArchiveUnsupportedError
from colabkit.storage import hash_of

_NBYTES_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class ListedMember:
    """What a package says of a member.

    ``mode`` is 0, ``crc`` None and ``time_s`` NaN where it is not known.
    """

    name: str
    nbytes: int
    crc: int | None
    mode: int
    is_folder: bool
    is_link: bool
    time_s: float = math.nan


@dataclass(frozen=True, slots=True)
class ListedPlan:
    """A listing that was found sound; ``names`` are the files as the package knows them."""

    files: FileTable
    folders: tuple[str, ...]
    names: tuple[str, ...]
    times: tuple[float, ...]
    digest: str


def plan_listed(
    members: Iterable[ListedMember],
    wanted: Callable[[str], bool] | None,
    limits: Limits,
    archive_bytes: int,
    remarks: Remarks,
) -> ListedPlan:
    """Checks every member.

    Raises:
        ArchiveUnsafeError: A member would lead outside, or the archive is a bomb.
        ArchiveUnsupportedError: A member is a link.
    """
    kept: list[ListedMember] = []
    paths = PathColumn()
    folders: dict[str, None] = {}
    for member in members:
        path = placed(member.name, wanted, remarks)
        if path is None:
            continue
        check_mode(member.name, member.mode)
        if member.is_link:
            message = f"Member {path!r} is a link, which is read from zips and tars only."
            raise ArchiveUnsupportedError(message, member=path, hint="Pack the files themselves.")
        if member.is_folder:
            folders |= dict.fromkeys([*reversed(list(parents(path))), path])
            continue
        if not 0 <= member.nbytes <= _NBYTES_MAX:
            message = f"Member {path!r} claims {member.nbytes:,} bytes."
            raise ArchiveCorruptError(message, member=path, hint="Download the archive again.")
        paths.append(path)
        kept.append(member)
    folders = folders_of(paths) | folders
    check_clashes(paths, folders)
    nbytes = np.array([member.nbytes for member in kept], np.int64)
    crcs = np.array([member.crc or 0 for member in kept], np.uint32)
    known = all(member.crc is not None or not member.nbytes for member in kept)
    modes = np.array([member.mode & 0o777 for member in kept], np.uint16)
    limits.check_table(paths, nbytes, archive_bytes)
    listing = "\n".join(f"{path}|{m.nbytes}|{m.crc}" for path, m in zip(paths, kept, strict=True))
    return ListedPlan(
        FileTable(paths, nbytes, crcs if known else None, modes),
        tuple(folders),
        tuple(member.name for member in kept),
        tuple(member.time_s for member in kept),
        hash_of(listing.encode(), str(archive_bytes).encode()),
    )
