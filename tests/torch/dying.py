"""Processes that die at a chosen system call of a writer, or at a chosen moment."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.torch.killing import forked, reaped

_WATCHED = ("open", "write", "fsync", "replace", "truncate", "unlink", "mkdir")


class SystemCalls:
    """Counts the calls by which files change, and dies at one of them when asked.

    Args:
        deadly: Number of the call to die at, from 1; None only counts.
        after: Whether to die after the call instead of before it. A write before which
            the process dies has half of its bytes written.
    """

    def __init__(self, deadly: int | None, *, after: bool = False) -> None:
        self.count = 0
        self.deadly = deadly
        self._after = after
        self._owner = os.getpid()

    def wrapped(self, name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*given: Any, **named: Any) -> Any:
            if os.getpid() != self._owner or (name == "open" and not given[1] & os.O_CREAT):
                return original(*given, **named)
            self.count += 1
            if self.count != self.deadly:
                return original(*given, **named)
            if name == "write" and not self._after:
                original(given[0], given[1][: len(given[1]) // 2])
            elif self._after:
                original(*given, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        originals = {name: getattr(os, name) for name in _WATCHED}
        for name in _WATCHED:
            setattr(os, name, self.wrapped(name))
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(os, name, original)


def dies_after(work: Callable[[], None], *, seconds: float, report: Path) -> bool:
    """Runs ``work`` in a forked child and kills it; returns whether it was still alive."""
    child = forked(work, report=report)
    handle = os.pidfd_open(child)
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        waiting.poll(1000 * seconds)
        os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    status = reaped(child)
    assert os.WIFSIGNALED(status) or status == 0, report.read_text()
    return os.WIFSIGNALED(status)
