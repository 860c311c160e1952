"""The end of a zip: where its directory lies and how many members it lists."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from colabkit.datasets.reading.source import Source
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_END_MAGIC, _END64_MAGIC, _LOCATOR64_MAGIC = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_COMMENT_BYTES_MAX = 65535
_TAIL_BYTES = 256 << 10
_ENTRY_BYTES_MIN = 46
_FULL16, _FULL32, _COUNTS = 0xFFFF, 0xFFFFFFFF, 1 << 16
_DIRECTORY_BEGINS = frozenset({b"PK\x01\x02", _END_MAGIC, _END64_MAGIC})
_DIRECTORY_BYTES_MAX = 2 << 30


@dataclass(frozen=True, slots=True)
class ZipEnd:
    """Where a zip's directory lies.

    ``shift_bytes`` is how far members lie behind where the directory says, in a zip that was
    appended to something else. ``counts_all`` is False where the end counts modulo 65,536, and
    ``wraps`` where its offsets are modulo 4 GiB, as macOS' Archive Utility writes them. ``disks``
    is where each part begins of a zip in several, whose offsets count from there.
    """

    n_entries: int
    directory_offset: int
    directory_bytes: int
    shift_bytes: int
    counts_all: bool = True
    wraps: bool = False
    has_more_behind: bool = False
    disks: tuple[int, ...] = ()

    def lists(self, n_entries: int) -> bool:
        """Whether a directory of so many members is the one that was announced."""
        if n_entries == self.n_entries:
            return True
        if self.counts_all or n_entries < self.n_entries:
            return False
        return self.n_entries in {n_entries % _COUNTS, _COUNTS - 1}


@dataclass(frozen=True, slots=True)
class _End64:
    """The record with 64-bit numbers, and where it lies."""

    offset: int
    disk: int
    first_disk: int
    n_entries: int
    directory_bytes: int
    directory_offset: int

    @property
    def directory(self) -> tuple[int, int]:
        return self.directory_bytes, self.directory_offset


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
    _, disk, first_disk, _, n_entries, nbytes, offset, comment_bytes = _END.unpack_from(
        tail.data, place
    )
    # Some programs write a second record whether or not it is needed, others never.
    large = _end64(tail, end_offset)
    if large is not None:
        end_offset = large.offset
        disk = large.disk if disk == _FULL16 else disk
        first_disk = large.first_disk if first_disk == _FULL16 else first_disk
        n_entries = large.n_entries if n_entries == _FULL16 else n_entries
        nbytes = large.directory_bytes if nbytes == _FULL32 else nbytes
        offset = large.directory_offset if offset == _FULL32 else offset
    disks = _disks(source, disk, first_disk)
    if disks:
        offset += disks[first_disk]
    shift = end_offset - nbytes - offset
    if shift < 0 or n_entries * _ENTRY_BYTES_MIN > nbytes:
        message = f"{source.name}'s directory does not fit into its {source.nbytes:,} bytes."
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    if nbytes > _DIRECTORY_BYTES_MAX:
        message = f"{source.name}'s directory claims {nbytes:,} bytes."
        raise ArchiveUnsafeError(message, hint="Pack the data into fewer, larger files.")
    wraps = large is None and shift > 0 and shift % (1 << 32) == 0
    return ZipEnd(
        n_entries,
        end_offset - nbytes,
        nbytes,
        0 if wraps else shift,
        counts_all=large is not None,
        wraps=wraps,
        has_more_behind=place + _END.size + comment_bytes < len(tail.data),
        disks=disks,
    )


def _disks(source: Source, disk: int, first_disk: int) -> tuple[int, ...]:
    """Returns where the parts of a zip begin, () where it is in one."""
    if not disk and not first_disk:
        return ()
    starts = source.starts
    if len(starts) == disk + 1 and first_disk <= disk:
        return starts
    stem = source.name.removesuffix(".zip")
    message = f"{source.name} is the last of {disk + 1:,} parts, and {len(starts):,} are there."
    hint = f"Put {stem}.z01 to {stem}.z{disk:02} beside it; of URLs, pass all in a list."
    raise ArchiveCorruptError(message, hint=hint)


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
    return _end_before_more(tail)


def _end_before_more(tail: Tail) -> int | None:
    """Returns where the record lies of a zip that something was appended to.

    It has to begin where the file does: the zip in a zip that was cut short does not.
    """
    data, place = tail.data, tail.data.rfind(_END_MAGIC)
    while place >= 0:
        if place + _END.size <= len(data):
            *_, nbytes, offset, _ = _END.unpack_from(data, place)
            end_offset = tail.offset + place
            large = _end64(tail, end_offset) if _FULL32 in {nbytes, offset} else None
            if large is not None:
                end_offset, nbytes, offset = large.offset, *large.directory
            if offset + nbytes == end_offset and tail.read(offset, 4) in _DIRECTORY_BEGINS:
                return place
        place = data.rfind(_END_MAGIC, 0, place)
    return None


def _end64(tail: Tail, end_offset: int) -> _End64 | None:
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
    return _End64(record_offset, disk, first_disk, n_entries, nbytes, offset)
