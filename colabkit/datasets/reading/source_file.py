"""A source as the file that other packages want to read from."""

from __future__ import annotations

import io

from colabkit.datasets.reading.read_ahead import CHUNK_BYTES
from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.workers import Crew
from colabkit.errors import ColabKitError


class SourceFile(io.RawIOBase):
    """Reads a source like a file; sits out an outage where a crew's owner handles it."""

    def __init__(self, source: Source, crew: Crew | None = None, *, retries: bool = False) -> None:
        self.bytes_read = 0
        self.outage: OSError | None = None
        self._source = source
        self._crew = crew or Crew()
        self._retries = retries
        self._back = self._crew.condition()
        self._place = 0

    def buffered(self) -> io.BufferedReader:
        """Returns this with a buffer as large as a request should be."""
        return io.BufferedReader(self, CHUNK_BYTES)

    def readable(self) -> bool:
        """Says yes."""
        return True

    def seekable(self) -> bool:
        """Says yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes elsewhere."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._source.nbytes}
        place = start[whence] + offset
        if place < 0:
            # What damaged bytes make a parser ask for; a real file answers the same.
            message = f"negative seek value {place}"
            raise ValueError(message)
        self._place = place
        return place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Reads what fits."""
        self._crew.check()
        left = max(0, self._source.nbytes - self._place)
        data = self._read(min(len(buffer), left)) if left else b""
        buffer[: len(data)] = data
        self._place += len(data)
        self.bytes_read += len(data)
        return len(data)

    @property
    def bytes_used(self) -> int:
        """What was read is worked on at once."""
        return self.bytes_read

    def hurry(self) -> None:
        """Has one reader only."""

    def resume(self) -> None:
        """Goes on after an outage."""
        with self._crew.lock:
            self.outage = None
            self._back.notify_all()

    def _read(self, nbytes: int) -> bytes:
        while True:
            try:
                return self._source.read(self._place, nbytes)
            except OSError as error:
                if not self._retries or isinstance(error, ColabKitError):
                    raise
                with self._crew.lock:
                    self.outage = error
                    self._crew.changed.notify_all()
                    self._crew.wait_for(self._back, lambda: self.outage is None)
