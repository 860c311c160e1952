"""Ctrl-C and the notebook's stop button, answered at the next step boundary."""

from __future__ import annotations

import os
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
        self._process = 0

    def install(self) -> None:
        """Takes SIGINT over; only the main thread can, and only where it is not ignored."""
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as nohup wants it
        if threading.current_thread() is threading.main_thread() and not is_ignored:
            self._previous, self._process = signal.getsignal(signal.SIGINT), os.getpid()
            self._installed = True
            signal.signal(signal.SIGINT, self._handle)

    def restore(self) -> None:
        """Gives SIGINT back to whoever had it."""
        # Another run may have taken it over meanwhile, which keeps it.
        is_ours = self._installed and signal.getsignal(signal.SIGINT) == self._handle
        if is_ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before())
        self._installed = self.pending = False

    def _before(self) -> signal._HANDLER:
        """Returns who had SIGINT before, runs that are over meanwhile left out."""
        owner = getattr(self._previous, "__self__", None)
        if isinstance(owner, InterruptGuard) and not owner._installed:
            return owner._before()
        # None stands for a handler that is not Python's.
        return signal.default_int_handler if self._previous is None else self._previous

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True
        if os.getpid() == self._process:
            # The processes that load data have this handler, too: one answer is enough.
            self._on_first()
