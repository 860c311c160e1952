"""A zip's directory in columns: every member, checked, without reading any of their data."""

from __future__ import annotations

import math
import operator
import re
import stat
import struct
import time
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from colabkit.datasets.archives.members import Column
from colabkit.datasets.archives.names import FALLBACK, decoded, encoding_of
from colabkit.datasets.archives.zip_format import CENTRAL_MAGIC, ZipEnd
from colabkit.errors import ArchiveCorruptError

# Magic, host, flags, method, CRC, sizes, three lengths, part, attributes, offset.
_FIXED = struct.Struct("<4sxB2x2H4x3L4H2x2L")
_STAMP_AT = 12
_UNIX_TIME, _OLDER_UNIX_TIME = 0x5455, 0x5855
_CHUNK = 1 << 16
_FULL = 0xFFFFFFFF
# Unix and macOS: only they note a mode.
_WITH_MODES = frozenset({3, 19})
_SLASH = ord("/")
_DOS_FOLDER = 0x10
# DOS, OS/2, NTFS, VFAT: only there a backslash ends a folder's name.
_WINDOWS = frozenset({0, 6, 10, 11, 14})
_UTF8_FLAG = 0x800
_ZIP64_EXTRA, _UNICODE_PATH_EXTRA = 0x0001, 0x7075
_UNICODE_PATH = re.compile(rb"\x75\x70..\x01", re.DOTALL)
ENTRY_BYTES = _FIXED.size


@dataclass(slots=True)
class ZipEntries:
    """Every entry of a zip's directory, in columns, in the directory's order.

    ``raw`` is the directory itself and ``starts`` where each entry begins in it.
    """

    raw: bytes
    starts: Column[int]
    made_on: Column[int]
    flags: Column[int]
    methods: Column[int]
    crcs: Column[int]
    packed_bytes: Column[int]
    nbytes: Column[int]
    name_bytes: Column[int]
    extra_bytes: Column[int]
    disks: Column[int]
    offsets: Column[int]
    modes: Column[int]

    def __len__(self) -> int:
        return len(self.starts)

    def raw_name(self, index: int) -> bytes:
        """Returns a name as it is stored."""
        begin = self.starts[index] + ENTRY_BYTES
        return self.raw[begin : begin + self.name_bytes[index]]

    def lines(self, rows: Iterable[int]) -> bytes:
        """Returns the names of some rows as they are stored, each with a line end behind it."""
        return b"\n".join([*map(self.raw_name, rows), b""])

    def likely_encoding(self) -> str:
        """Returns the encoding that the names were likely written in that do not tell theirs."""
        return encoding_of(self._unsaid_names())

    def names(self, rows: Iterable[int], encoding: str, *, is_given: bool) -> Iterator[str]:
        """Yields the names of some rows as text, in an encoding where they do not tell theirs."""
        renamed = self.renamed()
        for row in rows:
            name = self.raw_name(row)
            is_plain = name.isascii() and row not in renamed
            text = name.decode("ascii") if is_plain else self._text(row, name, encoding, is_given)
            yield _as_on_unix(text) if self.made_on[row] in _WINDOWS and "\\" in text else text

    def renamed(self) -> set[int]:
        """Returns the entries that have another name in UTF-8, though theirs may be ASCII.

        Where WinRAR's code page lacks a character, the plain name has "_" for it.
        """
        found: set[int] = set()
        for match in _UNICODE_PATH.finditer(self.raw):
            row = bisect_right(self.starts, match.start()) - 1
            if row >= 0 and _unicode_path(self._extra(row), self.raw_name(row)) is not None:
                found.add(row)
        return found

    def times(self, rows: Iterable[int]) -> Column[float]:
        """Returns when members were changed, in seconds since 1970; NaN where nothing tells.

        Info-ZIP notes the time everywhere the same; else it is that of a clock on a wall.
        """
        raw = self.raw
        walls: dict[bytes, float] = {}
        times: Column[float] = array("d")
        for row in rows:
            if self.extra_bytes[row] and (time_s := self._unix_time(row)) is not None:
                times.append(time_s)
                continue
            begin = self.starts[row] + _STAMP_AT
            stamp = raw[begin : begin + 4]
            if (wall := walls.get(stamp)) is None:
                wall = walls[stamp] = _wall_time(int.from_bytes(stamp, "little"))
            times.append(wall)
        return times

    def _unix_time(self, row: int) -> int | None:
        older = None
        for kind, data in self.extras(row):
            if kind == _UNIX_TIME and len(data) >= 5 and data[0] & 1:
                return int.from_bytes(data[1:5], "little", signed=True)
            if kind == _OLDER_UNIX_TIME and len(data) >= 8:
                older = int.from_bytes(data[4:8], "little", signed=True)
        return older

    def ends_with_slash(self, row: int) -> bool:
        """Whether a name ends as those of folders do."""
        nbytes = self.name_bytes[row]
        return bool(nbytes) and self.raw[self.starts[row] + ENTRY_BYTES + nbytes - 1] == _SLASH

    def _unsaid_names(self) -> Iterable[bytes]:
        """Yields the names beyond ASCII whose encoding the zip does not tell."""
        for row, flags in enumerate(self.flags):
            if not flags & _UTF8_FLAG and not (name := self.raw_name(row)).isascii():
                yield name

    def _text(self, index: int, name: bytes, encoding: str, is_given: bool) -> str:
        if self.flags[index] & _UTF8_FLAG:
            return decoded(name, "utf-8")
        if (text := _unicode_path(self._extra(index), name)) is not None:
            return text
        return decoded(name, encoding, is_given=is_given)

    def extras(self, index: int) -> Iterator[tuple[int, bytes]]:
        """Yields an entry's extra fields: each its kind and its data."""
        return _extras(self._extra(index))

    def _extra(self, index: int) -> bytes:
        begin = self.starts[index] + ENTRY_BYTES + self.name_bytes[index]
        return self.raw[begin : begin + self.extra_bytes[index]]

    def widen(self) -> None:
        """Replaces the sizes and offsets that say "see the 64-bit extra field"."""
        columns = (self.nbytes, self.packed_bytes, self.offsets)
        full = {row for column in columns for row, value in enumerate(column) if value == _FULL}
        for index in sorted(full):
            extra = next((e for i, e in _extras(self._extra(index)) if i == _ZIP64_EXTRA), b"")
            for column in columns:
                if column[index] == _FULL:
                    if len(extra) < 8:
                        raise _corrupt(self.raw_name(index), "lacks its 64-bit sizes")
                    value, extra = int.from_bytes(extra[:8], "little"), extra[8:]
                    if value > 1 << 62:
                        raise _corrupt(self.raw_name(index), f"claims {value:,} bytes")
                    column[index] = value


def read_entries(raw: bytes, end: ZipEnd, *, archive: str, most: int) -> ZipEntries:
    """Parses a zip's directory, up to ``most`` members and one.

    Raises:
        ArchiveCorruptError: It is not what the end of the zip says.
    """
    entries = _walked(raw, most)
    if not end.lists(len(entries)) and len(entries) <= most:
        message = (
            f"{archive}'s directory lists {len(entries):,} members where its end says "
            f"{end.n_entries:,}."
        )
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    entries.widen()
    if end.disks:
        last = len(end.disks) - 1
        begins = (end.disks[min(disk, last)] for disk in entries.disks)
        entries.offsets = array("q", map(operator.add, entries.offsets, begins))
    if end.shift_bytes:
        entries.offsets = array("q", (offset + end.shift_bytes for offset in entries.offsets))
    if end.wraps:
        entries.offsets = array("q", _unwrapped(entries.offsets))
    return entries


def _unwrapped(offsets: Iterable[int]) -> Iterator[int]:
    """Yields offsets that begin anew after 4 GiB as they are."""
    before = turns = 0
    for offset in offsets:
        turns += offset < before
        before = offset
        yield offset + (turns << 32)


def _walked(raw: bytes, most: int) -> ZipEntries:
    """Walks the entries, which vary in length; takes up to ``most`` and one."""
    entries = ZipEntries(raw, *(array(code) for code in "qBHHIqqHHHqH"))
    rows: list[list[int]] = []
    place, limit, unpack = 0, len(raw) - ENTRY_BYTES, _FIXED.unpack_from
    while place <= limit and len(entries) <= most:
        magic, *row = unpack(raw, place)
        end = place + ENTRY_BYTES + sum(row[6:9])
        if magic != CENTRAL_MAGIC or end > len(raw):
            break
        entries.starts.append(place)
        rows.append(row)
        place = end
        if len(rows) == _CHUNK:
            _add(rows, entries)
            rows.clear()
    _add(rows, entries)
    return entries


def _add(rows: Sequence[Sequence[int]], entries: ZipEntries) -> None:
    if not rows:
        return
    made_on, flags, methods, crcs, packed, sizes, *rest = zip(*rows, strict=True)
    name_bytes, extra_bytes, _, disks, attributes, offsets = rest
    entries.made_on.extend(made_on)
    entries.flags.extend(flags)
    entries.methods.extend(methods)
    entries.crcs.extend(crcs)
    entries.packed_bytes.extend(packed)
    entries.nbytes.extend(sizes)
    entries.name_bytes.extend(name_bytes)
    entries.extra_bytes.extend(extra_bytes)
    entries.disks.extend(disks)
    entries.offsets.extend(offsets)
    entries.modes.extend(map(_mode, made_on, attributes, sizes))


def _mode(made_on: int, attributes: int, nbytes: int) -> int:
    mode = attributes >> 16 if made_on in _WITH_MODES else 0
    # Some programs for Windows end a folder's name without a slash.
    is_folder = not mode and attributes & _DOS_FOLDER and not nbytes
    return stat.S_IFDIR if is_folder else mode


def _wall_time(stamp: int) -> float:
    """Returns what a clock on this machine's wall showed as a time, NaN where none could."""
    clock, date = stamp & 0xFFFF, stamp >> 16
    day = (1980 + (date >> 9), (date >> 5) & 15, date & 31)
    try:
        return (
            time.mktime((*day, clock >> 11, (clock >> 5) & 63, 2 * (clock & 31), 0, 0, -1))
            if day[1] and day[2]
            else math.nan
        )
    except (ValueError, OverflowError):
        return math.nan


def _extras(extra: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, place)
        yield kind, extra[place + 4 : place + 4 + size]
        place += 4 + size


def _unicode_path(extra: bytes, name: bytes) -> str | None:
    """Returns Info-ZIP's name in UTF-8, where the entry has one that belongs to its name."""
    for kind, data in _extras(extra):
        if kind == _UNICODE_PATH_EXTRA and len(data) > 5 and data[0] == 1:
            if int.from_bytes(data[1:5], "little") != zlib.crc32(name):
                return None
            try:
                return data[5:].decode()
            except UnicodeDecodeError:
                return None
    return None


def _as_on_unix(name: str) -> str:
    """Returns a name with slashes, where a program of Windows' wrote it with its own."""
    name = name.replace("\\", "/")
    return name[2:] if re.match("[A-Za-z]:/", name) else name


def is_folder(name: str, mode: int) -> bool:
    """Whether an entry is a folder."""
    return name.endswith("/") or stat.S_ISDIR(mode)


def _corrupt(name: bytes, why: str) -> ArchiveCorruptError:
    return ArchiveCorruptError.of(name.decode(FALLBACK), why)
