"""The primitive operations on a file system, in one place so that a test can record them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colabkit.storage.volume import Bytes

_WRITE_BYTES = 16 << 20


@cache
def _storing() -> Callable[[int, int, int, int], int] | None:
    """Returns Linux' call that has a part of a file written to the disk, None elsewhere."""
    import ctypes  # what is small is written without

    call = getattr(ctypes.CDLL(None), "sync_file_range", None) if os.name == "posix" else None
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call


_WITHOUT_WAITING = 2


def _begin_to_store(descriptor: int) -> None:
    """Has the disk begin with what is written: else it idles until ``fsync``."""
    if (store := _storing()) is not None:
        store(descriptor, 0, 0, _WITHOUT_WAITING)


class Files:
    """Operations on the real file system; each is one system call or a loop of one."""

    def create(self, path: Path) -> int:
        """Opens a new file for writing; an existing one is an error."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, descriptor: int, data: Bytes | memoryview) -> None:
        """Writes all of a buffer at the end of what was written."""
        view = data if isinstance(data, memoryview) else data.data
        while view:
            done = os.write(descriptor, view[:_WRITE_BYTES])
            view = view[done:]
            if done == _WRITE_BYTES:
                _begin_to_store(descriptor)

    def fsync(self, descriptor: int) -> None:
        """Waits until a file's content is durable."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file its final name."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Removes a name."""
        path.unlink()

    def truncate(self, path: Path) -> None:
        """Empties a file, so that a trash folder keeps no bytes of it."""
        os.truncate(path, 0)

    def fsync_folder(self, path: Path) -> None:
        """Waits until a folder's names are durable, where the file system can."""
        # Network and FUSE file systems may refuse; the manifest's hashes decide then. And what
        # has its name by now must not be taken for a failure, whose files are removed.
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Makes a folder and those above it."""
        path.mkdir(parents=True, exist_ok=True)


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a file under another name first: whoever looks sees the old one or all of the new.

    Args:
        path: The file, in a folder that is there.
        content: All that it is to hold.
        durable: Whether to wait until a crash of the machine takes nothing of it.

    Raises:
        OSError: It could not be written; the old one is as it was.
    """
    files = Files()
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        descriptor = files.create(temporary)
        try:
            files.write(descriptor, memoryview(content))
            if durable:
                files.fsync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise
    if durable:
        files.fsync_folder(path.parent)
