"""An archive that was packed before: whether it is fresh, and what of it can be used again."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from colabkit.datasets.archives.zip_headers import (
    Method,
    data_offset,
    ends_as_pack,
    extra_data,
    extra_data_in,
)
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.listing import Listing
from colabkit.datasets.packing.pieces import Piece

_TAIL_BYTES = 64
_HEAD_BYTES = 128
_TIME_BYTES = 8
_PACKED_BYTES_MAX = 4 << 20


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

    Raises:
        zipfile.BadZipFile: It is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
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
        if info is None or file.mtime_ns is None:
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
