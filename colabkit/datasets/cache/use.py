"""Which datasets running processes use: each holds a shared lock on the published folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_logger = logging.getLogger(__name__)
_held: dict[tuple[int, int], int] = {}
_guard = threading.Lock()


def hold(folder: Path) -> bool:
    """Marks a folder as used until this process and those forked from it have ended.

    The lock is on the folder itself, so it follows a rename, and the system lets go of it
    when the process dies in whatever way.

    Returns:
        Whether the folder is there to be used: False while another process takes it away.
    """
    with _guard:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        key = _key(descriptor)
        try:
            if key not in _held:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                _held[key], descriptor = descriptor, -1
        except BlockingIOError:
            return False
        except OSError:
            _logger.debug("This file system has no locks for %s.", folder, exc_info=True)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if _is_at(folder, key):
            return True
        # It was taken away between the two calls.
        if (held := _held.pop(key, None)) is not None:
            os.close(held)
        return False


def let_go(folder: Path) -> None:
    """Takes this process's own mark off a folder."""
    with _guard, contextlib.suppress(FileNotFoundError):
        status = folder.stat()
        descriptor = _held.pop((status.st_dev, status.st_ino), None)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[bool]:
    """Yields whether no process uses a folder, and keeps it so until the end of the block."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _is_at(folder: Path, key: tuple[int, int]) -> bool:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == key


def _key(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
