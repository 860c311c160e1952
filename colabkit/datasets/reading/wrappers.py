"""The checksum of an archive, found out from the bytes that pass by while it is unpacked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from colabkit.datasets.reading.source import Source

_KEPT_BYTES_MAX = 256 << 20
_READ_BYTES = 4 << 20


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
