"""How much an archive may ask for before it counts as a bomb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colabkit.datasets.archives.members import Column
from colabkit.errors import ArchiveUnsafeError

_RAISE = "Pass Limits with a larger {} if you trust where it comes from."


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what an archive may unpack to; raise one to allow an unusual archive.

    Args:
        total_bytes: The most that all members together may unpack to.
        ratio: The most unpacked bytes for each byte of the archive.
        ratio_free_bytes: Up to this much is unpacked whatever its ratio.
        files: The most members.
        empty_files: The most members without content.
        case_clashes: Allow names that differ in case only, though the disk seems to take them
            for one.

    Example:
        >>> Limits(ratio=2000).ratio
        2000
    """

    total_bytes: int = 1 << 40
    ratio: int = 200
    ratio_free_bytes: int = 1 << 30
    files: int = 5_000_000
    empty_files: int = 100_000
    case_clashes: bool = False

    def check_bytes(self, unpacked_bytes: int, archive_bytes: int, *, member: str = "") -> None:
        """Raises where the unpacked size is out of proportion."""
        if unpacked_bytes > self.total_bytes:
            message = (
                f"The archive unpacks to more than {self.total_bytes:,} bytes "
                f"({unpacked_bytes:,} so far)."
            )
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("total_bytes"))
        if unpacked_bytes > max(self.ratio_free_bytes, self.ratio * archive_bytes):
            message = (
                f"{archive_bytes:,} bytes of archive unpack to {unpacked_bytes:,}, "
                f"more than {self.ratio} for each: it looks like a bomb."
            )
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("ratio"))

    def check_counts(self, files: int, empty_files: int, *, member: str = "") -> None:
        """Raises where there are too many members."""
        if files > self.files:
            message = f"The archive has {files:,} members, more than {self.files:,}."
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("files"))
        if empty_files > self.empty_files:
            message = (
                f"The archive has {empty_files:,} members without content, "
                f"more than {self.empty_files:,}: it looks like a bomb."
            )
            raise ArchiveUnsafeError(message, member=member, hint=_RAISE.format("empty_files"))

    def check_table(self, paths: Sequence[str], nbytes: Column, archive_bytes: int) -> None:
        """Raises where all members together are too much."""
        if not len(paths):
            return
        largest = int(np.argmax(nbytes))
        self.check_bytes(int(nbytes[largest]), archive_bytes, member=paths[largest])
        # No single sum: a lying archive overflows 64 bits.
        total_bytes = int((nbytes >> 20).sum()) << 20
        total_bytes += int((nbytes & 0xFFFFF).sum())
        self.check_bytes(total_bytes, archive_bytes, member=paths[largest])
        empty = nbytes == 0
        first_empty = paths[int(np.argmax(empty))]
        self.check_counts(len(paths), int(np.count_nonzero(empty)), member=first_empty)
