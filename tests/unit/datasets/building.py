"""Builds archives byte by byte, also such as no program writes, and unpacks them under guard."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from colabkit.datasets import Limits, UnpackedTable, open_source, plan_archive, unpack

STORED, DEFLATE = 0, 8
RAR_TIME_S = 1_234_567_890


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member; what is left None is told as it is, anything else is a lie."""

    name: bytes
    data: bytes = b""
    method: int = STORED
    mode: int = 0o100644
    flags: int = 0
    packed: bytes | None = None
    nbytes: int | None = None
    packed_bytes: int | None = None
    crc: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    host: int = 3
    attributes: int = 0
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    descriptor: str = ""


_DESCRIPTORS = {"plain": "<3L", "marked": "<4s3L", "wide": "<4sL2Q"}
"""What stands behind a member whose sizes were not known before."""


def deflated(data: bytes) -> bytes:
    """Returns a raw deflate stream."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def raw_zip(members: Sequence[ZipMember], *, n_entries: int | None = None) -> bytes:
    """Returns a zip."""
    body, directory = bytearray(), bytearray()
    for member in members:
        packed = member.packed
        if packed is None:
            packed = deflated(member.data) if member.method == DEFLATE else member.data
        nbytes = len(member.data) if member.nbytes is None else member.nbytes
        packed_bytes = len(packed) if member.packed_bytes is None else member.packed_bytes
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        offset = len(body) if member.offset is None else member.offset
        local = member.name if member.local_name is None else member.local_name
        flags = member.flags | (8 if member.descriptor else 0)
        facts = (flags, member.method, 0, 33, crc, packed_bytes, nbytes)
        told = (*facts[:4], 0, 0, 0) if member.descriptor else facts
        sizes = (len(local), len(member.local_extra))
        if member.offset is None:
            body += struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, *told, *sizes)
            body += local + member.local_extra + packed
        if member.descriptor:
            mark = () if member.descriptor == "plain" else (b"PK\x07\x08",)
            form = _DESCRIPTORS[member.descriptor]
            body += struct.pack(form, *mark, crc, len(packed), len(member.data))
        directory += struct.pack("<4s6H3L", b"PK\x01\x02", member.host << 8 | 20, 20, *facts)
        directory += struct.pack(
            "<5H2L",
            *(len(member.name), len(member.extra), len(member.comment), 0, 0),
            *(member.attributes or member.mode << 16, offset),
        )
        directory += member.name + member.extra + member.comment
    count = len(members) if n_entries is None else n_entries
    sizes = (count & 0xFFFF, count & 0xFFFF, len(directory), len(body))
    end = b""
    if count > 0xFFFF:
        end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, *sizes[2:])
        end += struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body) + len(directory), 1)
        sizes = (0xFFFF, 0xFFFF, *sizes[2:])
    return bytes(body + directory) + end + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *sizes, 0)


def stored_rar(
    files: dict[str, bytes],
    *,
    volume: int | None = None,
    more: bool = False,
    whole: bytes | None = None,
    links: Mapping[str, tuple[int, str]] | None = None,
) -> bytes:
    """Returns a rar (version 5) with its members stored, or one of several volumes.

    ``whole`` is the one member of which this volume holds a part; ``links`` are of a kind (1 a
    link, 4 a second name, 5 a copy) and what they lead to.
    """

    def number(value: int) -> bytes:
        out = b""
        while value > 0x7F:
            out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
        return out + bytes([value])

    def block(
        kind: int, flags: int, fields: bytes, data: bytes | None = None, extra: bytes = b""
    ) -> bytes:
        body = number(kind) + number(flags | (0 if data is None else 2) | bool(extra))
        body += number(len(extra)) if extra else b""
        body += (b"" if data is None else number(len(data))) + fields + extra
        body = number(len(body)) + body
        return zlib.crc32(body).to_bytes(4, "little") + body + (data or b"")

    head = number(0) if volume is None else number(3 if volume else 1)
    head += number(volume) if volume else b""
    out = b"Rar!\x1a\x07\x01\x00" + block(1, 0, head)
    for name, data in files.items():
        goes_on = whole is not None and more
        fields = number(6) + number(len(data if whole is None else whole)) + number(0o100644)
        fields += RAR_TIME_S.to_bytes(4, "little")
        checked = data if whole is None or goes_on else whole
        fields += zlib.crc32(checked).to_bytes(4, "little") + number(0) + number(1)
        flags = (0x10 if goes_on else 0) | (0x08 if whole is not None and volume else 0)
        out += block(2, flags, fields + number(len(name.encode())) + name.encode(), data)
    for name, (kind, target) in (links or {}).items():
        told = number(5) + number(kind) + number(0) + number(len(target.encode())) + target.encode()
        nbytes = 0 if kind == 1 else len(files[target])
        fields = number(2) + number(nbytes) + number(0o120777 if kind == 1 else 0o100644)
        fields += RAR_TIME_S.to_bytes(4, "little") + number(0) + number(1)
        fields += number(len(name.encode())) + name.encode()
        out += block(2, 0, fields, b"", number(len(told)) + told)
    return out + block(5, 0, number(int(more)))


def old_rar(name: str, part: bytes, *, volume: int, more: bool, whole: bytes) -> bytes:
    """Returns a volume of a rar as before version 5: a part of one stored member."""

    def block(kind: int, flags: int, fields: bytes) -> bytes:
        body = struct.pack("<B2H", kind, flags, 7 + len(fields)) + fields
        return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body

    out = b"Rar!\x1a\x07\x00" + block(0x73, 1 if volume else 0x101, bytes(6))
    crc = zlib.crc32(part if more else whole)
    fields = struct.pack("<2LB2L", len(part), len(whole), 3, crc, 0x50000000)
    fields += struct.pack("<2BHL", 20, 0x30, len(name), 0o100644) + name.encode()
    out += block(0x74, 0x8000 | (1 if volume else 0) | (2 if more else 0), fields) + part
    return out + block(0x7B, 0x4000 | int(more), b"")


def tar_header(
    name: bytes,
    nbytes: int = 0,
    kind: bytes = b"0",
    *,
    link: bytes = b"",
    mode: int = 0o644,
    size_field: bytes | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """Returns one header block."""
    block = bytearray(512)
    struct.pack_into(
        "100s8s8s8s12s8x8xc100s6s2s",
        block,
        0,
        name,
        b"%07o" % mode,
        b"0000000",
        b"0000000",
        size_field or b"%011o" % nbytes,
        kind,
        link,
        b"ustar\0",
        b"00",
    )
    # The format above has no room for the time, so the rest is placed by hand.
    block[124:136] = (size_field or b"%011o\0" % nbytes).ljust(12, b"\0")
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[157:257] = link.ljust(100, b"\0")
    block[257:265] = b"ustar\00000"
    block[265:] = bytes(512 - 265)
    block[148:156] = b" " * 8
    block[148:156] = checksum or b"%06o\0 " % sum(block)
    return bytes(block)


def tar_entry(name: bytes, data: bytes = b"", kind: bytes = b"0", **options: object) -> bytes:
    """Returns a header with its data, padded."""
    return tar_header(name, len(data), kind, **options) + padded(data)  # type: ignore[arg-type]


def padded(data: bytes) -> bytes:
    """Returns data up to the end of its last block."""
    return data + bytes(-len(data) % 512)


def raw_tar(*entries: bytes) -> bytes:
    """Returns a tar with its end mark."""
    return b"".join(entries) + bytes(1024)


def pax(kind: bytes = b"x", /, **records: str) -> bytes:
    """Returns a pax header with these records, of kind ``b"g"`` for all members behind it."""
    data = b""
    for key, value in records.items():
        record = f" {key}={value}\n".encode()
        size = len(record) + 1
        while len(str(size)) + len(record) != size:
            size += 1
        data += b"%d" % size + record
    return tar_entry(b"pax", data, kind)


def attempt(
    archive: bytes | Path, folder: Path, *, limits: Limits | None = None, **options: object
) -> tuple[UnpackedTable | None, Exception | None]:
    """Unpacks within a folder and checks that nothing was written beside it."""
    outer = folder / "outer"
    into = outer / "into"
    into.mkdir(parents=True)
    (outer / "canary").write_bytes(b"alive")
    path = archive if isinstance(archive, Path) else folder / "archive"
    if isinstance(archive, bytes):
        path.write_bytes(archive)
    before = _beside(folder)
    manifest, error = None, None
    source = open_source(path)
    try:
        plan = plan_archive(source, limits=limits, **options)  # type: ignore[arg-type]
        manifest = unpack(plan, source, into, password=options.get("password"))  # type: ignore[arg-type]
    except Exception as raised:
        error = raised
    finally:
        source.close()
    assert _beside(folder) == before, "something was written outside"
    _check_inside(into)
    return manifest, error


@contextlib.contextmanager
def side_by_side(*, really: bool = True) -> Iterator[None]:
    """Has small archives unpacked by threads, too, as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("zip_unpacking", "unpacking") if really else ():
            patch.setattr(f"colabkit.datasets.archives.{module}.IN_TURN_BYTES", -1)
        yield


def tree(folder: Path) -> dict[str, bytes]:
    """Returns every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _beside(folder: Path) -> dict[str, bytes]:
    into = folder / "outer" / "into"
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path != into and into not in path.parents
    }


def _check_inside(into: Path) -> None:
    for path in into.rglob("*"):
        assert path.resolve().is_relative_to(into.resolve())
        status = os.lstat(path)
        assert not status.st_mode & 0o6000
