"""Sources made of others: as a file for other packages, with a checksum, joined from parts."""

from __future__ import annotations

import bisect
import io
import itertools
import threading
from collections.abc import Callable, Sequence

from colabkit.datasets.reading.read_ahead import CHUNK_BYTES
from colabkit.datasets.reading.source import FileSource, Source
from colabkit.datasets.reading.workers import WorkerGroup
from colabkit.errors import ColabKitError

_KEPT_BYTES_MAX = 256 << 20
_READ_BYTES = 4 << 20
# Each thread that reads has a descriptor for each part.
_KEPT_OPEN_MAX = 16


class SourceFile(io.RawIOBase):
    """Reads a source like a file; sits out an outage where the group's owner handles it."""

    def __init__(
        self, source: Source, workers: WorkerGroup | None = None, *, retries: bool = False
    ) -> None:
        self.bytes_read = 0
        self.outage: OSError | None = None
        self._source = source
        self._workers = workers or WorkerGroup()
        self._retries = retries
        self._back = self._workers.condition()
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
        self._workers.check()
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
        with self._workers.lock:
            self.outage = None
            self._back.notify_all()

    def _read(self, nbytes: int) -> bytes:
        while True:
            try:
                return self._source.read(self._place, nbytes)
            except OSError as error:
                if not self._retries or isinstance(error, ColabKitError):
                    raise
                with self._workers.lock:
                    self.outage = error
                    self._workers.changed.notify_all()
                    self._workers.wait_for(self._back, lambda: self.outage is None)


class HashedSource:
    """A source that hashes what is read through it; nothing is read twice that fits in memory.

    Args:
        source: The archive.
        retry: Called when reading the rest fails; returns to try again, raises to give up.
        kept_bytes_max: How much of what came before its turn is kept.
        algorithm: "sha256" or "md5".
    """

    def __init__(
        self,
        source: Source,
        *,
        retry: Callable[[OSError], None],
        kept_bytes_max: int = _KEPT_BYTES_MAX,
        algorithm: str = "sha256",
    ) -> None:
        import hashlib  # with OpenSSL; most archives are compared with no hash

        self._source = source
        self._retry = retry
        self._kept_bytes_max = kept_bytes_max
        self._guard = threading.Lock()
        self._digest = hashlib.new(algorithm, usedforsecurity=False)
        self._mark = "" if algorithm == "sha256" else f"{algorithm}:"
        self._hashed = 0
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self.name = source.name
        self.nbytes = source.nbytes
        self.starts = source.starts

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes asked for, and hashes them when it is their turn."""
        data = self._source.read(offset, nbytes)
        with self._guard:
            end = offset + len(data)
            if end > self._hashed and len(self._kept.get(offset, b"")) < len(data):
                self._keep(offset, data)
                self._advance()
        return data

    def close(self) -> None:
        """Closes the source."""
        self._source.close()

    def checksum(self) -> str:
        """Reads what nobody read, and returns the hash of the whole archive in hex.

        That of another algorithm has its name before it.
        """
        while self._hashed < self.nbytes:
            begin = self._hashed
            self._read_again(begin, self._gap_end(begin) - begin)
            if self._hashed == begin:
                break
        return self._mark + self._digest.hexdigest()

    def _gap_end(self, begin: int) -> int:
        nexts = [offset for offset in self._kept if offset > begin]
        return min([begin + _READ_BYTES, self.nbytes, *nexts])

    def _read_again(self, offset: int, nbytes: int) -> None:
        while True:
            try:
                self.read(offset, nbytes)
            except OSError as error:
                self._retry(error)
            else:
                return

    def _keep(self, offset: int, data: bytes) -> None:
        if offset > self._hashed and self._kept_bytes + len(data) > self._kept_bytes_max:
            return
        self._kept_bytes += len(data) - len(self._kept.get(offset, b""))
        self._kept[offset] = data

    def _advance(self) -> None:
        while ready := sorted(offset for offset in self._kept if offset <= self._hashed):
            for offset in ready:
                data = self._kept.pop(offset)
                self._kept_bytes -= len(data)
                fresh = memoryview(data)[self._hashed - offset :]
                self._digest.update(fresh)
                self._hashed += len(fresh)


class JoinedSource:
    """Several sources, read as if each followed the one before.

    Args:
        parts: The sources, in order; they are closed with this one.
        name: What the archive would be called whole.

    Attributes:
        starts: Where each part begins, in bytes.
    """

    def __init__(self, parts: Sequence[Source], name: str) -> None:
        self._parts = parts
        *starts, self.nbytes = itertools.accumulate((part.nbytes for part in parts), initial=0)
        self.starts = tuple(starts)
        self.name = name
        if len(parts) > _KEPT_OPEN_MAX:
            for part in parts:
                if isinstance(part, FileSource):
                    part.keeps_open = False

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes asked for, from as many parts as they lie in."""
        pieces: list[bytes] = []
        number = max(0, bisect.bisect_right(self.starts, offset) - 1)
        for part, start in zip(self._parts[number:], self.starts[number:], strict=True):
            if nbytes <= 0:
                break
            inside = min(nbytes, start + part.nbytes - offset)
            if inside <= 0:
                continue
            piece = part.read(offset - start, inside)
            pieces.append(piece)
            offset += len(piece)
            nbytes -= len(piece)
            if len(piece) < inside:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Closes every part."""
        for part in self._parts:
            part.close()
