"""Reads ahead in parallel: what a mounted Drive needs is many ranges at once, not large blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.workers import WorkerGroup
from colabkit.errors import ArchiveCorruptError, ColabKitError

CHUNK_BYTES = 4 << 20
# What is no larger is unpacked before threads would have started.
IN_TURN_BYTES = 1 << 20
_READERS_MIN, _READERS_MAX = 4, 16
_BUDGET_BYTES = 128 << 20
_WINDOW = 32
_GAIN = 1.1


@dataclass(frozen=True, slots=True)
class Pace:
    """How many readers work, and which way the number moves."""

    readers: int = 8
    step: int = 4
    rate_bytes_s: float = 0.0

    def after(self, rate_bytes_s: float) -> Pace:
        """Returns the next pace: on while more readers bring more, back when they bring less."""
        if rate_bytes_s > self.rate_bytes_s * _GAIN:
            step = self.step
        elif rate_bytes_s * _GAIN < self.rate_bytes_s:
            step = -self.step
        else:
            return replace(self, rate_bytes_s=rate_bytes_s)
        readers = min(max(self.readers + step, _READERS_MIN), _READERS_MAX)
        return Pace(readers, step, rate_bytes_s)


@dataclass(slots=True, eq=False)
class ByteRange:
    """A range of the archive that one unpacker takes, in order, chunk by chunk."""

    begin: int
    end: int
    order: int
    requested: int = 0
    taken: bool = False
    ready: dict[int, bytes] = field(default_factory=dict)
    consumed: int = 0

    def __post_init__(self) -> None:
        self.requested = self.consumed = self.begin

    def next_chunk(self, whole_up_to: int) -> tuple[int, int]:
        """Returns the next range to read; long ones are cut where the archive's chunks end."""
        begin = self.requested
        if self.end - self.begin <= whole_up_to:
            return begin, self.end
        return begin, min(self.end, (begin // CHUNK_BYTES + 1) * CHUNK_BYTES)


class Ranges(Protocol):
    """Ranges of a source's bytes, as unpackers take them."""

    def take(self) -> ByteRange | None:
        """Returns the next range to unpack, None when all are taken."""
        ...

    def chunks(self, byte_range: ByteRange) -> Iterator[bytes]:
        """Yields a range's bytes in order."""
        ...

    def passed(self, nbytes: int) -> None:
        """Counts bytes of the archive that were read and used by others."""
        ...


class ReadInTurn:
    """Reads each range where it is taken: of a small archive sooner than a thread is started.

    Args:
        source: What to read; it sits out outages by itself.
        byte_ranges: (begin, end) in the order in which they should be worked on.
    """

    def __init__(self, source: Source, byte_ranges: Sequence[tuple[int, int]]) -> None:
        self.bytes_read = self.bytes_used = 0
        self.outage: OSError | None = None
        self._source = source
        self._waiting = (ByteRange(b, e, i) for i, (b, e) in enumerate(byte_ranges))

    def take(self) -> ByteRange | None:
        """Returns the next range to unpack, None when all are taken."""
        return next(self._waiting, None)

    def chunks(self, byte_range: ByteRange) -> Iterator[bytes]:
        """Yields a range's bytes in order."""
        for begin in range(byte_range.begin, byte_range.end, CHUNK_BYTES):
            data = read_whole(self._source, begin, min(begin + CHUNK_BYTES, byte_range.end))
            self.passed(len(data))
            yield data

    def passed(self, nbytes: int) -> None:
        """Counts bytes of the archive that were read and used."""
        self.bytes_read += nbytes
        self.bytes_used += nbytes

    def hurry(self) -> None:
        """Has no other reader."""

    def resume(self) -> None:
        """Has not stopped."""


class ReadAhead:
    """Feeds ranges of a source's bytes to unpackers.

    Args:
        source: What to read.
        byte_ranges: (begin, end) in the order in which they should be worked on.
        workers: Whose threads read and take.
        retries: Whether an outage waits for ``resume`` instead of failing.
    """

    def __init__(
        self,
        source: Source,
        byte_ranges: Sequence[tuple[int, int]],
        workers: WorkerGroup,
        *,
        retries: bool,
    ) -> None:
        self.bytes_read = self.bytes_used = 0
        self.outage: OSError | None = None
        self._source = source
        self._workers = workers
        self._retries = retries
        self._waiting = (ByteRange(b, e, i) for i, (b, e) in enumerate(byte_ranges))
        self._untaken: list[ByteRange] = []
        self._open: list[ByteRange] = []
        self._room = workers.condition()
        self._arrived = workers.condition()
        self._held_bytes = 0
        self._exhausted = False
        self._pace = Pace()
        self._readers = self._readers_max = 0
        self._measured_from: tuple[float, int] | None = None
        with workers.lock:
            self._refill()

    def start(self, *, total_bytes: int) -> None:
        """Starts the readers, no more than there are chunks."""
        self._readers_max = min(_READERS_MAX, max(1, -(-total_bytes // CHUNK_BYTES) + 1))
        self._start_readers()

    def take(self) -> ByteRange | None:
        """Returns the next range to unpack, None when all are taken."""
        with self._workers.lock:
            self._refill()
            if not self._untaken:
                return None
            byte_range = self._untaken.pop(0)
            byte_range.taken = True
            self._refill()
            self._room.notify_all()
            return byte_range

    def chunks(self, byte_range: ByteRange) -> Iterator[bytes]:
        """Yields a range's bytes in order; each chunk's room is given back at the next."""
        while byte_range.consumed < byte_range.end:
            with self._workers.lock:
                self._workers.wait_for(
                    self._arrived, lambda: byte_range.consumed in byte_range.ready
                )
                data = byte_range.ready.pop(byte_range.consumed)
            yield data
            with self._workers.lock:
                byte_range.consumed += len(data)
                self.bytes_used += len(data)
                self._held_bytes -= len(data)
                self._room.notify_all()

    def passed(self, nbytes: int) -> None:
        """Counts bytes of the archive that were read and used by others."""
        with self._workers.lock:
            self.bytes_read += nbytes
            self.bytes_used += nbytes

    def hurry(self) -> None:
        """Lets all readers begin where the first ones have brought nothing for a while."""
        with self._workers.lock:
            if not self.bytes_read and self._readers_max:
                self._pace = replace(self._pace, readers=_READERS_MAX)
                self._start_readers()
                self._room.notify_all()

    def resume(self) -> None:
        """Lets the readers go on after an outage."""
        with self._workers.lock:
            self.outage = None
            self._measured_from = None
            self._room.notify_all()

    def _start_readers(self) -> None:
        """Starts those that the pace asks for and that are not there yet."""
        for number in range(self._readers, min(self._pace.readers, self._readers_max)):
            self._readers += 1
            self._workers.start(f"read-{number}", partial(self._read, number), awaited=False)

    def _refill(self) -> None:
        while len(self._untaken) < _WINDOW and not self._exhausted:
            byte_range = next(self._waiting, None)
            if byte_range is None:
                self._exhausted = True
                break
            self._untaken.append(byte_range)
            self._open.append(byte_range)

    def _read(self, number: int) -> None:
        while True:
            with self._workers.lock:
                while (chosen := self._choose(number)) is None:
                    if self._exhausted and not self._open:
                        return
                    self._workers.wait(self._room)
                byte_range, begin, end = chosen
            data = self._fetch(begin, end)
            with self._workers.lock:
                byte_range.ready[begin] = data
                self.bytes_read += len(data)
                self._adapt()
                self._arrived.notify_all()

    def _choose(self, number: int) -> tuple[ByteRange, int, int] | None:
        """Picks the chunk that will be needed first, within the memory there is."""
        if number >= self._pace.readers or not self._open or self.outage is not None:
            return None
        byte_range = min(self._open, key=_urgency)
        begin, end = byte_range.next_chunk(CHUNK_BYTES + (CHUNK_BYTES >> 1))
        starved = byte_range.taken and byte_range.requested == byte_range.consumed
        if self._held_bytes + end - begin > _BUDGET_BYTES and not starved:
            # The unpackers are the brake now: what is measured would not be the readers' rate.
            self._measured_from = None
            return None
        self._held_bytes += end - begin
        byte_range.requested = end
        if end == byte_range.end:
            self._open.remove(byte_range)
        return byte_range, begin, end

    def _fetch(self, begin: int, end: int) -> bytes:
        while True:
            try:
                return read_whole(self._source, begin, end)
            except OSError as error:
                if not self._retries or isinstance(error, ColabKitError):
                    raise
                self._sit_out(error)

    def _sit_out(self, error: OSError) -> None:
        """Waits until the owner says that the source is back."""
        with self._workers.lock:
            if self.outage is None:
                self.outage = error
            self._workers.changed.notify_all()
            self._workers.wait_for(self._room, lambda: self.outage is None)

    def _adapt(self) -> None:
        now_s = time.monotonic()
        if self._measured_from is None:
            self._measured_from = now_s, self.bytes_read
            return
        since_s, before = self._measured_from
        if self.bytes_read - before >= self._pace.readers * CHUNK_BYTES and now_s > since_s:
            self._pace = self._pace.after((self.bytes_read - before) / (now_s - since_s))
            self._measured_from = now_s, self.bytes_read
            self._start_readers()
            self._room.notify_all()


def read_whole(source: Source, begin: int, end: int) -> bytes:
    """Returns a range of a source's bytes.

    Raises:
        ArchiveCorruptError: It ends before.
    """
    data = source.read(begin, end - begin)
    if len(data) != end - begin:
        message = f"{source.name} ends at byte {begin + len(data):,}, before {end:,}."
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    return data


def _urgency(byte_range: ByteRange) -> tuple[int, int]:
    ahead = (byte_range.requested - byte_range.consumed) // CHUNK_BYTES
    return ahead + (0 if byte_range.taken else 2), byte_range.order
