"""Reads ahead in parallel: what a mounted Drive needs is many ranges at once, not large blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.workers import Crew
from colabkit.errors import ArchiveCorruptError, ColabKitError

CHUNK_BYTES = 4 << 20
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
class Stretch:
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
        """Returns the next range to read; long stretches are cut where the archive's chunks end."""
        begin = self.requested
        if self.end - self.begin <= whole_up_to:
            return begin, self.end
        return begin, min(self.end, (begin // CHUNK_BYTES + 1) * CHUNK_BYTES)


class ReadAhead:
    """Feeds stretches of a source to unpackers.

    Args:
        source: What to read.
        stretches: (begin, end) in the order in which they should be worked on.
        crew: Whose threads read and take.
        retries: Whether an outage waits for ``resume`` instead of failing.
    """

    def __init__(
        self, source: Source, stretches: Sequence[tuple[int, int]], crew: Crew, *, retries: bool
    ) -> None:
        self.bytes_read = self.bytes_used = 0
        self.outage: OSError | None = None
        self._source = source
        self._crew = crew
        self._retries = retries
        self._waiting = (Stretch(b, e, i) for i, (b, e) in enumerate(stretches))
        self._untaken: list[Stretch] = []
        self._open: list[Stretch] = []
        self._room = crew.condition()
        self._arrived = crew.condition()
        self._held_bytes = 0
        self._exhausted = False
        self._pace = Pace()
        self._readers = self._readers_max = 0
        self._measured_from: tuple[float, int] | None = None
        with crew.lock:
            self._refill()

    def start(self, *, total_bytes: int) -> None:
        """Starts the readers, no more than there are chunks."""
        self._readers_max = min(_READERS_MAX, max(1, -(-total_bytes // CHUNK_BYTES) + 1))
        self._start_readers()

    def take(self) -> Stretch | None:
        """Returns the next stretch to unpack, None when all are taken."""
        with self._crew.lock:
            self._refill()
            if not self._untaken:
                return None
            stretch = self._untaken.pop(0)
            stretch.taken = True
            self._refill()
            self._room.notify_all()
            return stretch

    def chunks(self, stretch: Stretch) -> Iterator[bytes]:
        """Yields a stretch's bytes in order; each chunk's room is given back at the next."""
        while stretch.consumed < stretch.end:
            with self._crew.lock:
                self._crew.wait_for(self._arrived, lambda: stretch.consumed in stretch.ready)
                data = stretch.ready.pop(stretch.consumed)
            yield data
            with self._crew.lock:
                stretch.consumed += len(data)
                self.bytes_used += len(data)
                self._held_bytes -= len(data)
                self._room.notify_all()

    def passed(self, nbytes: int) -> None:
        """Counts bytes of the archive that were read and used by others."""
        with self._crew.lock:
            self.bytes_read += nbytes
            self.bytes_used += nbytes

    def hurry(self) -> None:
        """Lets all readers begin where the first ones have brought nothing for a while."""
        with self._crew.lock:
            if not self.bytes_read and self._readers_max:
                self._pace = replace(self._pace, readers=_READERS_MAX)
                self._start_readers()
                self._room.notify_all()

    def resume(self) -> None:
        """Lets the readers go on after an outage."""
        with self._crew.lock:
            self.outage = None
            self._measured_from = None
            self._room.notify_all()

    def _start_readers(self) -> None:
        """Starts those that the pace asks for and that are not there yet."""
        for number in range(self._readers, min(self._pace.readers, self._readers_max)):
            self._readers += 1
            self._crew.start(f"read-{number}", partial(self._read, number), awaited=False)

    def _refill(self) -> None:
        while len(self._untaken) < _WINDOW and not self._exhausted:
            stretch = next(self._waiting, None)
            if stretch is None:
                self._exhausted = True
                break
            self._untaken.append(stretch)
            self._open.append(stretch)

    def _read(self, number: int) -> None:
        while True:
            with self._crew.lock:
                while (chosen := self._choose(number)) is None:
                    if self._exhausted and not self._open:
                        return
                    self._crew.wait(self._room)
                stretch, begin, end = chosen
            data = self._fetch(begin, end)
            with self._crew.lock:
                stretch.ready[begin] = data
                self.bytes_read += len(data)
                self._adapt()
                self._arrived.notify_all()

    def _choose(self, number: int) -> tuple[Stretch, int, int] | None:
        """Picks the chunk that will be needed first, within the memory there is."""
        if number >= self._pace.readers or not self._open or self.outage is not None:
            return None
        stretch = min(self._open, key=_urgency)
        begin, end = stretch.next_chunk(CHUNK_BYTES + (CHUNK_BYTES >> 1))
        starved = stretch.taken and stretch.requested == stretch.consumed
        if self._held_bytes + end - begin > _BUDGET_BYTES and not starved:
            # The unpackers are the brake now: what is measured would not be the readers' rate.
            self._measured_from = None
            return None
        self._held_bytes += end - begin
        stretch.requested = end
        if end == stretch.end:
            self._open.remove(stretch)
        return stretch, begin, end

    def _fetch(self, begin: int, end: int) -> bytes:
        while True:
            try:
                data = self._source.read(begin, end - begin)
            except OSError as error:
                if not self._retries or isinstance(error, ColabKitError):
                    raise
                self._sit_out(error)
                continue
            if len(data) != end - begin:
                message = f"{self._source.name} ends at byte {begin + len(data):,}, before {end:,}."
                raise ArchiveCorruptError(message, hint="Upload or download it again.")
            return data

    def _sit_out(self, error: OSError) -> None:
        """Waits until the owner says that the source is back."""
        with self._crew.lock:
            if self.outage is None:
                self.outage = error
            self._crew.changed.notify_all()
            self._crew.wait_for(self._room, lambda: self.outage is None)

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


def _urgency(stretch: Stretch) -> tuple[int, int]:
    ahead = (stretch.requested - stretch.consumed) // CHUNK_BYTES
    return ahead + (0 if stretch.taken else 2), stretch.order
