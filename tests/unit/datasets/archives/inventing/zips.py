"""Invented zips: hosts, extra fields, descriptors, what stands around a zip."""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections.abc import Callable, Sequence

from tests.unit.datasets.archives.inventing.members import (
    PLAIN,
    Invented,
    Member,
    file_of,
    members_of,
    told,
)
from tests.unit.datasets.building import DEFLATE, STORED, ZipMember, raw_zip

_UTF8 = 0x800


def _extra(kind: int, data: bytes) -> bytes:
    return struct.pack("<2H", kind, len(data)) + data


def _unicode_path(name: bytes) -> bytes:
    return _extra(0x7075, b"\1" + zlib.crc32(name).to_bytes(4, "little") + "uni/ü.txt".encode())


_EXTRAS: dict[str, Callable[[Member], bytes]] = {
    "none": lambda _: b"",
    "UT": lambda m: _extra(0x5455, struct.pack("<BL", 1, m.time_s)),
    "UT with access": lambda m: _extra(0x5455, struct.pack("<B2L", 3, m.time_s, m.time_s)),
    "UX": lambda m: _extra(0x5855, struct.pack("<2L", m.time_s, m.time_s)),
    "ux": lambda _: _extra(0x7875, b"\1\4\0\0\0\0\4\0\0\0\0"),
    "NTFS": lambda m: _extra(
        0x000A, bytes(4) + struct.pack("<2H3Q", 1, 24, *[(m.time_s + 11644473600) * 10**7] * 3)
    ),
    "unknown": lambda _: _extra(0xCAFE, b"java"),
    "padding": lambda _: b"\0" * 3,
    "cut": lambda _: struct.pack("<2H", 0x9999, 40) + b"abc",
    "zip64 for nothing": lambda m: _extra(1, struct.pack("<2Q", len(m.data), len(m.data))),
    "unicode path": lambda m: _unicode_path(m.name),
    "unicode path of another": lambda _: _unicode_path(b"other"),
}


def _dos_time(time_s: int) -> int:
    t = time.localtime(time_s)
    date = (t.tm_year - 1980) << 9 | t.tm_mon << 5 | t.tm_mday
    return date << 16 | t.tm_hour << 11 | t.tm_min << 5 | t.tm_sec // 2


def invented_zip(number: int, draw: random.Random) -> Invented:
    out = Invented(number, ".zip")
    host = draw.choice((0, 3, 3, 3, 10, 11))
    odd = draw.random() < 0.6
    built, times = [], []
    around = draw.choice(_AROUND) if odd else ""
    # What stands in front makes all but unzip give up, which has habits of its own.
    members = [file_of(draw, name) for name in PLAIN] if "front" in around else members_of(draw)
    for member in members:
        if member.kind == "hard" or (b"\\" in member.name and host != 3):
            continue
        name, data = member.name, member.data
        flags = _UTF8 if not name.isascii() and draw.random() < 0.8 else 0
        method = draw.choice((STORED, DEFLATE, DEFLATE)) if data else STORED
        extra = draw.choice(list(_EXTRAS)) if odd and draw.random() < 0.4 else "none"
        local = draw.choice(list(_EXTRAS)) if odd and draw.random() < 0.2 else extra
        descriptor = ""
        # unzip takes them for a bomb in a zip that is shifted or has a 64-bit end.
        if odd and around in _WITH_DESCRIPTORS and draw.random() < 0.2:
            descriptor = draw.choice(("plain", "marked", "wide"))
        kind = {"file": 0o100000, "folder": 0o040000, "symlink": 0o120000}[member.kind]
        if member.kind == "folder":
            name += b"" if name.endswith(b"/") else b"/"
        if member.kind == "symlink":
            data, method = member.link, STORED
        comment = b"a comment" if odd and draw.random() < 0.1 else b""
        dos = 0x10 if member.kind == "folder" else draw.choice((0, 0x20, 0x21))
        attributes = dos if host not in {3, 19} else (kind | member.mode) << 16 | dos
        built.append(
            ZipMember(
                *(name, data, method, 0, flags),
                extra=_EXTRAS[extra](member),
                local_extra=_EXTRAS[local](member),
                host=host,
                attributes=attributes,
                comment=comment,
                descriptor=descriptor,
            )
        )
        times.append(member.time_s)
        out.story.append(told(member, f"extra {extra}/{local}", descriptor, comment, hex(flags)))
    archive = _with_dos_times(raw_zip(built), times)
    out.story.append(f"host {host}")
    out.data = _around_a_zip(archive, around, draw)
    out.story.append(around)
    return out


def _with_dos_times(archive: bytes, times: Sequence[int]) -> bytes:
    data = bytearray(archive)
    end = data.rindex(b"PK\5\6")
    place = struct.unpack_from("<L", data, end + 16)[0]
    for time_s in times:
        local = struct.unpack_from("<L", data, place + 42)[0]
        for at in (place + 12, local + 10):
            struct.pack_into("<L", data, at, _dos_time(time_s))
        place += 46 + sum(struct.unpack_from("<3H", data, place + 28))
    return bytes(data)


_AROUND = ("", "", "in front", "in front, unshifted", "behind", "comment", "zip64 end", "newline")

_WITH_DESCRIPTORS = ("", "behind", "comment", "newline")


def _around_a_zip(archive: bytes, around: str, draw: random.Random) -> bytes:
    end = archive.rindex(b"PK\5\6")
    count, _, nbytes, offset = struct.unpack_from("<2H2L", archive, end + 8)
    front = b"#!/bin/sh\nexit\n" * 9
    match around:
        case "in front":
            return front + archive
        case "in front, unshifted":
            data = bytearray(front + archive)
            place = offset + len(front)
            for _ in range(count):
                (at,) = struct.unpack_from("<L", data, place + 42)
                struct.pack_into("<L", data, place + 42, at + len(front))
                place += 46 + sum(struct.unpack_from("<3H", data, place + 28))
            struct.pack_into("<L", data, end + len(front) + 16, offset + len(front))
            return bytes(data)
        case "behind":
            return archive + bytes(draw.choice((1, 100, 60_000)))
        case "newline":
            return archive + b"\r\n"
        case "comment":
            text = b"some words PK\1\2 and more " * draw.choice((1, 40))
            return archive[:-2] + len(text).to_bytes(2, "little") + text
        case "zip64 end":
            record = struct.pack(
                "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, nbytes, offset
            )
            told = draw.choice(((count, nbytes, offset), (0xFFFF, 2**32 - 1, 2**32 - 1)))
            last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, told[0], *told, 0)
            return archive[:end] + record + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1) + last
        case _:
            return archive
