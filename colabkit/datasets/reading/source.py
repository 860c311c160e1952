"""Where an archive's bytes come from: a local path, a mounted Drive, or anything fsspec opens."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any, Protocol

from colabkit.datasets.reading.web import (
    NOTHING,
    SIGN_IN_HINT,
    Access,
    as_os_error,
    is_web,
    located,
)
from colabkit.errors import ArgumentError, ColabKitError, StorageError
from colabkit.storage import is_slow

_VALIDATORS = ("ETag", "etag", "Last-Modified", "LastModified", "md5Hash", "mtime", "updated")


def stamp_of(path: str, access: Access = NOTHING) -> str:
    """Returns the stamp of a path or URL, "" where a server tells nothing to go by.

    Raises:
        MissingPackageError: The URL needs a package that is not installed.
        OSError: It cannot be looked at.
    """
    if "://" not in path:
        status = Path(path).stat()
        stamp = f"{status.st_size}:{status.st_mtime_ns}"
        # cp -p and rsync set the time of change back, and nothing that of the inode; a mount may
        # give inodes anew in each session.
        return stamp if is_slow(path) else f"{stamp}:{status.st_ino}:{status.st_ctime_ns}"
    place = located(path, access)
    try:
        facts = place.files.info(place.inside)
    except Exception as error:
        raise as_os_error(error, path) from error
    told = [f"{name}={facts[name]}" for name in _VALIDATORS if facts.get(name)]
    return f"{facts.get('size')}:{','.join(told)}" if told else ""


class Source(Protocol):
    """Bytes with a size that several threads may read at once."""

    name: str
    """What the user passed."""

    nbytes: int
    """Size when it was opened, in bytes."""

    starts: tuple[int, ...]
    """Where each part of it begins, (0,) where it is in one."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes asked for; fewer only at the end."""
        ...

    def close(self) -> None:
        """Gives descriptors back."""
        ...


def open_source(path_or_url: str | os.PathLike[str], access: Access = NOTHING) -> Source:
    """Opens an archive for ranged reads.

    Args:
        path_or_url: A path, or a URL that fsspec understands (https, gs, s3, hf, memory).
        access: How to ask for what is behind a URL.

    Raises:
        StorageError: It is not there, or does not tell its size.
        ArgumentError: It is a folder or a device.
        MissingPackageError: The URL's kind needs a package that is not installed.
    """
    name = os.fspath(path_or_url)
    if "://" in name:
        return FsspecSource(name, access)
    return FileSource(name)


class _Place(threading.local):
    """What one thread holds: its descriptor, and what it read before a read broke."""

    descriptor: int | None = None
    partial_offset: int = -1
    partial: bytes = b""


class FileSource:
    """A file on a disk or a mount; each thread reads through its own descriptor.

    Attributes:
        keeps_open: Whether a thread keeps its descriptor from one read to the next.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.starts: tuple[int, ...] = (0,)
        self.keeps_open = True
        self._path = Path(name).absolute()
        self._here = _Place()
        self._lock = threading.Lock()
        self._descriptors: set[int] = set()
        try:
            status = self._path.stat()
        except OSError as error:
            message = f"Archive {name} cannot be opened ({error.strerror})."
            raise StorageError(
                message, path=name, operation="open", hint="Check the path and the mount."
            ) from error
        if not stat.S_ISREG(status.st_mode):
            message = f"{name} is not a file."
            raise ArgumentError(message, argument="source", hint="Pass the archive itself.")
        self.nbytes = status.st_size

    @property
    def is_near(self) -> bool:
        """Whether it lies on a disk of this machine, which other processes may read as well."""
        return self.keeps_open and not is_slow(self._path)

    def descriptor(self) -> int:
        """Returns this thread's descriptor, open until ``close``."""
        if self._here.descriptor is None:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            with self._lock:
                self._descriptors.add(descriptor)
            self._here.descriptor = descriptor
            if os.fstat(descriptor).st_size != self.nbytes:
                message = f"{self.name} changed while it was read."
                raise StorageError(
                    message, path=self.name, operation="read", hint="Run the cell again."
                )
        return self._here.descriptor

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns a range; after an error, the same call goes on at the byte where it broke."""
        here = self._here
        parts = [here.partial] if here.partial_offset == offset else []
        here.partial_offset, here.partial = -1, b""
        done = sum(map(len, parts))
        try:
            descriptor = self.descriptor()
            while done < nbytes:
                part = os.pread(descriptor, nbytes - done, offset + done)
                if not part:
                    break
                parts.append(part)
                done += len(part)
        except OSError:
            here.partial_offset, here.partial = offset, b"".join(parts)
            self._drop()
            raise
        if not self.keeps_open:
            self._drop()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Closes every thread's descriptor; no thread may be reading."""
        with self._lock:
            for descriptor in self._descriptors:
                _close(descriptor)
            self._descriptors.clear()
        self._here = _Place()

    def _drop(self) -> None:
        """Forgets a descriptor, which a lost mount makes useless for ever."""
        descriptor, self._here.descriptor = self._here.descriptor, None
        if descriptor is not None:
            with self._lock:
                self._descriptors.discard(descriptor)
            _close(descriptor)


def _close(descriptor: int) -> None:
    # On a mount that died even this fails; the descriptor is gone all the same.
    with contextlib.suppress(OSError):
        os.close(descriptor)


class FsspecSource:
    """A file behind a URL, read in ranges."""

    def __init__(self, name: str, access: Access = NOTHING) -> None:
        self.name = name
        self.starts: tuple[int, ...] = (0,)
        try:
            self._place = located(name, access)
            size = self._place.files.info(self._place.inside).get("size")
        except ColabKitError:
            raise
        except Exception as error:  # noqa: BLE001 - each file system has its own
            reason = as_os_error(error, name)
            words = reason.strerror or str(reason) or type(error).__name__
            message = f"{name} cannot be opened ({words})."
            hint = "Open it in a browser to check."
            if reason.errno == errno.EACCES:
                hint = SIGN_IN_HINT
            raise StorageError(message, path=name, operation="open", hint=hint) from reason
        # Some programs answer a question for the headers alone as if there was nothing more.
        if size is None or (not size and is_web(name)):
            message = f"The server of {name} does not tell its size."
            raise StorageError(
                message, path=name, operation="open", hint="Download it first, then pass the path."
            )
        self.nbytes = int(size)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns a range through one request."""
        end = min(offset + nbytes, self.nbytes)
        if end <= offset:
            return b""
        data = self._fetch(offset, end)
        if len(data) > end - offset:
            message = f"The server of {self.name} sends the whole file instead of a part."
            raise StorageError(
                message,
                path=self.name,
                operation="read",
                hint="Download it first, then pass the path.",
            )
        return data

    def close(self) -> None:
        """Holds no descriptor of its own."""

    def _fetch(self, offset: int, end: int) -> bytes:
        place = self._place
        try:
            data: Any = place.files.cat_file(place.inside, start=offset, end=end)
        except Exception as error:
            raise as_os_error(error, self.name) from error
        return bytes(data)
