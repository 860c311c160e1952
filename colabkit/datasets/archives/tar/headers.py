"""A strict reading of tar headers: ustar, GNU and pax; what is doubtful is refused."""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from zlib import adler32

from colabkit.datasets.members import corrupt, decoded, encoding_of
from colabkit.errors import ArchiveUnsafeError, ArchiveUnsupportedError

BLOCK_BYTES = 512
_HEADER = struct.Struct("100s8s16x12s12x8sc100s6s82x155s12x")
_POSIX_MAGIC = b"ustar\0"
_CHECKSUM_SPACES = 8 * 32
_BASE256 = 0x80
_OCTAL = b"01234567"
_UNNAMED = ""


class TarType(enum.Enum):
    """What a header announces."""

    FILE = enum.auto()
    FOLDER = enum.auto()
    HARD_LINK = enum.auto()
    SYMLINK = enum.auto()
    PAX = enum.auto()
    PAX_GLOBAL = enum.auto()
    LONG_NAME = enum.auto()
    LONG_LINK = enum.auto()
    LABEL = enum.auto()


_TYPES = {
    b"0": TarType.FILE,
    b"\0": TarType.FILE,
    b"7": TarType.FILE,
    b"1": TarType.HARD_LINK,
    b"2": TarType.SYMLINK,
    b"5": TarType.FOLDER,
    b"x": TarType.PAX,
    b"g": TarType.PAX_GLOBAL,
    b"L": TarType.LONG_NAME,
    b"K": TarType.LONG_LINK,
    b"V": TarType.LABEL,
}
_DEVICES = (b"3", b"4", b"6")
WITHOUT_DATA = frozenset({TarType.FOLDER, TarType.HARD_LINK, TarType.SYMLINK, TarType.LABEL})


@dataclass(slots=True)
class TarHeader:
    """One header; ``nbytes`` is the size of the data that follows it."""

    kind: TarType
    name: bytes
    link: bytes
    nbytes: int
    mode: int


@dataclass(frozen=True, slots=True)
class Extended:
    """What the headers before a member say of it."""

    name: str | None = None
    link: str | None = None
    nbytes: int | None = None

    def with_pax(self, records: Mapping[str, str]) -> Extended:
        """Returns this with the records of a pax header added."""
        sparse = next((key for key in records if key.startswith("GNU.sparse")), None)
        if sparse is not None:
            raise _unsupported(records.get("path", ""), "is a sparse file")
        changes: dict[str, str | int] = {}
        if "path" in records:
            changes["name"] = records["path"]
        if "linkpath" in records:
            changes["link"] = records["linkpath"]
        if "size" in records:
            if not (records["size"].isascii() and records["size"].isdecimal()):
                raise corrupt(records.get("path", ""), "has a size that is no number")
            changes["nbytes"] = int(records["size"][:20])
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(slots=True)
class TarMember:
    """A member with all its headers put together."""

    kind: TarType
    name: str
    link: str
    nbytes: int
    mode: int


def read_header(block: bytes) -> TarHeader:
    """Parses a header block.

    Raises:
        ArchiveCorruptError: Its checksum or a number in it is wrong.
        ArchiveUnsafeError: It announces a device or a pipe.
        ArchiveUnsupportedError: It announces a sparse file or a part of a series.
    """
    name, mode, size, checksum, kind_byte, link, magic, prefix = _HEADER.unpack(block)
    name, link = _text(name), _text(link)
    if magic == _POSIX_MAGIC and (head := _text(prefix)):
        name = head + b"/" + name
    # Adler-32's lower half is one more than the sum of so few bytes.
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    total += _CHECKSUM_SPACES - sum(checksum)
    if _number(checksum, name) != total and not _signed_sum(block, checksum, name):
        raise corrupt(_shown(name), "has a header with a wrong checksum")
    if kind_byte in _DEVICES:
        shown = _shown(name)
        message = f"Member {shown!r} is a device or a pipe."
        raise ArchiveUnsafeError(message, member=shown, hint="Leave it out when you pack.")
    kind = _TYPES.get(kind_byte)
    if kind is None:
        raise _unsupported(
            _shown(name), f"is of type {kind_byte!r} (sparse, or one part of several)"
        )
    if kind is TarType.FILE and name.endswith(b"/"):
        kind = TarType.FOLDER
    nbytes = _number(size, name)
    if kind in WITHOUT_DATA:
        nbytes = 0
    return TarHeader(kind, name, link, nbytes, _number(mode, name))


def merged(header: TarHeader, extended: Extended) -> TarMember:
    """Returns a member's header with what came before it."""
    name = _decoded(header.name) if extended.name is None else extended.name
    link = extended.link
    if link is None:
        link = _decoded(header.link) if header.link else ""
    nbytes = header.nbytes
    if extended.nbytes is not None and header.kind not in WITHOUT_DATA:
        nbytes = extended.nbytes
    return TarMember(header.kind, name, link, nbytes, header.mode)


NOTHING = Extended()


def long_text(data: bytes) -> str:
    """Returns the name in GNU's header for long ones."""
    return _decoded(_text(data))


def pax_records(data: bytes) -> dict[str, str]:
    """Parses a pax header's records, each "length key=value" and a line end.

    Raises:
        ArchiveCorruptError: A record's length is not its length.
    """
    records: dict[str, str] = {}
    unreadable = "has a pax header that cannot be read"
    place = 0
    while place < len(data) and data[place]:
        space = data.find(b" ", place, place + 20)
        digits = data[place:space] if space > 0 else b""
        if not digits.isdigit():
            raise corrupt(_UNNAMED, unreadable)
        end = place + int(digits)
        record = data[space + 1 : end]
        if end <= space or end > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise corrupt(_UNNAMED, unreadable)
        key, _, value = record[:-1].partition(b"=")
        records[key.decode("utf-8", "replace")] = _decoded(value)
        place = end
    return records


def _text(field_bytes: bytes) -> bytes:
    return field_bytes.partition(b"\0")[0]


def _decoded(name: bytes) -> str:
    return name.decode("ascii") if name.isascii() else decoded(name, encoding_of([name]))


def _number(digits: bytes, name: bytes) -> int:
    number = _parsed(digits)
    if number is None:
        raise corrupt(_shown(name), "has a number in its header that is none")
    if number < 0:
        raise corrupt(_shown(name), "has a negative number in its header")
    return number


@lru_cache(4096)
def _parsed(digits: bytes) -> int | None:
    """Returns a number, None where it is none; the same few come again and again."""
    if digits[0] & _BASE256:
        return int.from_bytes(digits[1:], "big") if digits[0] == _BASE256 else -1
    text = digits.partition(b"\0")[0].strip(b" ")
    if text.translate(None, _OCTAL):
        return None
    return int(text, 8) if text else 0


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _signed_sum(block: bytes, checksum: bytes, name: bytes) -> bool:
    """Whether the checksum is that of old programs, which summed signed bytes."""
    values = struct.unpack("512b", block)
    own = sum(values[148:156])
    return bool(_number(checksum, name) == sum(values) - own + _CHECKSUM_SPACES)


def _unsupported(name: str, why: str) -> ArchiveUnsupportedError:
    message = f"Member {name!r} {why}, which is not read here."
    return ArchiveUnsupportedError(message, member=name, hint="Pack it again with plain tar.")
