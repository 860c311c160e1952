"""Builds the small archives beside it, byte by byte, as programs write them that are not at hand.

Run it as ``python -m tests.data.dialects.build``; the same bytes come out each time.
"""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import xxhash

from tests.unit.datasets.building import (
    DEFLATE,
    ZipMember,
    padded,
    pax,
    raw_tar,
    raw_zip,
    stored_rar,
    tar_entry,
    tar_header,
)

HERE = Path(__file__).parent
NAME = "数据/猫.txt"
FOR_OTHERS = struct.pack("<2L", 0x184D2A51, 5) + b"notes"
# As 7-Zip packs `b"meow and purr, " * 30` by PPMd.
_PPMD = bytes.fromhex("03006cf68b2fae95dbcc2ea7a3fc3958b45ce9aa008562208c0000")
_UTF8 = 0x800
_ON_UNIX = struct.pack("<2HBL", 0x5455, 5, 1, 1_600_000_000)


def without_zip64(count: int, told: int) -> bytes:
    """Returns a zip of many files as macOS' Archive Utility writes it; too large to be kept."""
    archive = raw_zip([ZipMember(b"%d" % n) for n in range(count)])
    end64 = archive.rindex(b"PK\x06\x06")
    nbytes, offset = struct.unpack_from("<2Q", archive, end64 + 40)
    return archive[:end64] + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, told, told, nbytes, offset, 0)


def with_end64(members: Sequence[ZipMember]) -> bytes:
    """Returns a zip with a 64-bit end that nothing asks for, as PyTorch's and `zip -` write it."""
    archive = raw_zip(members)
    end = archive.rindex(b"PK\x05\x06")
    count, _, nbytes, offset = struct.unpack_from("<2H2L", archive, end + 8)
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, nbytes, offset
    ) + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    return archive[:end] + record + archive[end:]


def renamed(plain: bytes, name: str) -> ZipMember:
    """Returns a member whose name WinRAR's code page could not hold."""
    data = b"\1" + zlib.crc32(plain).to_bytes(4, "little") + name.encode()
    return ZipMember(plain, b"meow", host=0, extra=struct.pack("<2H", 0x7075, len(data)) + data)


def star_header(name: bytes, prefix: bytes, data: bytes) -> bytes:
    """Returns a header with times behind the prefix and star's own mark at its end."""
    block = bytearray(tar_header(name, len(data)))
    block[345 : 345 + len(prefix)] = prefix
    block[476:500] = b"14512345670\0" * 2
    block[508:512] = b"tar\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(data)


def unshifted(prefix: bytes, members: Sequence[ZipMember]) -> bytes:
    """Returns a program that unpacks itself, whose offsets count from the file's begin."""
    archive = bytearray(prefix + raw_zip(members))
    place, end = archive.index(b"PK\1\2"), archive.index(b"PK\5\6")
    for at in (end + 16, *_entries(archive, place, end)):
        (offset,) = struct.unpack_from("<L", archive, at)
        struct.pack_into("<L", archive, at, offset + len(prefix))
    return bytes(archive)


def _entries(archive: bytes, place: int, end: int) -> Iterator[int]:
    while place < end:
        yield place + 42
        place += 46 + sum(struct.unpack_from("<3H", archive, place + 28))


def with_comment(archive: bytes, comment: bytes) -> bytes:
    """Returns a zip with a comment at its end."""
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


def newer(archive: bytes) -> bytes:
    """Returns a zip whose members ask for a later version of zip than they need."""
    changed = bytearray(archive)
    for mark, at in ((b"PK\3\4", 4), (b"PK\1\2", 6)):
        place = -1
        while (place := changed.find(mark, place + 1)) >= 0:
            changed[place + at] = 63
    return bytes(changed)


def deflated(data: bytes) -> bytes:
    """Returns a deflate stream of stored blocks, which every zlib writes alike."""
    packer = zlib.compressobj(0, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def blocked(data: bytes) -> bytes:
    """Returns a gzip as bgzip writes it: members that tell their sizes, an empty one at last."""
    found = b""
    for begin in range(0, len(data) + 700, 700):
        piece = data[begin : begin + 700]
        packed = deflated(piece)
        size = struct.pack("<2s2H", b"BC", 2, len(packed) + 25)
        found += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0" + size + packed
        found += struct.pack("<2L", zlib.crc32(piece), len(piece))
    return found


def zstd_frame(data: bytes) -> bytes:
    """Returns a frame of Zstandard with its bytes as they are."""
    head = b"\x28\xb5\x2f\xfd\x60" + (len(data) - 256).to_bytes(2, "little")
    return head + (len(data) << 3 | 1).to_bytes(3, "little") + data


def lz4_frame(data: bytes) -> bytes:
    """Returns a frame of LZ4 with its bytes as they are."""
    head = b"\x60\x70"
    check = bytes([xxhash.xxh32_intdigest(head) >> 8 & 0xFF])
    block = (len(data) | 1 << 31).to_bytes(4, "little") + data
    return b"\x04\x22\x4d\x18" + head + check + block + bytes(4)


def wide(nbytes: int, packed_bytes: int) -> bytes:
    """Returns a member's sizes in 64 bits."""
    return struct.pack("<2H2Q", 1, 16, nbytes, packed_bytes)


def streamed() -> dict[str, bytes]:
    """Returns zips of programs that write a member's sizes behind it."""
    text, full = b"meow" * 99, 0xFFFFFFFF
    packed = deflated(text)
    apple = struct.pack("<2H2L", 0x5855, 8, 1_600_000_000, 1_600_000_000)
    large = ZipMember(
        *(b"a/1.txt", text, DEFLATE),
        flags=_UTF8,
        extra=_ON_UNIX + wide(len(text), len(packed)),
        descriptor="wide",
        packed=packed,
        nbytes=full,
        packed_bytes=full,
    )
    marked = partial(ZipMember, data=text, method=DEFLATE, descriptor="marked", packed=packed)
    manifest = marked(b"META-INF/MANIFEST.MF", host=0)
    folder = ZipMember(b"META-INF/", host=0, extra=b"\xfe\xca\0\0", local_extra=b"\xfe\xca\0\0")
    name = "Ka\u0308tzchen/nai\u0308ve.txt".encode()
    seen = marked(name, extra=apple, local_extra=apple)
    plain = [marked(b"%d.txt" % n, descriptor="plain") for n in range(3)]
    return {
        "go-wide.zip": raw_zip([large]),
        "java.zip": raw_zip([folder, manifest]),
        "archive-utility.zip": raw_zip([seen]),
        "descriptors-without-mark.zip": raw_zip(plain),
    }


def odd_names() -> dict[str, bytes]:
    """Returns archives whose names only some disks can hold, and some keys be typed with."""
    names = ("end.", "space ", " space", "two\nlines", "שלום.txt", "🐱🏳️‍🌈.txt", "猫" * 85, "..x")
    twins = ("Cat/1.jpg", "cat/1.jpg", "CAT/1.JPG", "\u00e9.jpg", "e\u0301.jpg")
    found = {}
    for name, paths in (("odd-names", names), ("twins", twins)):
        data = [(path.encode(), b"%d" % number) for number, path in enumerate(paths)]
        members = [ZipMember(*pair, flags=_UTF8) for pair in data]
        found[f"{name}.zip"] = raw_zip(members)
        found[f"{name}.tar"] = raw_tar(*(tar_entry(*pair) for pair in data if len(pair[0]) <= 100))
    return found


def odd_headers() -> dict[str, bytes]:
    """Returns tars of several ages and programs, with headers that few others write."""
    one = tar_entry(b"a/1.jpg", b"meow")
    chain = (tar_entry(b"a/%d.jpg" % n, kind=b"1", link=b"a/%d.jpg" % (n - 1)) for n in (2, 3, 4))
    cafe = "café.txt".encode()
    header = tar_header(cafe, 4)
    signed = sum(byte - 256 * (byte > 127) for byte in header[:148] + b" " * 8 + header[156:])
    links = (tar_entry(b"train/%d" % n, kind=b"2", link=b"../a/1.jpg") for n in range(3))
    xattr = {"SCHILY.xattr.user.note": "x", "LIBARCHIVE.creationtime": "1600000000.5"}
    return {
        "hard-link-chain.tar": raw_tar(one, *chain),
        "contiguous.tar": raw_tar(tar_entry(b"a/1.jpg", b"meow", b"7")),
        "size-in-256.tar": raw_tar(
            tar_header(b"a/1.jpg", size_field=b"\x80" + (4).to_bytes(11, "big")) + padded(b"meow")
        ),
        "before-1970.tar": _with_field(one, 136, b"\xff" * 12) + bytes(1024),
        "signed-sum.tar": raw_tar(
            tar_header(cafe, 4, checksum=b"%06o\0 " % signed) + padded(b"meow")
        ),
        "commit.tar": raw_tar(
            pax(b"g", comment="0123456789abcdef" * 2), tar_entry(b"r/", kind=b"5"), one
        ),
        "attributes.tar": raw_tar(pax(**xattr), one),
        "link-farm.tar": raw_tar(one, *links, tar_entry(b"val", kind=b"2", link=b"train")),
        "no-access.tar": raw_tar(
            tar_entry(b"a/", kind=b"5", mode=0), tar_entry(b"a/1.jpg", b"meow", mode=0)
        ),
    }


def archives() -> dict[str, bytes]:
    """Returns every archive by its file's name."""
    cat = ZipMember(b"a/1.jpg", b"meow")
    end = bytes(1024)
    link = tar_entry(b"a/2.jpg", kind=b"1", link=b"a/1.jpg")
    sized = tar_header(b"a/2.jpg", 4, b"1", link=b"a/1.jpg")
    one = tar_entry(b"a/1.jpg", b"meow")
    text = tar_entry(b"a/1.txt", b"meow" * 300)
    halves = (one + text + end)[:1000], (one + text + end)[1000:]
    no_members = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
    plain = gzip.compress(one + end, 0, mtime=0)
    again = ZipMember(b"a/2.jpg", b"purr", comment=b"PK\1\2 as a comment")
    return {
        **streamed(),
        **odd_names(),
        **odd_headers(),
        "stored-behind.zip": raw_zip([ZipMember(b"a/1.jpg", b"meow", descriptor="marked"), again]),
        "blocks.zip": raw_zip([cat]) + bytes(10_000),
        "wide-blocks.zip": with_end64([cat]) + bytes(10_000),
        "answered.zip": b"HTTP/1.1 200 OK\r\n\r\n" + raw_zip([cat]),
        "ppmd.zip": raw_zip(
            [ZipMember(b"a/1.txt", b"meow and purr, " * 30, 98, packed=_PPMD), cat]
        ),
        "stored.rar": stored_rar({"a/1.txt": b"meow" * 300, NAME: b"meow", "a/empty": b""}),
        "links.rar": stored_rar(
            {"a/1.txt": b"meow" * 300, "b/2.txt": b"purr"},
            links={
                "a/link": (1, "1.txt"),
                "folder": (1, "a"),
                "b/second-name": (4, "a/1.txt"),
                "b/copy": (5, "a/1.txt"),
            },
        ),
        "two-zips.zip": raw_zip([again]) + raw_zip([cat]),
        "behind-a-picture.zip": b"\xff\xd8\xff\xe0" + bytes(300) + raw_zip([cat, again]),
        "cut-comment.zip": raw_zip([cat])[:-2] + b"\x05\0",
        "network-path.zip": raw_zip([ZipMember(b"\\\\host\\share\\1.jpg", b"meow", host=0)]),
        "empty-name.zip": raw_zip([ZipMember(b"", b"x"), cat]),
        "newer.zip": newer(raw_zip([cat, ZipMember(b"a/2.jpg", b"purr")])),
        "named.tar.gz": b"\x1f\x8b\x08\x0c" + bytes(5) + b"\3\4\0more" + b"a.tar\0" + plain[10:],
        "empty-stream-first.tar.gz": gzip.compress(b"", 0, mtime=0) + plain,
        "two-tars.tar": one + end + tar_entry(b"a/2.jpg", b"purr") + end,
        "binary-names.tar": pax(hdrcharset="BINARY", path=NAME) + tar_entry(b"x", b"meow") + end,
        "less-by-pax.tar": pax(size="2") + tar_entry(b"a/1.jpg", b"meow") + one + end,
        "mark-in-comment.zip": with_comment(raw_zip([cat]), b"between PK\5\6 and the end"),
        "end-in-comment.zip": with_comment(raw_zip([cat]), b"of none: " + no_members),
        "comments.zip": raw_zip([again, cat]),
        "aligned.zip": raw_zip(
            [ZipMember(b"a/1.jpg", b"meow", local_extra=bytes(3), extra=bytes(1)), again]
        ),
        "program.zip": b"MZ" + bytes(600) + raw_zip([cat, again]),
        "program-unshifted.zip": unshifted(b"MZ" + bytes(600), [cat, again]),
        "blocked.tar.gz": blocked(one + text + end),
        "members.tar.gz": b"".join(gzip.compress(half, 0, mtime=0) for half in halves),
        "streams.tar.bz2": b"".join(map(bz2.compress, halves)),
        "for-others.tar.zst": FOR_OTHERS
        + FOR_OTHERS.join(map(zstd_frame, (*halves, bytes(512))))
        + FOR_OTHERS,
        "for-others.tar.lz4": FOR_OTHERS.join(map(lz4_frame, halves)) + FOR_OTHERS,
        "for-others-first.tar.lz4": FOR_OTHERS * 2 + b"".join(map(lz4_frame, halves)),
        "pax-over-size.tar": pax(size="4", path="a/1.jpg")
        + tar_header(b"x", size_field=b"77777777777\0")
        + padded(b"meow")
        + tar_entry(b"a/2.jpg", b"purr")
        + end,
        "renamed-in-directory.zip": raw_zip(
            [ZipMember(NAME.encode(), b"meow", flags=0x800, local_name=NAME.encode("gbk")), cat]
        ),
        "shorter-in-front.zip": raw_zip([ZipMember(b"a/long-name.jpg", b"", local_name=b"a")]),
        "folder-without-slash.zip": raw_zip([ZipMember(b"a", host=0, attributes=0x10), cat]),
        "powershell5.zip": raw_zip([ZipMember(b"train\\cat\\1.jpg", b"meow", host=0)]),
        "windows-absolute.zip": raw_zip([ZipMember(b"C:\\data\\1.jpg", b"meow", host=11)]),
        "end64-not-needed.zip": with_end64([cat]),
        "winrar-names.zip": raw_zip([renamed(b"__/_.txt", NAME), cat]),
        "bytes-behind.zip": raw_zip([cat]) + b"\r\n",
        "from-a-pipe.zip": with_end64([ZipMember(b"-", b"meow", mode=0o010600)]),
        "added-again.zip": raw_zip([ZipMember(b"a/1.jpg", b"old"), cat]),
        "added-again-with-setgid.zip": raw_zip([ZipMember(b"a/1.jpg", b"old", mode=0o102644), cat]),
        "no-end.tar": one,
        "one-block.tar": one + bytes(512),
        "empty.tar": bytes(10_240),
        "added-again.tar": tar_entry(b"a/1.jpg", b"old") + one + end,
        "absolute.tar": tar_entry(b"/content/a/1.jpg", b"meow") + end,
        "folder-by-slash.tar": tar_entry(b"a/") + one + end,
        "hard-link-with-size.tar": one + sized + tar_entry(b"a/3.jpg", b"purr") + end,
        "hard-link-with-data.tar": one + sized + padded(b"meow") + end,
        "hard-link.tar": one + link + end,
        "star.tar": star_header(b"1.jpg", b"a" * 130, b"meow") + end,
        "unknown-kind.tar": tar_entry(b"a/2.jpg", b"purr", b"Z") + one + end,
        "label.tar": tar_entry(b"backup", kind=b"V") + one + end,
        "dumped-folder.tar": tar_entry(b"a/", b"Y1.jpg\0\0", b"D") + one + end,
        "odd-numbers.tar": _with_field(one, 100, b" 644 \0\0\0")
        + _with_field(tar_entry(b"b/", kind=b"5"), 124, b"zzzzzzzzzzz\0")
        + end,
        "bytes-behind.tar.gz": gzip.compress(one + end, mtime=0) + b"garbage",
    }


def _with_field(entry: bytes, place: int, field: bytes) -> bytes:
    block = bytearray(entry)
    block[place : place + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


if __name__ == "__main__":
    for name, data in archives().items():
        (HERE / name).write_bytes(data)
