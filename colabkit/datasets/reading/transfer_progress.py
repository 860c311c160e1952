"""How far unpacking is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far unpacking is; totals are None where only reading the archive tells.

    ``bytes_used`` counts the archive's bytes that were read and worked on, ``bytes_written``
    those of the files.
    """

    bytes_used: int
    archive_bytes: int
    bytes_written: int
    nbytes: int | None
    files_done: int
    n_files: int | None


class Counter:
    """What the workers have written; each adds whole files or pieces under the crew's lock."""

    __slots__ = ("bytes_written", "files_done")

    def __init__(self) -> None:
        self.bytes_written = 0
        self.files_done = 0

    def add_done(self, nbytes: int) -> None:
        """Counts a file that was whole before."""
        self.bytes_written += nbytes
        self.files_done += 1
