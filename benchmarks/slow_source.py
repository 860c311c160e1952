"""Models of a mounted Drive: what a read costs, and what the link carries."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_KERNEL_BYTES = 128 << 10
_IN_FLIGHT = 2
_PREFETCHED = 4
_REQUEST_RATE, _LINK_RATE = 40e6, 120e6


@dataclass(frozen=True, slots=True)
class DriveModel:
    """How a mount fetches: ``chunk_bytes`` at a time, each after ``latency_s``.

    Without chunks every request of the kernel, 128 KiB with two in flight, goes to the server.
    """

    name: str
    latency_s: float
    chunk_bytes: int | None = None
    prefetch: bool = False


MODELS = (
    DriveModel("every read a 20 ms request", 0.02),
    DriveModel("1 MiB chunks at 100 ms", 0.1, 1 << 20),
    DriveModel("4 MiB chunks at 150 ms", 0.15, 4 << 20),
    DriveModel("4 MiB chunks at 150 ms, prefetched", 0.15, 4 << 20, prefetch=True),
)


class SlowSource:
    """A local file that is read as slowly as a model says: 40 MB/s a request, 120 MB/s in all."""

    def __init__(self, path: Path, model: DriveModel) -> None:
        self.name = str(path)
        self.nbytes = path.stat().st_size
        self.starts: tuple[int, ...] = (0,)
        self.bytes_fetched = 0
        self._data = path.read_bytes()
        self._model = model
        self._lock = threading.Lock()
        self._link_free_s = 0.0
        self._ready_s: dict[int, float] = {}
        self._last = threading.local()

    @property
    def floor_s(self) -> float:
        """What the link alone takes."""
        return self.nbytes / _LINK_RATE

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes when the model has brought them."""
        end = min(offset + nbytes, self.nbytes)
        if self._model.chunk_bytes is None:
            self._by_requests(max(0, end - offset))
        else:
            self._by_chunks(offset, end, self._model.chunk_bytes)
        return self._data[offset:end]

    def close(self) -> None:
        """Holds nothing."""

    def copy_s(self, nbytes: int) -> float:
        """Returns what reading so much in order takes, as a copying program does it."""
        began_s = time.monotonic()
        for offset in range(0, nbytes, 1 << 20):
            self.read(offset, 1 << 20)
        return time.monotonic() - began_s

    def _by_requests(self, nbytes: int) -> None:
        while nbytes > 0:
            size = min(nbytes, _KERNEL_BYTES * _IN_FLIGHT)
            _sleep_until(self._arrival_s([min(_KERNEL_BYTES, size)] * _IN_FLIGHT))
            nbytes -= size

    def _by_chunks(self, offset: int, end: int, chunk_bytes: int) -> None:
        for chunk in range(offset // chunk_bytes, -(-end // chunk_bytes)):
            ready_s = self._fetch(chunk, chunk_bytes)
            if self._model.prefetch and getattr(self._last, "chunk", None) in {chunk - 1, chunk}:
                for ahead in range(1, _PREFETCHED + 1):
                    self._fetch(chunk + ahead, chunk_bytes)
            self._last.chunk = chunk
            _sleep_until(ready_s)

    def _fetch(self, chunk: int, chunk_bytes: int) -> float:
        """Asks for a chunk unless it was asked for before; returns when it is there."""
        size = min(chunk_bytes, self.nbytes - chunk * chunk_bytes)
        with self._lock:
            if size <= 0 or chunk in self._ready_s:
                return self._ready_s.get(chunk, 0.0)
            self._ready_s[chunk] = float("inf")
        ready_s = self._arrival_s([size])
        with self._lock:
            self._ready_s[chunk] = ready_s
        return ready_s

    def _arrival_s(self, sizes: Sequence[int]) -> float:
        """Returns when requests that are sent together have been answered."""
        asked_s = time.monotonic() + self._model.latency_s
        with self._lock:
            self.bytes_fetched += sum(sizes)
            for size in sizes:
                began_s = max(asked_s, self._link_free_s)
                self._link_free_s = began_s + size / _LINK_RATE
            return max(self._link_free_s, asked_s + sizes[0] / _REQUEST_RATE)


def _sleep_until(moment_s: float) -> None:
    left_s = moment_s - time.monotonic()
    if left_s > 0:
        time.sleep(left_s)
