"""Ctrl-C and the notebook's stop button, answered at the next step boundary."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType


class InterruptGuard:
    """Holds the first interrupt back until the loop is between two steps.

    A second interrupt is not held back: it stops at once, and the newest checkpoint stays.

    Args:
        on_first: Called when the first interrupt arrives, to tell the user.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.pending = False
        self._on_first = on_first
        self._previous: signal._HANDLER = None
        self._installed = False

    def install(self) -> None:
        """Takes SIGINT over; only the main thread can, and only where it is not ignored."""
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as nohup wants it
        if threading.current_thread() is threading.main_thread() and not is_ignored:
            self._previous = signal.signal(signal.SIGINT, self._handle)
            self._installed = True

    def restore(self) -> None:
        """Gives SIGINT back to whoever had it."""
        if self._installed:
            known = self._previous is not None  # None stands for a handler that is not Python's
            signal.signal(signal.SIGINT, self._previous if known else signal.default_int_handler)
            self._installed = False
        self.pending = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True
        self._on_first()
