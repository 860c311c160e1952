"""Writing a folder as one zip archive: many files read and deflated at once, one writer."""

from __future__ import annotations

import collections
import dataclasses
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import xxhash

from colabkit.datasets.archives.zip_format import (
    Entry,
    Method,
    archive_end,
    central_header,
    extra_data,
    local_header,
)
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.listing import THREADS, FolderReader, Listing
from colabkit.datasets.packing.pieces import PIECE_BYTES, Compressor, OlderPack, Piece, times_of
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.datasets.reading.workers import Pool
from colabkit.errors import StorageError

_LARGE_BYTES = PIECE_BYTES // 8
_AHEAD_LARGE = 64
_AHEAD_ALL = 512
_READ_BYTES = 4 << 20
_READERS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a file, where it stands in it, and whether an older archive gave it."""

    file: Member
    piece: Piece
    first: bool
    last: bool
    reused: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Segment:
    nbytes: int
    digest: int


class ZipPacker:
    """Writes one archive.

    Args:
        descriptor: An empty file, open for reading and writing.
        watch: Is told every file.
        retry: Called when the folder does not answer.
        reader: The calls to read the folder by.
        older: An archive of the same folder whose unchanged members are copied as they are.

    Attributes:
        nbytes: Bytes written.
        reused: Files taken from the older archive.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        watch: Watch,
        retry: Retry,
        reader: FolderReader,
        older: OlderPack | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._watch = watch
        self._retry = retry
        self._reader = reader
        self._older = older
        self._entries: list[Entry] = []
        self._segments: list[_Segment] = []
        self._running = xxhash.xxh3_64()
        self._running_bytes = 0
        self.nbytes = 0
        self.reused = 0

    def write(self, root: Path, listing: Listing) -> None:
        """Writes all of a folder, files sorted by name, after the folders that hold nothing.

        Raises:
            DatasetChangedError: A file changed while it was read.
            OSError: The folder cannot be read, or the archive not be written.
        """
        for folder in listing.empty_folders:
            self._write_whole(Entry(f"{folder}/", Method.STORED, 0, 0, 0, self.nbytes), b"")
        with Pool(THREADS, "colabkit-pack") as pool:
            try:
                self._write_files(self._parts(pool, root, listing))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._append(extra_data(times_of(listing.files)))
        begin = self.nbytes
        self._append(b"".join(map(central_header, self._entries)))
        end = archive_end(entries=len(self._entries), offset=begin, nbytes=self.nbytes - begin)
        self._append(end)
        self._cut()
        os.fsync(self._descriptor)

    def verify(self) -> None:
        """Reads the archive and compares every byte with what was written.

        Raises:
            StorageError: It is not what was written.
        """
        with Pool(_READERS, "colabkit-verify") as pool:
            offsets = range(0, self.nbytes, _READ_BYTES)
            blocks = pool.map(lambda at: os.pread(self._descriptor, _READ_BYTES, at), offsets)
            whole = self._equals(blocks)
        if not whole or os.fstat(self._descriptor).st_size != self.nbytes:
            message = "The archive reads otherwise than it was written."
            raise StorageError(
                message, operation="verify", hint="Its disk may be failing: use another."
            )

    def _equals(self, blocks: Iterator[bytes]) -> bool:
        block = memoryview(b"")
        for segment in self._segments:
            digest, left = xxhash.xxh3_64(), segment.nbytes
            while left:
                block = block or memoryview(next(blocks, b""))
                if not block:
                    return False
                digest.update(block[:left])
                left, block = left - len(block[:left]), block[left:]
            if digest.intdigest() != segment.digest:
                return False
        return True

    def _parts(self, pool: Pool, root: Path, listing: Listing) -> Iterator[_Part]:
        waiting: collections.deque[Future[_Part]] = collections.deque()
        large = 0
        for file in listing.files:
            compressor = Compressor(root, file, reader=self._reader, retry=self._retry)
            for number in range(compressor.pieces):
                while waiting and (large >= _AHEAD_LARGE or len(waiting) >= _AHEAD_ALL):
                    part = waiting.popleft().result()
                    large -= part.file.nbytes > _LARGE_BYTES
                    yield part
                waiting.append(pool.submit(self._part, compressor, number))
                large += file.nbytes > _LARGE_BYTES
        for future in waiting:
            yield future.result()

    def _part(self, compressor: Compressor, number: int) -> _Part:
        self._watch.check()
        file, count = compressor.file, compressor.pieces
        older = self._older.piece(file) if self._older is not None and count == 1 else None
        return _Part(
            file,
            older or compressor.piece(number),
            first=number == 0,
            last=number == count - 1,
            reused=older is not None,
        )

    def _write_files(self, parts: Iterator[_Part]) -> None:
        for part in parts:
            piece = part.piece
            if piece.crc32 is not None:
                self._write_whole(
                    _entry(part, piece.crc32, len(piece.packed), self.nbytes), piece.packed
                )
                self.reused += part.reused
            else:
                self._write_rest(part, parts)
            self._watch.add(nbytes=part.file.nbytes, files=1)

    def _write_rest(self, part: _Part, parts: Iterator[_Part]) -> None:
        """Writes a file of several pieces; what its header says is known after the last."""
        self._cut()
        begin, crc32 = self.nbytes, 0
        header_bytes = len(local_header(_entry(part, 0, 0, begin)))
        self.nbytes += header_bytes
        while True:
            self._append(part.piece.packed)
            crc32 = zlib.crc32(part.piece.raw, crc32)
            if part.last:
                break
            part = next(parts)
        entry = _entry(part, crc32, self.nbytes - begin - header_bytes, begin)
        header = local_header(entry)
        _write_all(self._descriptor, header, begin)
        self._segments.append(_Segment(len(header), xxhash.xxh3_64_intdigest(header)))
        self._cut()
        self._entries.append(entry)

    def _write_whole(self, entry: Entry, packed: bytes) -> None:
        self._append(local_header(entry) + packed)
        self._entries.append(entry)

    def _append(self, data: bytes) -> None:
        _write_all(self._descriptor, data, self.nbytes)
        self.nbytes += len(data)
        self._running.update(data)
        self._running_bytes += len(data)

    def _cut(self) -> None:
        if self._running_bytes:
            self._segments.append(_Segment(self._running_bytes, self._running.intdigest()))
        self._running, self._running_bytes = xxhash.xxh3_64(), 0


def _entry(part: _Part, crc32: int, packed_bytes: int, offset: int) -> Entry:
    file = part.file
    return Entry(file.path, part.piece.method, crc32, packed_bytes, file.nbytes, offset)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
