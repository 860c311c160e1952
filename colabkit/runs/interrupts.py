"""Ctrl-C, the notebook's stop button and SIGTERM, answered at the next step boundary."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

_PACKAGE = __name__.partition(".")[0]


class InterruptGuard:
    """Holds the first interrupt back until the loop is between two steps.

    A second Ctrl-C is not held back: it stops at once, and the newest checkpoint stays. SIGTERM
    comes before a machine is taken away: once all is saved, it means what it meant before.

    Args:
        on_first: Called when the first of either arrives, to tell the user.
        stops_at_once: Asked then, where code of the user's own is running, whether nothing need be
            waited for: the interrupt is raised there, and what is closed by it saves.
    """

    def __init__(
        self, on_first: Callable[[], None], stops_at_once: Callable[[], bool] = lambda: False
    ) -> None:
        self.pending = False
        self.stays = False
        """Whether the end of a session leaves it in charge, until it lets go."""
        self._on_first, self._stops_at_once = on_first, stops_at_once
        self._previous: dict[int, signal._HANDLER] = {}
        self._process = 0
        self._error: Exception | None = None
        self._installed = self._is_to_end = False

    def install(self) -> None:
        """Takes both over; only the main thread can, and only where they are not ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process, self._installed = os.getpid(), True
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.getsignal(number)
            is_foreign = previous is None and number == signal.SIGTERM
            if previous is signal.SIG_IGN or is_foreign:  # ignored as nohup wants it
                continue
            self._previous[number] = previous
            signal.signal(number, self._handle)

    def raise_in_main(self, error: Exception) -> None:
        """Raises an error in the main thread, which may wait for another one that has failed."""
        if self._installed and signal.getsignal(signal.SIGINT) == self._handle:
            self._error = error
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def ends(self) -> bool:
        """Whether the run ends, now that all is saved: not where SIGTERM has another owner."""
        before = self._before(signal.SIGTERM) if self._is_to_end else None
        if not callable(before):
            return True
        self.pending = self._is_to_end = False
        before(signal.SIGTERM, None)
        return isinstance(getattr(before, "__self__", None), InterruptGuard)

    def restore(self) -> None:
        """Gives both back to whoever had them; a SIGTERM that was answered then ends us."""
        if self.stays:
            return
        for number in self._previous if self._installed else ():
            # Another run may have taken it over meanwhile, which keeps it.
            is_ours = signal.getsignal(number) == self._handle
            if is_ours and threading.current_thread() is threading.main_thread():
                signal.signal(number, self._before(number))
        self._installed = False
        is_to_end, self.pending, self._is_to_end = self._is_to_end, False, False
        if is_to_end and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            sys.stdout.flush()
            sys.stderr.flush()
            signal.raise_signal(signal.SIGTERM)

    def let_go(self) -> None:
        """Gives both back, where the end of a session has not."""
        self.stays = False
        self.restore()

    def _before(self, number: int) -> signal._HANDLER:
        """Returns who had a signal before, runs that are over meanwhile left out."""
        previous = self._previous.get(number)
        owner = getattr(previous, "__self__", None)
        if isinstance(owner, InterruptGuard) and not owner._installed:
            return owner._before(number)
        # None stands for a handler that is not Python's.
        return signal.default_int_handler if previous is None else previous

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_own = os.getpid() == self._process
        if is_own and self._error is not None:
            error, self._error = self._error, None
            raise error
        if number == signal.SIGTERM and not is_own:
            # The processes that load data have this handler, too, and are ended by it.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.pending and number == signal.SIGINT:
            raise KeyboardInterrupt
        was_pending, self.pending = self.pending, True
        self._is_to_end |= number == signal.SIGTERM
        if is_own and not was_pending:
            # One answer is enough, although the processes that load data hear Ctrl-C as well.
            self._on_first()
            if not _is_in_our_code(frame) and self._stops_at_once():
                raise KeyboardInterrupt


def _is_in_our_code(frame: FrameType | None) -> bool:
    """Whether a call of ours is under way, which is not to be broken off."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
            return True
        frame = frame.f_back
    return False
