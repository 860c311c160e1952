"""What goes into a pack: files deflated where that pays, and what an older pack has of them."""

from __future__ import annotations

import dataclasses
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.archives.zip_format import (
    Method,
    data_offset,
    ends_as_pack,
    extra_data,
    extra_data_in,
)
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.comparing import rewritten, touched_since
from colabkit.datasets.folders.listing import FolderReader, Listing, unreadable
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retrying import Retry
from colabkit.errors import ColabKitError, DatasetChangedError

PIECE_BYTES = 1 << 20
_SAMPLE_BYTES = 64 << 10
_WORTH = 0.95
_LEVEL = 6
_RATIO_MAX = 128
_EMPTY_BLOCK = b"\0\0\0\xff\xff"
_PACKED_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        ("jpg", "jpeg", "png", "gif", "webp", "heic", "avif"),
        ("mp3", "m4a", "ogg", "opus", "flac", "aac", "mp4", "mkv", "webm", "mov"),
        ("zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "whl"),
        ("npz", "parquet", "pt", "pth", "safetensors"),
    )
    for name in names
)
_TAIL_BYTES = 64
_HEAD_BYTES = 128
_TIME_BYTES = 8
_PACKED_BYTES_MAX = 4 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, as it goes into an archive.

    Attributes:
        method: How the file is packed.
        packed: The bytes of the archive.
        raw_nbytes: How many bytes of the file they are.
        crc32: CRC of the file up to here, None where only the one who has all can tell.
        raw: The bytes of the file, where the CRC is not told.
    """

    method: Method
    packed: bytes
    raw_nbytes: int
    crc32: int | None
    raw: bytes = b""


class Compressor:
    """Packs one file piece by piece; pieces may be asked for by several threads at once.

    Args:
        root: The folder.
        file: The file in it, as listed.
        reader: The calls to read it by.
        retry: Called on a failure; returns to try again, raises to give up.
    """

    def __init__(self, root: Path, file: Member, *, reader: FolderReader, retry: Retry) -> None:
        self.file = file
        self._path = root / file.path
        self._reader = reader
        self._retry = retry
        self._guard = threading.Lock()
        self._method: Method | None = None

    @property
    def pieces(self) -> int:
        """How many pieces there are; an empty file has one."""
        return max(1, -(-self.file.nbytes // PIECE_BYTES))

    def piece(self, number: int) -> Piece:
        """Returns a piece of the file.

        Raises:
            DatasetChangedError: The file is not as long as it was listed.
            OSError: It cannot be read.
        """
        offset = number * PIECE_BYTES
        last = number == self.pieces - 1
        expected = min(PIECE_BYTES, self.file.nbytes - offset)
        # One byte more at the end shows that the file has grown.
        data = self._read(offset, expected + last)
        if len(data) != expected:
            raise self._changed()
        if self.pieces == 1:
            crc32 = zlib.crc32(data)
            packed = _deflated(data, last=True) if self._may_pay() and data else data
            if len(packed) < _WORTH * len(data):
                return Piece(Method.DEFLATED, packed, len(data), crc32)
            return Piece(Method.STORED, data, len(data), crc32)
        if self._method_of_all() is Method.STORED:
            return Piece(Method.STORED, data, len(data), None, data)
        return Piece(Method.DEFLATED, _deflated(data, last=last), len(data), None, data)

    def _method_of_all(self) -> Method:
        with self._guard:
            if self._method is None:
                self._method = Method.STORED
                if self._may_pay():
                    middle = self.file.nbytes // 2
                    sample = self._read(middle, _SAMPLE_BYTES)
                    if len(zlib.compress(sample, _LEVEL)) < _WORTH * len(sample):
                        self._method = Method.DEFLATED
            return self._method

    def _may_pay(self) -> bool:
        return os.path.splitext(self.file.path)[1].lower() not in _PACKED_SUFFIXES  # noqa: PTH122

    def _read(self, offset: int, nbytes: int) -> bytes:
        while True:
            try:
                descriptor = self._reader.open(self._path)
                try:
                    data = self._read_whole(descriptor, offset, nbytes)
                    # A file rewritten in place while it was read is half old, half new.
                    if not self._reader.is_still(descriptor, self.file):
                        raise self._changed()
                    return data
                finally:
                    os.close(descriptor)
            except OSError as error:
                try:
                    self._retry(error)
                except ColabKitError:
                    raise
                except FileNotFoundError as final:
                    raise self._changed() from final
                except OSError as final:
                    raise unreadable(self._path, final) from final

    def _changed(self) -> DatasetChangedError:
        message = f"{self._path} changed while it was read."
        hint = "Run this again once nobody writes to it."
        return DatasetChangedError(message, path=self._path, hint=hint)

    def _read_whole(self, descriptor: int, offset: int, nbytes: int) -> bytes:
        parts: list[bytes] = []
        left = nbytes
        while left and (part := self._reader.read(descriptor, left, offset)):
            parts.append(part)
            left, offset = left - len(part), offset + len(part)
            if offset >= self.file.nbytes:
                break
        return b"".join(parts)


def _deflated(data: bytes, *, last: bool) -> bytes:
    """Deflates a piece on its own, so that pieces one after the other are one stream."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)
    # Zeros shrink a thousandfold, as a bomb does: blocks that hold nothing keep it in proportion.
    missing_bytes = len(data) // _RATIO_MAX - len(packed)
    return _EMPTY_BLOCK * -(-missing_bytes // len(_EMPTY_BLOCK)) + packed


def is_pack(path: Path) -> bool:
    """Whether a file is an archive that colabkit packed."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return ends_as_pack(file.read())
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False


def times_of(files: Sequence[Member]) -> bytes:
    """Returns the times of change of an archive's files, as they are kept with it."""
    return struct.pack(f"<{len(files)}q", *(file.mtime_ns or 0 for file in files))


class OlderPack:
    """An archive that colabkit packed from a folder, with each file's time of change then.

    Args:
        path: The archive.

    Attributes:
        is_older: Whether files had to be read because something came to them since.

    Raises:
        zipfile.BadZipFile: It is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.is_older = False
        self._rewritten: set[str] = set()
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._mtime_ns = os.fstat(self._descriptor).st_mtime_ns
            with path.open("rb") as file, zipfile.ZipFile(file) as archive:
                self._members = {info.filename: info for info in archive.infolist()}
                begin = archive.start_dir
            names = [name for name in self._members if not name.endswith("/")]
            self._times = dict(zip(names, self._read_times(begin, len(names)), strict=False))
        except BaseException:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Closes the archive."""
        os.close(self._descriptor)

    def compare(
        self, root: Path, listing: Listing, *, reader: FolderReader, retry: Retry, watch: Watch
    ) -> None:
        """Reads the files that may have been written since at their size and time.

        Only where a disk tells of it: nothing does on Drive.
        """
        touched = touched_since(root, listing, self._mtime_ns)
        files = [file for file in touched if self._unchanged(file)]
        crcs = {file.path: self._members[file.path].CRC for file in files}
        self._rewritten = rewritten(root, files, crcs, reader=reader, retry=retry, watch=watch)
        self.is_older = bool(files)

    def is_fresh(self, listing: Listing) -> bool:
        """Whether it holds just what a folder holds: the same names, sizes and times of change."""
        names = {name for name in self._members if not name.endswith("/")}
        same_names = names == {file.path for file in listing.files}
        folders = {name[:-1] for name in self._members if name.endswith("/")}
        same_names &= folders == set(listing.empty_folders)
        return same_names and all(self._unchanged(file) for file in listing.files)

    def piece(self, file: Member) -> Piece | None:
        """Returns an unchanged file as it is packed, checked; None when it has to be read."""
        info = self._members.get(file.path)
        if info is None or info.compress_size > _PACKED_BYTES_MAX or not self._unchanged(file):
            return None
        method = Method(info.compress_type)
        head_bytes = _HEAD_BYTES + len(file.path.encode())
        data = os.pread(self._descriptor, head_bytes + info.compress_size, info.header_offset)
        begin = data_offset(data)
        packed = data[begin : begin + info.compress_size]
        if not _is_whole(packed, method, file.nbytes, info.CRC):
            return None
        return Piece(method, packed, file.nbytes, info.CRC)

    def _unchanged(self, file: Member) -> bool:
        info = self._members.get(file.path)
        if info is None or file.mtime_ns is None or file.path in self._rewritten:
            return False
        # Of a file of the moment of packing, a later change may bear the same time.
        known = self._times.get(file.path) == file.mtime_ns < self._mtime_ns
        return known and info.file_size == file.nbytes

    def _read_times(self, end: int, count: int) -> Sequence[int]:
        """Returns the times kept before the table of contents; none in an older archive."""
        nbytes = len(extra_data(b"")) + count * _TIME_BYTES
        record = os.pread(self._descriptor, nbytes, end - nbytes) if end >= nbytes else b""
        data = extra_data_in(record)
        return struct.unpack(f"<{len(data) // _TIME_BYTES}q", data)


def _is_whole(packed: bytes, method: Method, nbytes: int, crc32: int) -> bool:
    raw = packed
    if method is Method.DEFLATED:
        try:
            raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, nbytes + 1)
        except zlib.error:
            return False
    return len(raw) == nbytes and zlib.crc32(raw) == crc32
