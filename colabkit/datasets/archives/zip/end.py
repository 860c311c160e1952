"""The end of a zip: where its directory lies and how many members it lists."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from colabkit.datasets.reading import Source
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError, ArchiveUnsupportedError

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_END_MAGIC, _END64_MAGIC, _LOCATOR64_MAGIC = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_COMMENT_BYTES_MAX = 65535
_TAIL_BYTES = 256 << 10
_ENTRY_BYTES_MIN = 46
_DIRECTORY_BYTES_MAX = 2 << 30


@dataclass(frozen=True, slots=True)
class ZipEnd:
    """Where a zip's directory lies.

    ``shift_bytes`` is how far members lie behind where the directory says, in a zip that was
    appended to something else.
    """

    n_entries: int
    directory_offset: int
    directory_bytes: int
    shift_bytes: int


class Tail:
    """The last bytes of a source, read once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.offset = max(0, source.nbytes - _TAIL_BYTES)
        self.data = source.read(self.offset, source.nbytes - self.offset)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns a range, from memory where the tail has it."""
        if offset >= self.offset:
            return self.data[offset - self.offset : offset - self.offset + nbytes]
        return self._source.read(offset, nbytes)


def zip_end(source: Source, tail: Tail) -> ZipEnd:
    """Finds a zip's directory.

    Raises:
        ArchiveCorruptError: There is none, as in a zip that was not downloaded whole.
    """
    place = _end_record(tail)
    if place is None:
        message = f"{source.name} ({source.nbytes:,} bytes) has no directory at its end."
        raise ArchiveCorruptError(message, hint="It was cut short: upload or download it again.")
    end_offset = tail.offset + place
    _, disk, first_disk, _, n_entries, nbytes, offset, _ = _END.unpack_from(tail.data, place)
    # Only a record that carries a marker has a second one that says more.
    if 0xFFFF in {n_entries, disk} or 0xFFFFFFFF in {nbytes, offset}:
        large = _end64(tail, end_offset)
        if large is not None:
            end_offset, disk, first_disk, n_entries, nbytes, offset = large
    if disk or first_disk:
        message = f"{source.name} is one of several parts of a zip."
        raise ArchiveUnsupportedError(message, hint="Join the parts first: zip -s 0 in --out out.")
    shift = end_offset - nbytes - offset
    if shift < 0 or n_entries * _ENTRY_BYTES_MIN > nbytes:
        message = f"{source.name}'s directory does not fit into its {source.nbytes:,} bytes."
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    if nbytes > _DIRECTORY_BYTES_MAX:
        message = f"{source.name}'s directory claims {nbytes:,} bytes."
        raise ArchiveUnsafeError(message, hint="Pack the data into fewer, larger files.")
    return ZipEnd(n_entries, end_offset - nbytes, nbytes, shift)


def _end_record(tail: Tail) -> int | None:
    """Returns where the last record lies whose comment ends where the file does."""
    data = tail.data
    lowest = max(0, len(data) - _END.size - _COMMENT_BYTES_MAX)
    place = data.rfind(_END_MAGIC, lowest)
    while place >= 0:
        if place + _END.size <= len(data):
            comment_bytes = int.from_bytes(data[place + 20 : place + 22], "little")
            if place + _END.size + comment_bytes == len(data):
                return place
        place = data.rfind(_END_MAGIC, lowest, place)
    return None


def _end64(tail: Tail, end_offset: int) -> tuple[int, int, int, int, int, int] | None:
    locator_offset = end_offset - _LOCATOR64.size
    if locator_offset < 0:
        return None
    locator = tail.read(locator_offset, _LOCATOR64.size)
    if len(locator) < _LOCATOR64.size or not locator.startswith(_LOCATOR64_MAGIC):
        return None
    # The record lies right before its locator, also where the zip was appended to something.
    record_offset = locator_offset - _END64.size
    record = tail.read(max(0, record_offset), _END64.size)
    if len(record) < _END64.size or not record.startswith(_END64_MAGIC):
        record_offset = _LOCATOR64.unpack(locator)[2]
        record = tail.read(record_offset, _END64.size)
        if len(record) < _END64.size or not record.startswith(_END64_MAGIC):
            message = "The zip's 64-bit directory record is missing."
            raise ArchiveCorruptError(message, hint="Upload or download the archive again.")
    _, _, _, _, disk, first_disk, _, n_entries, nbytes, offset = _END64.unpack(record)
    return record_offset, disk, first_disk, n_entries, nbytes, offset
