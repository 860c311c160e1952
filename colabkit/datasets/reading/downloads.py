"""Web servers that give a file only as a whole: it is downloaded once and read from the disk."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retry, open_retried
from colabkit.datasets.reading.source import FileSource, Source
from colabkit.datasets.reading.web import NOTHING, Access, as_os_error, gives_parts, is_web, located
from colabkit.errors import DiskFullError, StorageError
from colabkit.notebook import bytes_words
from colabkit.storage import FULL

_PIECE_BYTES = 1 << 20

if TYPE_CHECKING:
    import tempfile


class Downloads:
    """Files of web servers, downloaded where they cannot be read in parts.

    Args:
        watch: Is told every byte.
        retry: Called when a server does not answer.
        access: How to ask for them.
    """

    def __init__(self, *, watch: Watch, retry: Retry, access: Access = NOTHING) -> None:
        self._watch = watch
        self._retry = retry
        self._access = access
        self._guard = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._paths: dict[str, Path] = {}
        self._bytes_to_come = 0

    def opened(self, path: str) -> Source:
        """Opens a path or URL so that it can be read in parts."""
        if not is_web(path):
            return open_retried(path, self._retry, self._access)
        source = None
        try:
            source = open_retried(path, self._retry, self._access)
        except StorageError as error:
            # Without a cause: the server does not tell the size.
            if error.__cause__ is not None:
                raise
        found = self.source(path, source)
        return found or source or open_retried(path, self._retry, self._access)

    def source(self, url: str, opened: Source | None) -> Source | None:
        """Returns a source that can be read in parts, None when the URL's own can.

        Args:
            url: What to read.
            opened: The URL's own source, None where its server does not even tell its size.
        """
        with self._guard:
            lock = self._locks[url]
        with lock:
            if url not in self._paths:
                if opened is not None and self._gives_parts(url, opened):
                    return None
                path = self._new_path()
                self._download(url, path, None if opened is None else opened.nbytes)
                self._paths[url] = path
        source = FileSource(str(self._paths[url]))
        source.name = url  # errors name what the user passed
        return source

    def close(self) -> None:
        """Deletes what was downloaded."""
        with self._guard:
            self._paths.clear()
            folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def _new_path(self) -> Path:
        import tempfile  # hardly anything is downloaded whole

        with self._guard:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(
                    prefix="colabkit-download-", ignore_cleanup_errors=True
                )
            return Path(tempfile.mkdtemp(dir=self._folder.name)) / "whole"

    def _gives_parts(self, url: str, opened: Source) -> bool:
        while opened.nbytes > 1:
            try:
                return gives_parts(url, self._access)
            except OSError as error:
                self._retry(error)
        return True

    def _download(self, url: str, path: Path, nbytes: int | None) -> None:
        self._watch.begin_once(Phase.DOWNLOADING)
        with self._room_for(path, nbytes or 0):
            while True:
                done = 0
                try:
                    with _opened(url, self._access) as remote, path.open("wb") as local:
                        while piece := _piece(remote, url):
                            local.write(piece)
                            done += len(piece)
                            self._watch.add(nbytes=len(piece))
                        _check_end(remote, url, done, nbytes)
                except _RemoteError as error:
                    # The server gives no parts: it begins anew, and so does the count.
                    self._watch.add(nbytes=-done)
                    self._retry(error.reason)
                else:
                    return

    @contextlib.contextmanager
    def _room_for(self, path: Path, nbytes: int) -> Iterator[None]:
        import shutil

        with self._guard:
            free_bytes = shutil.disk_usage(path.parent).free
            if self._bytes_to_come + nbytes > free_bytes:
                raise _full(path.parent, free_bytes, self._bytes_to_come + nbytes)
            self._bytes_to_come += nbytes
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise _full(path.parent, 0, nbytes) from error
            raise
        finally:
            with self._guard:
                self._bytes_to_come -= nbytes


def _full(folder: Path, free_bytes: int, needed_bytes: int) -> DiskFullError:
    message = (
        f"The server gives its file only as a whole, and the disk of {folder} has no room for it:"
        f" {bytes_words(needed_bytes)} are to be downloaded, {bytes_words(free_bytes)} are free."
    )
    hint = "Set TMPDIR to a folder on a larger disk, then run the cell again."
    return DiskFullError(
        message, path=folder, needed_bytes=needed_bytes, free_bytes=free_bytes, hint=hint
    )


class _RemoteError(Exception):
    """The server failed, not the disk."""

    def __init__(self, reason: OSError) -> None:
        self.reason = reason
        super().__init__(str(reason))


@contextlib.contextmanager
def _opened(url: str, access: Access) -> Iterator[Any]:
    try:
        place = located(url, access)
        opened = place.files.open(place.inside, "rb", block_size=0)
    except Exception as error:
        raise _RemoteError(as_os_error(error, url)) from error
    with contextlib.closing(opened):
        yield opened


def _check_end(remote: Any, url: str, done: int, nbytes: int | None) -> None:
    """Raises where a body that ends with the connection is shorter than the server told before."""
    tells_end = any(name in remote.r.headers for name in ("Content-Length", "Transfer-Encoding"))
    if nbytes is not None and done < nbytes and not tells_end:
        message = f"{url} ended after {done:,} of {nbytes:,} bytes"
        raise _RemoteError(ConnectionError(message))


def _piece(remote: Any, url: str) -> bytes:
    try:
        return bytes(remote.read(_PIECE_BYTES))
    except Exception as error:
        raise _RemoteError(as_os_error(error, url)) from error
