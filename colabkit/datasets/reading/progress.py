"""How far a transfer is, told by many threads and shown by one."""

from __future__ import annotations

import dataclasses
import enum
import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TransferProgress:
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
    """What the workers have written; each adds whole files or pieces under the group's lock."""

    __slots__ = ("bytes_written", "files_done")

    def __init__(self) -> None:
        self.bytes_written = 0
        self.files_done = 0

    def add_done(self, nbytes: int) -> None:
        """Counts a file that was whole before."""
        self.bytes_written += nbytes
        self.files_done += 1


class Phase(enum.Enum):
    """What a call on a dataset is doing."""

    WAITING = "waiting for another process"
    LOOKING = "reading the table of contents"
    DOWNLOADING = "downloading"
    COPYING = "copying"
    UNPACKING = "unpacking"
    PACKING = "packing"
    CHECKING = "checking"
    PUBLISHING = "publishing"


class StoppedError(Exception):
    """The caller stopped the transfer; never leaves this package."""


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """How far a transfer is.

    Attributes:
        phase: What is being done.
        bytes_done: Bytes that are done.
        bytes_total: All bytes, None when unknown.
        files_done: Files that are done.
        files_total: All files, None when unknown.
        trouble: What the source's last failure was, "" while it answers.
    """

    phase: Phase
    bytes_done: int = 0
    bytes_total: int | None = None
    files_done: int = 0
    files_total: int | None = None
    trouble: str = ""


class Watch:
    """Counts what is done; every worker passes here and so learns that it has to stop."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._standing = Standing(Phase.LOOKING)
        self.stopped = threading.Event()

    def begin(
        self, phase: Phase, *, bytes_total: int | None = None, files_total: int | None = None
    ) -> None:
        """Says what is done from now on, and how much of it there is."""
        with self._guard:
            self._standing = Standing(phase, 0, bytes_total, 0, files_total)

    def begin_once(self, phase: Phase) -> None:
        """Says what is done from now on, unless another worker has said so."""
        with self._guard:
            if self._standing.phase is not phase:
                self._standing = Standing(phase)

    def add(self, *, nbytes: int = 0, files: int = 0) -> None:
        """Counts what was done.

        Raises:
            StoppedError: The caller wants no more.
        """
        self.check()
        with self._guard:
            now = self._standing
            self._standing = dataclasses.replace(
                now,
                bytes_done=now.bytes_done + nbytes,
                files_done=now.files_done + files,
                trouble="",
            )

    def tell(self, standing: Standing) -> None:
        """Takes over what somebody else counted.

        Raises:
            StoppedError: The caller wants no more.
        """
        self.check()
        with self._guard:
            self._standing = standing

    def trouble(self, words: str) -> None:
        """Says that the source does not answer."""
        with self._guard:
            self._standing = dataclasses.replace(self._standing, trouble=words)

    def standing(self) -> Standing:
        """Returns how far it is."""
        with self._guard:
            return self._standing

    def pause(self, pause_s: float) -> None:
        """Waits.

        Raises:
            StoppedError: The caller wants no more.
        """
        self.stopped.wait(pause_s)
        self.check()

    def check(self) -> None:
        """Ends the worker that calls it when the caller wants no more.

        Raises:
            StoppedError: The caller wants no more.
        """
        if self.stopped.is_set():
            raise StoppedError
