"""Locks that are files: one process at a time makes, replaces or evicts a dataset."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def alone_at(path: Path, *, wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Holds a lock until the end of the block, or until this process has ended in whatever way.

    Args:
        path: The lock's file, made where it is not there; it stays.
        wait: Called again and again while another process holds it; by default nobody waits.

    Yields:
        Whether it is held.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        while not (is_held := _taken(descriptor)) and wait is not None:
            wait()
        try:
            yield is_held
        finally:
            # A process forked meanwhile has the descriptor too, and would hold it on.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
