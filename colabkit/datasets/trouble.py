"""What to do when the source fails in the middle: wait, mount again, go on."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

from colabkit.datasets.watch import Watch
from colabkit.errors import StorageError
from colabkit.notebook import duration_words

PASSING = frozenset(
    {
        errno.EIO,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
    }
)
_LOST = frozenset({errno.ENOTCONN, errno.ESTALE, errno.ENOENT})
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
PATIENCE_S = 600.0


class Retrier:
    """Lets reading go on after a failure that may pass.

    Workers call ``retry``; only the main thread mounts, so ``tend`` is called there.

    Args:
        watch: Shows the trouble, and says when to stop waiting.
        location: What is being read, for the message.
        is_lost: Says whether the source's mount is gone; then a missing file is no verdict.
        remount: Mounts it again, None where only the user can.
        pauses_s: Back-off between tries; the last one repeats.
        patience_s: How long a failure may last.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        location: str,
        is_lost: Callable[[], bool] = lambda: False,
        remount: Callable[[], None] | None = None,
        pauses_s: tuple[float, ...] = PAUSES_S,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._location = location
        self._is_lost = is_lost
        self._remount = remount
        self._pauses_s = pauses_s
        self._patience_s = patience_s
        self._clock = clock
        self._guard = threading.Lock()
        self._wants_mount = threading.Event()
        self._failing_since_s: float | None = None
        self._tries = 0
        self._bytes_then = -1
        self.count = 0

    def retry(self, error: OSError) -> None:
        """Returns when it is worth trying again.

        Raises:
            StorageError: The failure has lasted too long.
            OSError: ``error`` itself, when it is of a kind that does not pass.
            StoppedError: The caller wants no more.
        """
        self._watch.check()
        lost = error.errno in _LOST and (error.errno != errno.ENOENT or self._is_lost())
        if not lost and error.errno not in PASSING:
            raise error
        pause_s = self._next_pause(error)
        self._watch.trouble(f"{os.strerror(error.errno or 0)}, trying again")
        if lost:
            self._wants_mount.set()
        self._watch.stopped.wait(pause_s)
        self._watch.check()

    def tend(self) -> None:
        """Mounts the source again when a worker found it lost; called on the main thread."""
        if self._wants_mount.is_set():
            self._wants_mount.clear()
            if self._remount is not None and self._is_lost():
                self._remount()

    def _next_pause(self, error: OSError) -> float:
        with self._guard:
            now_s = self._clock()
            bytes_now = self._watch.standing().bytes_done
            if self._failing_since_s is None or bytes_now > self._bytes_then:
                self._failing_since_s, self._tries = now_s, 0
            self._bytes_then = bytes_now
            lasted_s = now_s - self._failing_since_s
            if lasted_s > self._patience_s:
                message = (
                    f"{self._location} could not be read for {duration_words(lasted_s)}:"
                    f" {os.strerror(error.errno or 0)}."
                )
                raise StorageError(
                    message,
                    path=self._location,
                    operation="read",
                    hint="Mount Drive again and run this cell again: it goes on where it stopped."
                    " Drive also answers so when a file was read too often in one day.",
                ) from error
            pause_s = self._pauses_s[min(self._tries, len(self._pauses_s) - 1)]
            self._tries += 1
            self.count += 1
            return pause_s
