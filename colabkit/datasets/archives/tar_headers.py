"""Tar headers: ustar, GNU, pax, star, sparse; a member is judged when all of its are merged."""

from __future__ import annotations

import enum
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from zlib import adler32

from colabkit.datasets.archives.names import NameReader
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError, ArchiveUnsupportedError

BLOCK_BYTES = 512
_MAP_AT, _SIZE_AT, _ENTRY_BYTES, _NUMBER_BYTES = 386, 483, 24, 12
_IN_HEADER, _IN_BLOCK, _MAP_GOES_ON_AT = 4, 21, 504
_PIECES_MAX = 1_000_000
_ZEROS = bytes(1 << 20)
_BASE256 = 0x80
_HEADER = struct.Struct("100s8s16x12s12s8sc100s6s82x155s12x")
_POSIX_MAGIC = b"ustar\0"
_CHECKSUM_SPACES = 8 * 32
_OCTAL = b"01234567"
_UNNAMED = ""
_VOLUME_BEGINS_WITH = "GNU.volume.filename"
_GOES_ON_AT = 482
_DECIMAL = re.compile(r"-?\d{1,15}(\.\d*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Where the pieces of a file lie in it, and how large it is.

    Attributes:
        pieces: (offset, size) of each, in order.
        nbytes: The file's size.
        map_bytes: How much of the member's data was the map itself.
    """

    pieces: Sequence[tuple[int, int]]
    nbytes: int
    map_bytes: int = 0

    def check(self, name: str, stored_bytes: int) -> None:
        """Raises where the pieces are not those that are stored."""
        place = 0
        for offset, nbytes in self.pieces:
            if offset < place or nbytes < 0:
                raise ArchiveCorruptError.of(name, "is a sparse file whose pieces overlap")
            place = offset + nbytes
        if place > self.nbytes or sum(n for _, n in self.pieces) != stored_bytes - self.map_bytes:
            raise ArchiveCorruptError.of(
                name, "is a sparse file whose pieces are not those that follow"
            )


def of_gnu(block: bytes, more: Callable[[], bytes], name: str) -> SparseMap:
    """Reads the map in GNU's own header, and in the blocks behind it.

    Args:
        block: The header.
        more: Returns the next block.
        name: The member, for messages.
    """
    pieces = list(_entries(block[_MAP_AT:], _IN_HEADER, name))
    nbytes = _map_number(block[_SIZE_AT : _SIZE_AT + _NUMBER_BYTES], name)
    goes_on = bool(block[_SIZE_AT - 1])
    while goes_on:
        block = more()
        pieces += _entries(block, _IN_BLOCK, name)
        goes_on = bool(block[_MAP_GOES_ON_AT])
        if len(pieces) > _PIECES_MAX:
            raise ArchiveCorruptError.of(name, "is a sparse file of too many pieces")
    return SparseMap(pieces, nbytes)


def of_pax(
    records: Sequence[tuple[str, str]], read: Callable[[int], bytes], name: str
) -> SparseMap:
    """Reads the map in a pax header's records, or at the head of the data that they announce.

    Args:
        records: Every record in order: in the oldest form, keys come again and again.
        read: Returns so many bytes of the member's data.
        name: The member, for messages.
    """
    facts = dict(records)
    try:
        nbytes = int(facts.get("GNU.sparse.realsize") or facts["GNU.sparse.size"])
        if facts.get("GNU.sparse.major") == "1":
            numbers, map_bytes = _head_of_data(read)
        elif "GNU.sparse.map" in facts:
            text = facts["GNU.sparse.map"]
            numbers, map_bytes = [int(n) for n in text.split(",") if n], 0
        else:
            keys = ("GNU.sparse.offset", "GNU.sparse.numbytes")
            numbers, map_bytes = [int(value) for key, value in records if key in keys], 0
    except (KeyError, ValueError) as error:
        raise ArchiveCorruptError.of(name, "is a sparse file whose map cannot be read") from error
    return SparseMap(list(zip(numbers[::2], numbers[1::2], strict=False)), nbytes, map_bytes)


def filled(spec: SparseMap, stored: Callable[[int], Iterator[memoryview[Any]]]) -> Iterator[Any]:
    """Yields a sparse file's content, zeros and all.

    Args:
        spec: Its map.
        stored: Yields so many of the stored bytes.
    """
    place = 0
    for offset, nbytes in (*spec.pieces, (spec.nbytes, 0)):
        while place < offset:
            zeros = memoryview(_ZEROS)[: offset - place]
            yield zeros
            place += len(zeros)
        yield from stored(nbytes)
        place += nbytes


def _head_of_data(read: Callable[[int], bytes]) -> tuple[list[int], int]:
    """Returns the numbers that stand before the data, each on a line, and their bytes."""
    text, wanted = b"", 1
    while text.count(b"\n") < wanted:
        text += read(BLOCK_BYTES)
        if wanted == 1 and b"\n" in text:
            count = int(text.partition(b"\n")[0])
            if not 0 <= count <= _PIECES_MAX:
                raise ValueError(count)
            wanted = 1 + 2 * count
        if len(text) > BLOCK_BYTES * (2 + _PIECES_MAX // 8):
            raise ValueError(len(text))
    return [int(line) for line in text.split(b"\n")[1:wanted]], len(text)


def _entries(data: bytes, count: int, name: str) -> Iterator[tuple[int, int]]:
    for at in range(0, count * _ENTRY_BYTES, _ENTRY_BYTES):
        entry = data[at : at + _ENTRY_BYTES]
        if not entry[0]:
            return
        yield _map_number(entry[:_NUMBER_BYTES], name), _map_number(entry[_NUMBER_BYTES:], name)


def _map_number(digits: bytes, name: str) -> int:
    if digits[0] & _BASE256:
        return int.from_bytes(digits[1:], "big")
    text = digits.partition(b"\0")[0].strip(b" ")
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise ArchiveCorruptError.of(name, "is a sparse file whose map cannot be read") from error


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
    DEVICE = enum.auto()
    SPARSE = enum.auto()
    CONTINUED = enum.auto()
    UNKNOWN = enum.auto()


_TYPES = {
    b"0": TarType.FILE,
    b"\0": TarType.FILE,
    b"7": TarType.FILE,
    b"1": TarType.HARD_LINK,
    b"2": TarType.SYMLINK,
    b"5": TarType.FOLDER,
    b"D": TarType.FOLDER,
    b"3": TarType.DEVICE,
    b"4": TarType.DEVICE,
    b"6": TarType.DEVICE,
    b"S": TarType.SPARSE,
    b"x": TarType.PAX,
    b"X": TarType.PAX,
    b"g": TarType.PAX_GLOBAL,
    b"L": TarType.LONG_NAME,
    b"K": TarType.LONG_LINK,
    b"V": TarType.LABEL,
    b"M": TarType.CONTINUED,
}
# A folder that GNU tar writes for increments, with the names in it as data.
_DUMPED_FOLDER = b"D"
_WITHOUT_DATA = frozenset({TarType.SYMLINK, TarType.DEVICE})
_PERMISSIONS = 0o7777
_ORDINARY_MODE = 0o644


@dataclass(slots=True)
class TarHeader:
    """One header as it stands; what its fields mean may depend on the headers before it."""

    kind: TarType
    kind_byte: bytes
    name: bytes
    link: bytes
    size: bytes
    mode: bytes
    goes_on: bool
    changed: bytes
    block: bytes

    @property
    def nbytes(self) -> int:
        """The size of the data that follows it.

        Raises:
            ArchiveCorruptError: It is no number.
        """
        return _number(self.size, self.name)


@dataclass(frozen=True, slots=True)
class Extended:
    """What the headers before a member say of it."""

    name: str | None = None
    link: str | None = None
    nbytes: int | None = None
    sparse: tuple[tuple[str, str], ...] = ()
    time_s: float | None = None

    def with_pax(self, pairs: Sequence[tuple[str, str]]) -> Extended:
        """Returns this with the records of a pax header added; an empty one takes back another."""
        records = dict(pairs)
        sparse = tuple(pair for pair in pairs if pair[0].startswith("GNU.sparse"))
        changes: dict[str, Any] = {"sparse": (*self.sparse, *sparse)}
        if _DECIMAL.fullmatch(records.get("mtime", "")):
            changes["time_s"] = float(records["mtime"])
        if "path" in records:
            changes["name"] = records["path"] or None
        if "GNU.sparse.name" in records:
            changes["name"] = records["GNU.sparse.name"]
        if "linkpath" in records:
            changes["link"] = records["linkpath"] or None
        if records.get("size") == "":
            changes["nbytes"] = None
        elif "size" in records:
            if not (records["size"].isascii() and records["size"].isdecimal()):
                raise ArchiveCorruptError.of(
                    records.get("path", ""), "has a size that is no number"
                )
            changes["nbytes"] = int(records["size"][:20])
        return replace(self, **changes)


@dataclass(slots=True)
class TarMember:
    """A member with all its headers put together; ``nbytes`` is the size of the data behind it.

    ``maybe_nbytes`` is the size that a hard link declares: only pax writes its data again.
    """

    kind: TarType
    name: str
    link: str
    nbytes: int
    mode: int
    maybe_nbytes: int = 0
    goes_on: bool = False
    time_s: float = math.nan
    block: bytes = b""
    sparse: tuple[tuple[str, str], ...] = ()


def read_header(block: bytes) -> TarHeader:
    """Parses a header block.

    Raises:
        ArchiveCorruptError: Its checksum is wrong.
    """
    name, mode, size, changed, checksum, kind_byte, link, magic, prefix = _HEADER.unpack(block)
    name, link = _text(name), _text(link)
    if magic == _POSIX_MAGIC and (head := _text(prefix)):
        name = head + b"/" + name
    # Adler-32's lower half is one more than the sum of so few bytes.
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    total += _CHECKSUM_SPACES - sum(checksum)
    if _number(checksum, name) != total and not _signed_sum(block, checksum, name):
        raise ArchiveCorruptError.of(_shown(name), "has a header with a wrong checksum")
    kind = _TYPES.get(kind_byte, TarType.UNKNOWN)
    goes_on = bool(block[_GOES_ON_AT])
    return TarHeader(kind, kind_byte, name, link, size, mode, goes_on, changed, block)


def is_header(block: bytes) -> bool:
    """Whether a block can be a header."""
    try:
        read_header(block)
    except ArchiveCorruptError:
        return False
    return True


def merged(header: TarHeader, extended: Extended, names: NameReader) -> TarMember:
    """Returns a member's header with what came before it."""
    name = names.text(header.name) if extended.name is None else extended.name
    link = extended.link
    if link is None:
        link = names.text(header.link) if header.link else ""
    kind, nbytes, maybe_nbytes = header.kind, 0, 0
    if kind is TarType.FOLDER and header.kind_byte != _DUMPED_FOLDER:
        pass
    elif kind is TarType.HARD_LINK:
        maybe_nbytes = extended.nbytes or max(0, _parsed(header.size) or 0)
    elif kind not in _WITHOUT_DATA:
        nbytes = header.nbytes if extended.nbytes is None else extended.nbytes
    if kind is TarType.FILE and name.endswith("/") and (extended.name is None or not nbytes):
        # So wrote the oldest programs; a long name's first hundred bytes may end anywhere.
        kind = TarType.FOLDER
    if extended.sparse:
        kind = TarType.SPARSE
    mode = _parsed(header.mode)
    mode = _ORDINARY_MODE if mode is None or mode < 0 else mode & _PERMISSIONS
    time_s = extended.time_s
    if time_s is None:
        time_s = float(_parsed(header.changed) or math.nan)
    member = TarMember(kind, name, link, nbytes, mode, maybe_nbytes, header.goes_on, time_s)
    member.block, member.sparse = header.block, extended.sparse
    return member


def check_kind(member: TarMember) -> None:
    """Raises where a member is of a kind that is not unpacked.

    Raises:
        ArchiveUnsafeError: It is a device or a pipe.
        ArchiveUnsupportedError: It is a part of a series.
    """
    if member.kind is TarType.DEVICE:
        message = f"Member {member.name!r} is a device or a pipe."
        hint = 'Leave it out when you pack, or with members="!NAME".'
        raise ArchiveUnsafeError(message, member=member.name, hint=hint)
    if member.kind is TarType.CONTINUED:
        raise _continued(member.name)


def check_volume(records: Mapping[str, str]) -> None:
    """Raises where the records for all members say that the first goes on from another volume.

    The member itself looks whole there, with the size of what is left of it.

    Raises:
        ArchiveUnsupportedError: It is a part of a series.
    """
    if _VOLUME_BEGINS_WITH in records:
        raise _continued(records[_VOLUME_BEGINS_WITH])


NOTHING = Extended()


def long_text(data: bytes, names: NameReader) -> str:
    """Returns the name in GNU's header for long ones."""
    return names.text(_text(data))


def pax_records(data: bytes, names: NameReader) -> list[tuple[str, str]]:
    """Parses a pax header's records, each "length key=value" and a line end.

    They are in order, and some keys of sparse files come several times.

    Raises:
        ArchiveCorruptError: A record's length is not its length.
    """
    records: list[tuple[str, str]] = []
    unreadable = "has a pax header that cannot be read"
    place = 0
    while place < len(data) and data[place]:
        space = data.find(b" ", place, place + 20)
        digits = data[place:space] if space > 0 else b""
        if not digits.isdigit():
            raise ArchiveCorruptError.of(_UNNAMED, unreadable)
        end = place + int(digits)
        record = data[space + 1 : end]
        if end <= space or end > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise ArchiveCorruptError.of(_UNNAMED, unreadable)
        key, _, value = record[:-1].partition(b"=")
        name = key.decode("utf-8", "replace")
        is_name = "path" in name
        text = names.text(value, says_utf8=True) if is_name else value.decode("utf-8", "replace")
        records.append((name, text))
        place = end
    return records


def _text(field_bytes: bytes) -> bytes:
    return field_bytes.partition(b"\0")[0]


def _number(digits: bytes, name: bytes) -> int:
    number = _parsed(digits)
    if number is None:
        raise ArchiveCorruptError.of(_shown(name), "has a number in its header that is none")
    if number < 0:
        raise ArchiveCorruptError.of(_shown(name), "has a negative number in its header")
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


def _continued(name: str) -> ArchiveUnsupportedError:
    message = f"Member {name!r} goes on from a volume before, as tar -M writes them."
    hint = "Unpack all volumes with `tar -xMf FIRST -f SECOND ...`, and pass the folder."
    return ArchiveUnsupportedError(message, member=name, hint=hint)
