"""The bytes of a zip beside its members' data: headers to write, and the end that is read."""

from __future__ import annotations

import dataclasses
import enum
import struct
from dataclasses import dataclass

from colabkit.datasets.reading.source import Source
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError

LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
LOCAL_MAGIC, CENTRAL_MAGIC, END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
LOCAL_BYTES = LOCAL.size
PACK_COMMENT = b"packed by colabkit"
AES_METHOD = 99
_EXTRA_DATA_MAGIC = b"PK\x06\x08"
_END64_MAGIC, _LOCATOR64_MAGIC = b"PK\x06\x06", b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_FULL32 = 0xFFFFFFFF
_FULL16 = 0xFFFF
# A deflated file can be larger than the file: by less than this.
_NEAR_FULL32 = _FULL32 - (16 << 20)
_FIRST_OF_1980 = 0x21
_UTF8 = 0x800
_UNIX = 3 << 8
_FILE_MODE = 0o100644 << 16
_FOLDER_MODE = 0o040755 << 16 | 0x10
_COMMENT_BYTES_MAX = 65535
_TAIL_BYTES = 256 << 10
_COUNTS = 1 << 16
_DIRECTORY_BEGINS = frozenset({CENTRAL_MAGIC, END_MAGIC, _END64_MAGIC})
_DIRECTORY_BYTES_MAX = 2 << 30


class Method(enum.IntEnum):
    """How a member is packed."""

    STORED = 0
    DEFLATED = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive.

    Attributes:
        name: Its path, with a slash at the end for a folder.
        method: How it is packed.
        crc32: CRC of its content.
        packed_bytes: Size inside the archive.
        nbytes: Size of its content.
        offset: Where its header begins.
    """

    name: str
    method: Method
    crc32: int
    packed_bytes: int
    nbytes: int
    offset: int


def local_header(entry: Entry) -> bytes:
    """Returns what stands before a member; as long for every size of it that is packed."""
    name, flags = _encoded(entry.name)
    extra = b""
    sizes = (entry.packed_bytes, entry.nbytes)
    if entry.nbytes >= _NEAR_FULL32:
        extra = struct.pack("<2H2Q", 1, 16, entry.nbytes, entry.packed_bytes)
        sizes = (_FULL32, _FULL32)
    return (
        LOCAL.pack(
            LOCAL_MAGIC,
            45 if extra else 20,
            flags,
            entry.method,
            0,
            _FIRST_OF_1980,
            entry.crc32,
            *sizes,
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def central_header(entry: Entry) -> bytes:
    """Returns a member's line in the archive's table of contents."""
    name, flags = _encoded(entry.name)
    wide = [value for value in (entry.nbytes, entry.packed_bytes, entry.offset) if value >= _FULL32]
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = 45 if extra or entry.nbytes >= _NEAR_FULL32 else 20
    return (
        CENTRAL.pack(
            CENTRAL_MAGIC,
            _UNIX | version,
            version,
            flags,
            entry.method,
            0,
            _FIRST_OF_1980,
            entry.crc32,
            min(entry.packed_bytes, _FULL32),
            min(entry.nbytes, _FULL32),
            len(name),
            len(extra),
            0,
            0,
            0,
            _FOLDER_MODE if entry.name.endswith("/") else _FILE_MODE,
            min(entry.offset, _FULL32),
        )
        + name
        + extra
    )


def archive_end(*, entries: int, offset: int, nbytes: int) -> bytes:
    """Returns what stands after the table of contents.

    Args:
        entries: Number of members.
        offset: Where the table of contents begins.
        nbytes: How long it is.
    """
    wide = b""
    if entries >= _FULL16 or offset >= _FULL32 or nbytes >= _FULL32:
        place = offset + nbytes
        wide = _END64.pack(
            _END64_MAGIC, 44, _UNIX | 45, 45, 0, 0, entries, entries, nbytes, offset
        ) + _LOCATOR64.pack(_LOCATOR64_MAGIC, 0, place, 1)
    count = min(entries, _FULL16)
    end = END.pack(
        END_MAGIC,
        0,
        0,
        count,
        count,
        min(nbytes, _FULL32),
        min(offset, _FULL32),
        len(PACK_COMMENT),
    )
    return wide + end + PACK_COMMENT


def extra_data(data: bytes) -> bytes:
    """Returns a record that stands before the table of contents, for programs that know it.

    Source:
        APPNOTE.TXT 4.3.11, "Archive extra data record".
    """
    return _EXTRA_DATA_MAGIC + len(data).to_bytes(4, "little") + data


def extra_data_in(record: bytes) -> bytes:
    """Returns what such a record holds, nothing where it is none."""
    head = _EXTRA_DATA_MAGIC + (len(record) - 8).to_bytes(4, "little", signed=True)
    return record[8:] if record.startswith(head) else b""


def ends_as_pack(tail: bytes) -> bool:
    """Whether an archive's last bytes are those of one that colabkit packed."""
    begin = len(tail) - END.size - len(PACK_COMMENT)
    return begin >= 0 and tail[begin : begin + 4] == END_MAGIC and tail.endswith(PACK_COMMENT)


def data_offset(local: bytes) -> int:
    """Returns how far behind its header's begin a member's data lies."""
    *_, name_bytes, extra_bytes = LOCAL.unpack(local[: LOCAL.size])
    return LOCAL.size + int(name_bytes) + int(extra_bytes)


def _encoded(name: str) -> tuple[bytes, int]:
    return name.encode(), 0 if name.isascii() else _UTF8


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
class _End:
    """What stands at a zip's end, and where; of two records each number from where it fits."""

    offset: int
    disk: int
    first_disk: int
    n_entries: int
    directory_bytes: int
    directory_offset: int
    is_wide: bool = False


class Tail:
    """The last bytes of a source, read once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.starts = source.starts
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
    end = _end_at(tail, place)
    n_entries, nbytes, offset = end.n_entries, end.directory_bytes, end.directory_offset
    disks = _disks(source, end.disk, end.first_disk)
    if disks:
        offset += disks[end.first_disk]
    shift = end.offset - nbytes - offset
    if shift < 0 or n_entries * CENTRAL.size > nbytes:
        message = f"{source.name}'s directory does not fit into its {source.nbytes:,} bytes."
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    if nbytes > _DIRECTORY_BYTES_MAX:
        message = f"{source.name}'s directory claims {nbytes:,} bytes."
        raise ArchiveUnsafeError(message, hint="Pack the data into fewer, larger files.")
    wraps = not end.is_wide and shift > 0 and shift % (1 << 32) == 0
    comment_bytes = _comment_bytes(tail.data, place)
    return ZipEnd(
        n_entries,
        end.offset - nbytes,
        nbytes,
        0 if wraps else shift,
        counts_all=end.is_wide,
        wraps=wraps,
        # Programs that write blocks, as tapes have them, fill the last one with zeros.
        has_more_behind=any(tail.data[place + END.size + comment_bytes :]),
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
    there = "1 is" if len(starts) == 1 else f"{len(starts):,} are"
    message = f"{source.name} is the last of {disk + 1:,} parts, of which {there} there."
    others = f"{stem}.z01" + (f" to {stem}.z{disk:02}" if disk > 1 else "")
    hint = f"Put {others} beside it; of URLs, pass all in a list."
    raise ArchiveCorruptError(message, hint=hint)


def _end_record(tail: Tail) -> int | None:
    """Returns where the last record lies whose comment ends where the file does."""
    data = tail.data
    lowest = max(0, len(data) - END.size - _COMMENT_BYTES_MAX)
    fitting: list[int] = []
    place = data.rfind(END_MAGIC, lowest)
    while place >= 0:
        if place + END.size + _comment_bytes(data, place) == len(data):
            fitting.append(place)
        place = data.rfind(END_MAGIC, lowest, place)
    if len(fitting) > 1:
        # A comment may hold the bytes of such a record; what lies before it is no directory then.
        fitting = [place for place in fitting if _has_directory(tail, place)] or fitting
    return fitting[0] if fitting else _end_before_more(tail)


def _has_directory(tail: Tail, place: int) -> bool:
    """Whether a directory with members lies before the record that begins at a place."""
    end = _end_at(tail, place)
    begin = end.offset - end.directory_bytes
    return begin >= 0 and tail.read(begin, 4) == CENTRAL_MAGIC


def _end_before_more(tail: Tail) -> int | None:
    """Returns where the record lies of a zip that something was appended to.

    It has to begin where the file does: the zip in a zip that was cut short does not.
    """
    data, place = tail.data, tail.data.rfind(END_MAGIC)
    while place >= 0:
        if place + END.size <= len(data):
            end = _end_at(tail, place)
            begin = end.directory_offset
            begin += tail.starts[end.first_disk] if end.first_disk < len(tail.starts) else 0
            is_there = begin + end.directory_bytes == end.offset
            if is_there and tail.read(begin, 4) in _DIRECTORY_BEGINS:
                return place
        place = data.rfind(END_MAGIC, 0, place)
    return None


def _comment_bytes(data: bytes, place: int) -> int:
    """Returns how long the comment is of the plain record that begins at a place."""
    return int.from_bytes(data[place + END.size - 2 : place + END.size], "little")


def _end_at(tail: Tail, place: int) -> _End:
    """Reads the end whose plain record begins at a place."""
    _, disk, first_disk, _, n_entries, nbytes, offset, _ = END.unpack_from(tail.data, place)
    # Some programs write a second record whether or not it is needed, others never.
    wide = _wide_end(tail, tail.offset + place)
    if wide is None:
        return _End(tail.offset + place, disk, first_disk, n_entries, nbytes, offset)
    return _End(
        wide.offset,
        wide.disk if disk == _FULL16 else disk,
        wide.first_disk if first_disk == _FULL16 else first_disk,
        wide.n_entries if n_entries == _FULL16 else n_entries,
        wide.directory_bytes if nbytes == _FULL32 else nbytes,
        wide.directory_offset if offset == _FULL32 else offset,
        is_wide=True,
    )


def _wide_end(tail: Tail, end_offset: int) -> _End | None:
    """Reads the record with 64-bit numbers, None where there is none."""
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
    return _End(record_offset, disk, first_disk, n_entries, nbytes, offset, is_wide=True)
