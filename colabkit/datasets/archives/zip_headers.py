"""The bytes of a zip archive: headers with a fixed time, so that equal content is equal bytes."""

from __future__ import annotations

import dataclasses
import enum
import struct

PACK_COMMENT = b"packed by colabkit"
_EXTRA_DATA_MAGIC = b"PK\x06\x08"

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_FULL32 = 0xFFFFFFFF
_FULL16 = 0xFFFF
# A deflated file can be larger than the file: by less than this.
_NEAR_FULL32 = _FULL32 - (16 << 20)
_FIRST_OF_1980 = 0x21
_UTF8 = 0x800
_UNIX = 3 << 8
_FILE_MODE = 0o100644 << 16
_FOLDER_MODE = 0o040755 << 16 | 0x10


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
        _LOCAL.pack(
            b"PK\x03\x04",
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
        _CENTRAL.pack(
            b"PK\x01\x02",
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
            b"PK\x06\x06", 44, _UNIX | 45, 45, 0, 0, entries, entries, nbytes, offset
        ) + _END64_LOCATOR.pack(b"PK\x06\x07", 0, place, 1)
    count = min(entries, _FULL16)
    end = _END.pack(
        b"PK\x05\x06",
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
    begin = len(tail) - _END.size - len(PACK_COMMENT)
    return begin >= 0 and tail[begin : begin + 4] == b"PK\x05\x06" and tail.endswith(PACK_COMMENT)


def data_offset(local: bytes) -> int:
    """Returns how far behind its header's begin a member's data lies."""
    *_, name_bytes, extra_bytes = _LOCAL.unpack(local[: _LOCAL.size])
    return _LOCAL.size + int(name_bytes) + int(extra_bytes)


def _encoded(name: str) -> tuple[bytes, int]:
    return name.encode(), 0 if name.isascii() else _UTF8
