"""A source whose failures are waited out, read by read."""

from __future__ import annotations

from colabkit.datasets.reading.access import NOTHING, Access
from colabkit.datasets.reading.retrying import Retry
from colabkit.datasets.reading.source import Source, open_source
from colabkit.errors import StorageError


class RetriedSource:
    """A source each read of which is tried again until it gives its bytes.

    Args:
        source: The archive.
        retry: Called on a failure; returns to try again, raises to give up.
    """

    def __init__(self, source: Source, retry: Retry) -> None:
        self._source = source
        self._retry = retry
        self.name = source.name
        self.nbytes = source.nbytes
        self.starts = source.starts

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes asked for."""
        while True:
            try:
                return self._source.read(offset, nbytes)
            except OSError as error:
                self._retry(error)

    def close(self) -> None:
        """Closes the source."""
        self._source.close()


def open_retried(path: str, retry: Retry, access: Access = NOTHING) -> Source:
    """Opens a source, which fails while the mount is lost that it lies on.

    Raises:
        StorageError: It cannot be opened.
    """
    while True:
        try:
            return open_source(path, access)
        except StorageError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            try:
                retry(error.__cause__)
            except OSError as final:
                if final is error.__cause__:
                    raise error from final
                raise
