"""Unpacks a zip: readers feed as many unpackers as there are cores, large members first."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, filterfalse
from pathlib import Path
from typing import TYPE_CHECKING

from colabkit.datasets.archives.codecs import Password
from colabkit.datasets.archives.members import FileTable, UnpackedTable, taken
from colabkit.datasets.archives.zip_contents import (
    data_begin,
    data_ranges,
    overlap,
    pieces,
    unpacked,
)
from colabkit.datasets.archives.zip_format import LOCAL_BYTES
from colabkit.datasets.archives.zip_members import ZipLayout
from colabkit.datasets.reading.progress import Counter
from colabkit.datasets.reading.read_ahead import CHUNK_BYTES, IN_TURN_BYTES, Ranges
from colabkit.datasets.reading.source import FileSource
from colabkit.datasets.reading.workers import WorkerGroup
from colabkit.datasets.writing.small_files import DEFLATE, STORED, Head, Item, crc32
from colabkit.datasets.writing.tree import Tree
from colabkit.datasets.writing.writer_process import WriterProcess
from colabkit.errors import ArchiveCorruptError

if TYPE_CHECKING:
    from colabkit.datasets.archives.zip_encryption import Decryption

_LARGE_PACKED_BYTES = 2 << 20
_LARGE_BYTES = 8 << 20
_SPAN_FILES = 2048
_SPAN_BYTES_MIN = 256 << 10
_SPAN_UNPACKED_BYTES = 64 << 20
_IN_TURN_UNPACKED_BYTES = 4 << 20
# A local header may carry more extra fields than the directory tells.
_EXTRA_BYTES_MAX = 65535
_HEAD_BYTES = LOCAL_BYTES + 2 * _EXTRA_BYTES_MAX
# Skipping less than this costs more than reading it.
_GAP_BYTES = 64 << 10
# A thousand members in step take as long as fifty, and threads gain nothing.
_ENCRYPTED_SPAN_BYTES = 32 << 20
_ENCRYPTED = 0x1
_BATCH_FILES = 32
_SIMPLE = frozenset({STORED, DEFLATE})


@dataclass(frozen=True, slots=True)
class Job:
    """What one unpacker takes: neighbouring small members, or one large one.

    ``first`` and ``last`` delimit places in the order of the archive.
    """

    begin: int
    end: int
    first: int
    last: int
    large: bool


class ZipUnpacker:
    """The unpacking side of one zip.

    Attributes:
        counter: What is done.
        unpackers: How many have work.
        total_bytes: How many bytes are to be read.
        is_small: Whether one thread has unpacked all before others would have started.
    """

    def __init__(
        self,
        files: FileTable,
        layout: ZipLayout,
        tree: Tree,
        done: Container[str],
        cores: int,
        password: Password = None,
        *,
        near: FileSource | None = None,
    ) -> None:
        self._decryption: Decryption | None = None
        if layout.encrypted:
            # Hardly any zip is encrypted.
            from colabkit.datasets.archives.zip_encryption import Decryption

            self._decryption = Decryption(layout.entries, password)
        self._files = files
        self._layout = layout
        self._tree = tree
        self._writing = threading.Lock()
        self.counter = Counter()
        offsets = taken(layout.entries.offsets, layout.rows)
        order = array("q", sorted(range(len(offsets)), key=offsets.__getitem__))
        if done != ():
            whole = [index for index, path in enumerate(files.paths) if path in done]
            order = array("q", filterfalse(set(whole).__contains__, order))
            self._date(whole)
            self.counter.files_done = len(whole)
            self.counter.bytes_written = sum(taken(files.nbytes, whole))
        self._order = order
        self._near = near
        packed_bytes = sum(taken(layout.entries.packed_bytes, layout.rows))
        is_short = packed_bytes <= IN_TURN_BYTES and sum(files.nbytes) <= _IN_TURN_UNPACKED_BYTES
        # One read takes as long as a part of it.
        share = CHUNK_BYTES if is_short else packed_bytes // (cores * 8)
        jobs = self._plan_jobs(share)
        self.is_small = is_short and len(jobs) <= 1 and self._decryption is None
        self.unpackers = min(cores, len(jobs))
        # One iterator for all threads; a list's gives each item to one of them.
        self._near_jobs = iter([job for job in jobs if near is not None and not job.large])
        self._jobs = [job for job in jobs if near is None or job.large]
        self.total_bytes = sum(job.end - job.begin for job in self._jobs)

    @property
    def byte_ranges(self) -> list[tuple[int, int]]:
        """What to read, in the order of the jobs."""
        return [(job.begin, job.end) for job in self._jobs]

    def work(self, ahead: Ranges, workers: WorkerGroup, process: WriterProcess) -> None:
        """Takes jobs until none is left; one thread's work."""
        while (byte_range := ahead.take()) is not None:
            job = self._jobs[byte_range.order]
            chunks = ahead.chunks(byte_range)
            if job.large:
                self._unpack_large(job, chunks, workers)
                for _ in chunks:
                    pass
            else:
                self._unpack_span(job, b"".join(chunks), workers, process)
        for job in self._near_jobs:
            workers.check()
            if self._near is not None and not self._unpack_near(job, workers, process):
                data = self._near.read(job.begin, job.end - job.begin)
                self._unpack_span(job, data, workers, process)
            ahead.passed(job.end - job.begin)

    def _date(self, chosen: Sequence[int]) -> None:
        """Gives files their times that a call before has written, and had no time left for that."""
        times = self._layout.entries.times(taken(self._layout.rows, chosen))
        for path, time_s in zip(self._files.paths.at(chosen), times, strict=True):
            self._tree.date(path, time_s)

    def manifest(self) -> UnpackedTable:
        """Returns every file with the size and CRC it was checked against."""
        return UnpackedTable.of(self._files)

    def _unpack_near(self, job: Job, workers: WorkerGroup, process: WriterProcess) -> bool:
        """Lets a process read small members by itself; False where it cannot, or is in doubt."""
        entries = self._layout.entries
        chosen = self._order[job.first : job.last]
        if not self._are_simple(chosen):
            return False
        rows = taken(self._layout.rows, chosen)
        items = self._items(chosen, self._places_in(job, chosen))
        facts = (taken(entries.flags, rows), taken(entries.packed_bytes, rows))
        heads: list[Head] = list(zip(*facts, strict=True))
        nbytes = process.put_from_archive(job.begin, job.end, items, heads)
        if nbytes is not None:
            self._count(workers, nbytes, len(items))
        return nbytes is not None

    def _are_simple(self, chosen: Iterable[int]) -> bool:
        """Whether another process can unpack these members."""
        return _SIMPLE.issuperset(taken(self._layout.methods, chosen))

    def _places_in(self, job: Job, chosen: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Yields where members begin in a job's data, and where those behind them do."""
        offsets, layout, begin = self._layout.entries.offsets, self._layout, job.begin
        for index in chosen:
            yield offsets[layout.rows[index]] - begin, layout.bounds[index] - begin

    def _items(self, chosen: Sequence[int], places: Iterable[tuple[int, int]]) -> list[Item]:
        """Returns small members with places in their data, as another process takes them."""
        entries, rows = self._layout.entries, taken(self._layout.rows, chosen)
        columns = (
            *(taken(self._layout.methods, chosen), taken(entries.nbytes, rows)),
            *(taken(entries.crcs, rows), taken(self._files.modes, chosen), entries.times(rows)),
        )
        paths = self._files.paths.at(chosen)
        return list(zip(paths, *zip(*places, strict=True), *columns, strict=True))

    def _unpack_span(
        self, job: Job, data: bytes, workers: WorkerGroup, process: WriterProcess
    ) -> None:
        entries = self._layout.entries
        chosen = self._order[job.first : job.last]
        rows = taken(self._layout.rows, chosen)
        paths = self._files.paths.at(chosen)
        begins, bounds = zip(*self._places_in(job, chosen), strict=True)
        ranges = data_ranges(data, begins, bounds, entries, rows, paths)
        if self._decryption is not None:
            packed = [memoryview(data)[begin:end] for begin, end in ranges]
            plain = self._decryption.small(packed, rows.tolist(), paths, workers.check)
            self._put_decrypted(chosen, plain, paths, workers)
            return
        items = self._items(chosen, ranges)
        nbytes = process.put(items, [data]) if self._are_simple(chosen) else None
        if nbytes is None:
            self._put(items, memoryview(data), workers)
        else:
            self._count(workers, nbytes, len(items))

    def _put_decrypted(
        self,
        chosen: Sequence[int],
        packed: Sequence[bytes | memoryview],
        paths: Sequence[str],
        workers: WorkerGroup,
    ) -> None:
        """Unpacks members that were encrypted."""
        times = self._layout.entries.times(taken(self._layout.rows, chosen))
        for index, data, path, time_s in zip(chosen, packed, paths, times, strict=True):
            workers.check()
            nbytes, method = self._files.nbytes[index], self._layout.methods[index]
            if method == STORED and len(data) != nbytes:
                raise ArchiveCorruptError.of(path, "is stored, but lies about its size")
            crc = self._crc(index)
            try:
                content = unpacked(memoryview(data), method, nbytes, crc, path)
            except ArchiveCorruptError as error:
                from colabkit.datasets.archives.zip_encryption import maybe_wrong

                raise maybe_wrong(error) from error
            if crc is None:
                self._learn_crc(index, crc32(content, 0))
            with self._writing:
                self._tree.put(path, content, self._files.modes[index], time_s)
            self._count(workers, len(content), 1)

    def _crc(self, index: int) -> int | None:
        """Returns a member's CRC, None where a seal stands in its place."""
        row = self._layout.rows[index]
        facts = self._decryption.facts(row) if self._decryption is not None else None
        return None if facts and not facts.has_crc else self._layout.entries.crcs[row]

    def _learn_crc(self, index: int, crc: int) -> None:
        if self._files.crcs is not None:
            self._files.crcs[index] = crc

    def _put(self, items: Sequence[Item], data: memoryview, workers: WorkerGroup) -> None:
        """Unpacks files here; one thread writes at a time, as all would wait for each other."""
        for first in range(0, len(items), _BATCH_FILES):
            batch = items[first : first + _BATCH_FILES]
            contents = [
                unpacked(data[begin:end], method, nbytes, crc, path)
                for path, begin, end, method, nbytes, crc, _, _ in batch
            ]
            workers.check()
            with self._writing:
                for item, content in zip(batch, contents, strict=True):
                    self._tree.put(item[0], content, item[6], item[7])
            self._count(workers, sum(map(len, contents)), len(batch))

    def _unpack_large(self, job: Job, chunks: Iterator[bytes], workers: WorkerGroup) -> None:
        index = self._order[job.first]
        row = self._layout.rows[index]
        entries = self._layout.entries
        path, nbytes = self._files.paths[index], self._files.nbytes[index]
        packed: Iterator[bytes | memoryview] = self._packed(job, chunks, index, path)
        if self._decryption is not None and entries.flags[row] & _ENCRYPTED:
            packed = self._decryption.large(packed, row, path, Path(self._tree.prefix).parent)
        declared = self._crc(index)
        descriptor = self._tree.create(path, self._files.modes[index])
        try:
            crc = done = 0
            for piece in pieces(packed, self._layout.methods[index], nbytes, path):
                crc, done = crc32(piece, crc), done + len(piece)
                self._tree.write(descriptor, piece, path)
                self._count(workers, len(piece), 0)
            for _ in packed:
                pass  # behind the packed stream stands the seal of what was encrypted
            self._tree.date(descriptor, entries.times([row])[0])
        finally:
            os.close(descriptor)
        if done != nbytes:
            raise ArchiveCorruptError.of(path, f"unpacks to {done:,} bytes instead of {nbytes:,}")
        if declared is None:
            self._learn_crc(index, crc)
        elif crc != declared:
            raise ArchiveCorruptError.of(path, "has another CRC-32 than the directory says")
        self._count(workers, 0, 1)

    def _packed(
        self, job: Job, chunks: Iterator[bytes], index: int, path: str
    ) -> Iterator[memoryview]:
        """Yields a large member's packed bytes, without its header and what follows."""
        row = self._layout.rows[index]
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= min(_HEAD_BYTES, job.end - job.begin):
                break
        begin = data_begin(head, 0, self._layout.entries, row, path)
        left = self._layout.entries.packed_bytes[row]
        if job.begin + begin + left > self._layout.bounds[index]:
            raise overlap(path)
        for data in chain([memoryview(head)[begin:]], map(memoryview, chunks)):
            yield data[:left]
            left -= min(left, len(data))
        if left:
            raise ArchiveCorruptError.of(path, "is cut short")

    def _plan_jobs(self, share_bytes: int) -> list[Job]:
        """Groups members into jobs of about so many packed bytes, the largest members first."""
        large: list[tuple[int, Job]] = []
        spans: list[Job] = []
        span_bytes = min(CHUNK_BYTES, max(_SPAN_BYTES_MIN, share_bytes))
        if self._decryption is not None and self._decryption.goes_in_step:
            span_bytes = _ENCRYPTED_SPAN_BYTES
        first, begin, end, unpacked_bytes = 0, 0, -1, 0
        for at, (place, bound, packed, nbytes) in enumerate(self._places()):
            until = min(bound, place + packed + _HEAD_BYTES)
            if packed > _LARGE_PACKED_BYTES or nbytes > _LARGE_BYTES:
                if end >= 0:
                    spans.append(Job(begin, end, first, at, large=False))
                large.append((nbytes, Job(place, until, at, at + 1, large=True)))
                end = -1
                continue
            full = (
                until - begin > span_bytes
                or at - first >= _SPAN_FILES
                or unpacked_bytes + nbytes > _SPAN_UNPACKED_BYTES
                or place - end > _GAP_BYTES
            )
            if end >= 0 and full:
                spans.append(Job(begin, end, first, at, large=False))
            if end < 0 or full:
                first, begin, unpacked_bytes = at, place, 0
            end = until
            unpacked_bytes += nbytes
        if end >= 0:
            spans.append(Job(begin, end, first, len(self._order), large=False))
        large.sort(key=lambda pair: -pair[0])
        return [job for _, job in large] + spans

    def _places(self) -> Iterator[tuple[int, int, int, int]]:
        """Yields (offset, bound, packed bytes, unpacked bytes) in the archive's order."""
        layout, entries = self._layout, self._layout.entries
        for index in self._order:
            row = layout.rows[index]
            yield (
                *(entries.offsets[row], layout.bounds[index]),
                *(entries.packed_bytes[row], self._files.nbytes[index]),
            )

    def _count(self, workers: WorkerGroup, nbytes: int, files: int) -> None:
        with workers.lock:
            # A large member goes on for long where all of it has been read.
            workers.check()
            self.counter.bytes_written += nbytes
            self.counter.files_done += files
