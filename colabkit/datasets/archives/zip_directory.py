"""A zip's directory in columns: every member, checked, without reading any of their data."""

from __future__ import annotations

import math
import re
import stat
import struct
import time
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from colabkit.datasets.archives.members import Column, are_in
from colabkit.datasets.archives.names import FALLBACK, decoded, encoding_of
from colabkit.datasets.archives.zip_format import CENTRAL_MAGIC, ZipEnd
from colabkit.errors import ArchiveCorruptError

_FIXED = np.dtype(
    [
        ("magic", "<u4"),
        ("made_with", "u1"),
        ("made_on", "u1"),
        ("needs", "<u2"),
        ("flags", "<u2"),
        ("method", "<u2"),
        ("time", "<u2"),
        ("date", "<u2"),
        ("crc", "<u4"),
        ("packed_bytes", "<u4"),
        ("nbytes", "<u4"),
        ("name_bytes", "<u2"),
        ("extra_bytes", "<u2"),
        ("comment_bytes", "<u2"),
        ("disk", "<u2"),
        ("inner_attributes", "<u2"),
        ("attributes", "<u4"),
        ("offset", "<u4"),
    ]
)
_LENGTHS = struct.Struct("<3H")
_LENGTHS_AT = 28
_STAMP_AT = 12
_UNIX_TIME_BYTES = 9
_CHUNK = 1 << 16
_FULL = 0xFFFFFFFF
_UNIX, _MACOS = 3, 19
_DOS_FOLDER = 0x10
# DOS, OS/2, NTFS, VFAT: only there a backslash ends a folder's name.
_WINDOWS = frozenset({0, 6, 10, 11, 14})
_UTF8_FLAG = 0x800
_ZIP64_EXTRA, _UNICODE_PATH_EXTRA = 0x0001, 0x7075
_UNICODE_PATH = re.compile(rb"\x75\x70..\x01", re.DOTALL)
ENTRY_BYTES = _FIXED.itemsize


@dataclass(slots=True)
class ZipEntries:
    """Every entry of a zip's directory, in columns, in the directory's order.

    ``raw`` is the directory itself and ``starts`` where each entry begins in it.
    """

    raw: bytes
    starts: Column
    name_bytes: Column
    extra_bytes: Column
    flags: Column
    methods: Column
    crcs: Column
    packed_bytes: Column
    nbytes: Column
    offsets: Column
    modes: Column
    made_on: Column

    def __len__(self) -> int:
        return len(self.starts)

    def raw_name(self, index: int) -> bytes:
        """Returns a name as it is stored."""
        begin = int(self.starts[index]) + ENTRY_BYTES
        return self.raw[begin : begin + int(self.name_bytes[index])]

    def raw_names(self) -> Iterator[bytes]:
        """Yields every name as it is stored."""
        raw, fixed = self.raw, ENTRY_BYTES
        for chunk in range(0, len(self), _CHUNK):
            begins = (self.starts[chunk : chunk + _CHUNK] + fixed).tolist()
            sizes = self.name_bytes[chunk : chunk + _CHUNK].tolist()
            for begin, size in zip(begins, sizes, strict=True):
                yield raw[begin : begin + size]

    def lines(self, rows: Column) -> bytes:
        """Returns the names of some rows as they are stored, each with a line end behind it."""
        raw = self.raw
        begins = self.starts[rows] + ENTRY_BYTES
        ends = begins + self.name_bytes[rows]
        pairs = zip(begins.tolist(), ends.tolist(), strict=True)
        return b"\n".join([*(raw[begin:end] for begin, end in pairs), b""])

    def likely_encoding(self) -> str:
        """Returns the encoding that the names were likely written in that do not tell theirs."""
        return encoding_of(self._unsaid_names())

    def names(self, rows: Column, encoding: str, *, is_given: bool) -> Iterator[str]:
        """Yields the names of some rows as text, in an encoding where they do not tell theirs."""
        renamed = self.are_renamed()
        for row in rows.tolist():
            name = self.raw_name(row)
            is_plain = name.isascii() and not renamed[row]
            text = name.decode("ascii") if is_plain else self._text(row, name, encoding, is_given)
            yield _as_on_unix(text) if self.made_on[row] in _WINDOWS and "\\" in text else text

    def are_renamed(self) -> Column:
        """Returns which entries have another name in UTF-8, though theirs may be ASCII.

        Where WinRAR's code page lacks a character, the plain name has "_" for it.
        """
        found = np.zeros(len(self), np.bool_)
        for match in _UNICODE_PATH.finditer(self.raw):
            row = int(np.searchsorted(self.starts, match.start(), "right")) - 1
            if row >= 0 and _unicode_path(self._extra(row), self.raw_name(row)) is not None:
                found[row] = True
        return found

    def times(self, rows: Column) -> Column:
        """Returns when members were changed, in seconds since 1970; NaN where nothing tells.

        Info-ZIP notes the time everywhere the same; else it is that of a clock on a wall.
        """
        every = np.frombuffer(self.raw, np.uint8)
        starts = self.starts[rows]
        stamps = every[starts[:, None] + np.arange(_STAMP_AT, _STAMP_AT + 4)].view("<u4")[:, 0]
        ordered = np.sort(stamps)
        walls = ordered[np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]]
        times: Column = np.array([_wall_time(wall) for wall in walls.tolist()], np.float64)
        times = times[np.searchsorted(walls, stamps)]
        begins = starts + ENTRY_BYTES + self.name_bytes[rows]
        told = self.extra_bytes[rows] >= _UNIX_TIME_BYTES
        where = np.where(told, begins, 0)[:, None] + np.arange(_UNIX_TIME_BYTES)
        fields = every[where]
        told &= (fields[:, 0] == ord("U")) & (fields[:, 1] == ord("T")) & (fields[:, 4] & 1 == 1)
        unix = np.ascontiguousarray(fields[:, 5:9]).view("<i4")[:, 0]
        return np.where(told, unix, times)

    def ends_with_slash(self) -> Column:
        """Returns which names end as those of folders do."""
        last = self.starts + (ENTRY_BYTES - 1) + self.name_bytes
        found: Column = (np.frombuffer(self.raw, np.uint8)[last] == ord("/")) & (
            self.name_bytes > 0
        )
        return found

    def _unsaid_names(self) -> Iterable[bytes]:
        """Yields the names beyond ASCII whose encoding the zip does not tell."""
        for index, name in enumerate(self.raw_names()):
            if not name.isascii() and not int(self.flags[index]) & _UTF8_FLAG:
                yield name

    def _text(self, index: int, name: bytes, encoding: str, is_given: bool) -> str:
        if (text := _unicode_path(self._extra(index), name)) is not None:
            return text
        if int(self.flags[index]) & _UTF8_FLAG:
            return decoded(name, "utf-8")
        return decoded(name, encoding, is_given=is_given)

    def extras(self, index: int) -> Iterator[tuple[int, bytes]]:
        """Yields an entry's extra fields: each its kind and its data."""
        return _extras(self._extra(index))

    def _extra(self, index: int) -> bytes:
        begin = int(self.starts[index]) + ENTRY_BYTES + int(self.name_bytes[index])
        return self.raw[begin : begin + int(self.extra_bytes[index])]

    def widen(self) -> None:
        """Replaces the sizes and offsets that say "see the 64-bit extra field"."""
        full = (self.packed_bytes == _FULL) | (self.nbytes == _FULL) | (self.offsets == _FULL)
        for index in np.flatnonzero(full).tolist():
            extra = next((e for i, e in _extras(self._extra(index)) if i == _ZIP64_EXTRA), b"")
            for column in (self.nbytes, self.packed_bytes, self.offsets):
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
    starts = _starts(raw, most)
    if not end.lists(len(starts)) and len(starts) <= most:
        message = (
            f"{archive}'s directory lists {len(starts):,} members where its end says "
            f"{end.n_entries:,}."
        )
        raise ArchiveCorruptError(message, hint="Upload or download it again.")
    columns = _columns(raw, starts)
    disk = columns.pop("disk")
    entries = ZipEntries(raw, starts, **columns)
    entries.widen()
    if end.disks:
        entries.offsets += np.array(end.disks)[np.minimum(disk, len(end.disks) - 1)]
    entries.offsets += end.shift_bytes
    if end.wraps:
        begins_anew = np.diff(entries.offsets, prepend=0) < 0
        entries.offsets += np.cumsum(begins_anew) << 32
    return entries


def _starts(raw: bytes, most: int) -> Column:
    """Walks the entries, which vary in length; returns where each begins."""
    starts = array("q")
    place, limit, unpack = 0, len(raw) - ENTRY_BYTES, _LENGTHS.unpack_from
    while place <= limit and raw.startswith(CENTRAL_MAGIC, place):
        starts.append(place)
        if len(starts) > most:
            break
        place += sum(unpack(raw, place + _LENGTHS_AT)) + ENTRY_BYTES
    if place > len(raw):
        starts.pop()
    return np.frombuffer(starts, np.int64) if starts else np.empty(0, np.int64)


def _columns(raw: bytes, starts: Column) -> dict[str, Column]:
    count = len(starts)
    columns: dict[str, Column] = {
        "name_bytes": np.empty(count, np.uint16),
        "extra_bytes": np.empty(count, np.uint16),
        "flags": np.empty(count, np.uint16),
        "methods": np.empty(count, np.uint16),
        "crcs": np.empty(count, np.uint32),
        "packed_bytes": np.empty(count, np.int64),
        "nbytes": np.empty(count, np.int64),
        "offsets": np.empty(count, np.int64),
        "modes": np.empty(count, np.uint16),
        "made_on": np.empty(count, np.uint8),
        "disk": np.empty(count, np.int64),
    }
    fields = {"methods": "method", "crcs": "crc", "offsets": "offset"}
    every = np.frombuffer(raw, np.uint8)
    for begin in range(0, count, _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        chunk = every[starts[rows, None] + np.arange(ENTRY_BYTES)].view(_FIXED)[:, 0]
        for name, column in columns.items():
            if name != "modes":
                column[rows] = chunk[fields.get(name, name)]
        unix = are_in(chunk["made_on"], (_UNIX, _MACOS))
        modes = np.where(unix, chunk["attributes"] >> 16, 0)
        # Some programs for Windows end a folder's name without a slash.
        is_folder = (modes == 0) & (chunk["attributes"] & _DOS_FOLDER != 0) & (chunk["nbytes"] == 0)
        columns["modes"][rows] = np.where(is_folder, stat.S_IFDIR, modes)
    return columns


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
