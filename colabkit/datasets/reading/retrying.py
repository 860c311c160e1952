"""What to do when the source fails in the middle: wait, mount again, go on where it broke."""

from __future__ import annotations

import dataclasses
import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.source import Source, open_source
from colabkit.datasets.reading.web import NOTHING, Access
from colabkit.errors import (
    ColabKitError,
    DiskFullError,
    DriveLostError,
    DriveMountError,
    StorageError,
)
from colabkit.notebook import duration_words
from colabkit.storage import FULL, LOST, RemountResult, may_pass

_logger = logging.getLogger(__name__)
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
PATIENCE_S = 600.0
# A server that answers with failures for a minute means them.
URL_PATIENCE_S = 60.0
Retry = Callable[[OSError], None]
"""Returns when it is worth trying again, raises when it is not."""


class Mount(Protocol):
    """The mount that a source lies on."""

    def require(self) -> None:
        """Raises DriveLostError when it is lost; any thread may ask."""
        ...

    def remount(self) -> RemountResult:
        """Mounts it again when it is lost and a try is due; only the main thread may."""
        ...


class Retrier:
    """Lets reading go on after a failure that may pass.

    Workers call ``retry``; only the main thread mounts, so ``tend`` is called there. Workers
    that fail together wait together: an outage has one back-off, however many meet it.

    Args:
        watch: Shows the trouble, and says when to stop waiting.
        location: What is being read, for the message.
        mount: The mount that the source lies on, None where there is none to tend.
        pauses_s: Back-off between tries; the last one repeats.
        patience_s: How long a failure may last.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        location: str,
        mount: Mount | None = None,
        pauses_s: tuple[float, ...] = PAUSES_S,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._location = location
        self._mount = mount
        self._pauses_s = pauses_s
        self._patience_s = patience_s
        self._clock = clock
        self._guard = threading.Lock()
        self._wants_mount = threading.Event()
        self._outage: _Outage | None = None

    def retry(self, error: OSError) -> None:
        """Returns when it is worth trying again.

        Raises:
            DiskFullError: The disk is full that Drive keeps what it reads on.
            StorageError: The failure has lasted too long.
            OSError: ``error`` itself, when it is of a kind that does not pass.
            StoppedError: The caller wants no more.
        """
        self._watch.check()
        if isinstance(error, ColabKitError):
            raise error
        if error.errno in FULL:
            raise self._full() from error
        lost = self._says_lost(error)
        if not (lost or may_pass(error)):
            raise error
        pause_s = self._pause_s(error)
        self._watch.trouble(f"{_words(error)}, trying again")
        if lost:
            self._wants_mount.set()
        self._watch.stopped.wait(pause_s)
        self._watch.check()

    def tend(self) -> None:
        """Mounts the source again when a worker found it lost; called on the main thread.

        Raises:
            DriveMountError: It cannot be mounted, and trying again will not help.
        """
        if not self._wants_mount.is_set() or self._mount is None:
            return
        self._wants_mount.clear()
        error = self._mount.remount().error
        if error is None:
            return
        if isinstance(error, DriveMountError) and not error.cause.may_pass:
            raise error
        _logger.warning("Drive could not be mounted again yet: %s", error)

    def _full(self) -> DiskFullError:
        message = f"{self._location} cannot be read: this machine's disk is full."
        hint = "Drive keeps what it reads on the disk for a while: make room, and run this again."
        return DiskFullError(message, path=self._location, hint=hint)

    def _hint(self) -> str:
        if "://" in self._location:
            return "Check the address and the network, and run this again: it goes on from here."
        if self._mount is None:
            return "Check its disk or mount, and run this again: it goes on where it stopped."
        return (
            "Mount Drive again and run this cell again: it goes on where it stopped."
            " Drive also answers so when a file was read too often in one day."
        )

    def _says_lost(self, error: OSError) -> bool:
        if error.errno == errno.ENOENT:
            # A lost mount shows an empty folder: what is missing there is not gone.
            return self._mount is not None and _is_lost(self._mount)
        return error.errno in LOST

    def _pause_s(self, error: OSError) -> float:
        with self._guard:
            now_s = self._clock()
            standing = self._watch.standing()
            phase, bytes_now = standing.phase, standing.bytes_done
            outage = self._outage
            if outage is None or outage.phase is not phase or bytes_now > outage.bytes_then:
                outage = _Outage(phase, now_s, bytes_then=bytes_now, next_try_s=now_s)
            lasted_s = now_s - outage.began_s
            if lasted_s > self._patience_s:
                raise self._too_long(error, lasted_s) from error
            if now_s >= outage.next_try_s:
                pause_s = self._pauses_s[min(outage.tries, len(self._pauses_s) - 1)]
                outage = dataclasses.replace(
                    outage, tries=outage.tries + 1, next_try_s=now_s + pause_s
                )
            self._outage = outage
            return outage.next_try_s - now_s

    def _too_long(self, error: OSError, lasted_s: float) -> StorageError:
        message = (
            f"{self._location} could not be read for {duration_words(lasted_s)}: {_words(error)}."
        )
        return StorageError(
            message,
            path=self._location,
            operation="read",
            hint=self._hint(),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Outage:
    """A time in which nothing could be read.

    Attributes:
        phase: What was being done.
        began_s: When it was first met.
        bytes_then: What had been read by then; once it is more, the outage was overcome.
        next_try_s: When everybody tries again.
        tries: How many times that was put off.
    """

    phase: Phase
    began_s: float
    bytes_then: int
    next_try_s: float
    tries: int = 0


def _is_lost(mount: Mount) -> bool:
    try:
        mount.require()
    except DriveLostError:
        return True
    return False


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


class RetriedSource:
    """A source each read of which is tried again until it gives its bytes.

    Args:
        source: The archive.
        retry: Called on a failure; returns to try again, raises to give up.
    """

    def __init__(self, source: Source, retry: Retry) -> None:
        self._source = source
        self._retry = retry
        self.name = source.name
        self.nbytes = source.nbytes
        self.starts = source.starts

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes asked for."""
        while True:
            try:
                return self._source.read(offset, nbytes)
            except OSError as error:
                self._retry(error)

    def close(self) -> None:
        """Closes the source."""
        self._source.close()


def open_retried(path: str, retry: Retry, access: Access = NOTHING) -> Source:
    """Opens a source, which fails while the mount is lost that it lies on.

    Raises:
        StorageError: It cannot be opened.
    """
    while True:
        try:
            return open_source(path, access)
        except StorageError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            try:
                retry(error.__cause__)
            except OSError as final:
                if final is error.__cause__:
                    raise error from final
                raise
