"""Tells which threads a call starts, whatever other threads start meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def thread_starts() -> Iterator[list[threading.Thread]]:
    """Yields a list of the threads that the calling thread starts.

    All that run in the process would show those of a save under way, too, or of a logger.
    """
    started: list[threading.Thread] = []
    threads: Any = threading.Thread
    caller, original = threading.get_ident(), threads.start

    def start(thread: threading.Thread) -> None:
        if threading.get_ident() == caller:
            started.append(thread)
        original(thread)

    threads.start = start
    try:
        yield started
    finally:
        # What a library has put over it meanwhile goes on calling it.
        if threads.start is start:
            threads.start = original
