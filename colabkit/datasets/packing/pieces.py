"""A file's content as it goes into an archive: deflated where that pays, else as it is."""

from __future__ import annotations

import dataclasses
import os
import threading
import zlib
from pathlib import Path

from colabkit.datasets.archives.zip_headers import Method
from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.listing import FolderReader, unreadable
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


class Squeezer:
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
