"""Builds the small archives beside it, byte by byte, as programs write them that are not at hand.

Run it as ``python -m tests.data.dialects.build``; the same bytes come out each time.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from tests.unit.datasets.building import ZipMember, padded, raw_zip, tar_entry, tar_header

HERE = Path(__file__).parent
NAME = "数据/猫.txt"


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


def archives() -> dict[str, bytes]:
    """Returns every archive by its file's name."""
    cat = ZipMember(b"a/1.jpg", b"meow")
    end = bytes(1024)
    link = tar_entry(b"a/2.jpg", kind=b"1", link=b"a/1.jpg")
    sized = tar_header(b"a/2.jpg", 4, b"1", link=b"a/1.jpg")
    one = tar_entry(b"a/1.jpg", b"meow")
    return {
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
