"""Invented tars: formats and their mixtures, numbers, sparse files, ends, packings."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable, Sequence

from tests.unit.datasets.archives.inventing.members import T_S, Invented, Member, members_of, told
from tests.unit.datasets.building import padded, pax, tar_header


def invented_tar(number: int, draw: random.Random) -> Invented:
    out = Invented(number, ".tar")
    form = draw.choice(("v7", "ustar", "gnu", "pax", "mixed"))
    odd = draw.random() < 0.6
    blocks = [_before_all(draw, out.story)] if odd and draw.random() < 0.2 else []
    for member in members_of(draw):
        how = draw.choice(("v7", "ustar", "gnu", "pax")) if form == "mixed" else form
        oddities: list[str] = []
        blocks.append(_tar_member(member, how, draw if odd else None, oddities))
        out.story.append(told(member, how, *oddities))
    if is_sparse := odd and draw.random() < 0.25:
        blocks.append(_sparse(draw, out.story))
    # Without an end mark GNU tar drops the last block of a sparse file.
    end = draw.choice((1024, 1024, 10240, 512, *([] if is_sparse else [0]))) if odd else 1024
    data = b"".join(blocks) + bytes(end)
    if end == 10240:
        data += bytes(-len(data) % 10240)
    if odd and end >= 1024 and draw.random() < 0.1:
        data += b"junk behind the end" * draw.choice((1, 50))
        out.story.append("junk behind the end")
    out.story.append(f"end of {end} bytes")
    out.data = data
    return _packed(out, draw)


def _before_all(draw: random.Random, story: list[str]) -> bytes:
    kind = draw.choice(("label", "global comment", "global mtime", "top", "dumped folder"))
    story.append(kind)
    match kind:
        case "label":
            return tar_header(b"a label", kind=b"V")
        case "global comment":
            return pax(b"g", comment="e83c5163316f89bfbde7d9ab23ca2e25604af290")
        case "global mtime":
            return pax(b"g", mtime="1500000000.5")
        case "top":
            return tar_header(b"./", kind=b"5", mode=0o755)
        case _:
            names = b"Y1.jpg\0Na\0\0"
            return tar_header(b"dumped/", len(names), b"D", mode=0o755) + padded(names)


_KINDS = {"file": b"0", "folder": b"5", "symlink": b"2", "hard": b"1"}


def _tar_member(member: Member, how: str, draw: random.Random | None, oddities: list[str]) -> bytes:
    """Returns a member with the headers that its format needs before it."""
    name, prefix = member.name, b""
    if member.kind == "folder" and not name.endswith(b"/"):
        name += b"/" if draw is None else draw.choice((b"/", b"/", b""))
    if how == "ustar" and len(name) > 100:
        name, prefix = _cut(name)
    is_long = len(name) > 100 or len(member.link) > 100
    if how == "gnu" or (how == "v7" and is_long):
        front = _long_links(name, member.link, draw)
    else:
        front = _pax_of(name, member, draw) if how == "pax" or is_long else b""
    kind = _KINDS[member.kind]
    header = tar_header(
        name[:100], len(member.data), kind, link=member.link[:100], mode=member.mode
    )
    block = bytearray(header)
    block[136:148] = b"%011o " % member.time_s
    block[345 : 345 + len(prefix)] = prefix
    if how == "v7":
        block[257:345] = bytes(88)
    elif how == "gnu":
        block[257:265] = b"ustar  \0"
    if draw is not None and draw.random() < 0.4:
        oddities.append(_dressed(block, member, draw))
    _sum_up(block)
    return front + bytes(block) + padded(member.data)


def _cut(name: bytes) -> tuple[bytes, bytes]:
    """Returns a name as ustar cuts it in two, whole where it cannot."""
    for at, byte in enumerate(name[:156]):
        if byte == ord("/") and at and 1 < len(name) - at <= 101:
            return name[at + 1 :], name[:at]
    return name, b""


def _long_links(name: bytes, link: bytes, draw: random.Random | None) -> bytes:
    front = b""
    for mark, text in ((b"K", link), (b"L", name)):
        if len(text) >= 100 or (draw and draw.random() < 0.05):
            front += tar_header(b"././@LongLink", len(text) + 1, mark) + padded(text + b"\0")
    return front


def _pax_of(name: bytes, member: Member, draw: random.Random | None) -> bytes:
    records: dict[str, str] = {}
    if len(name) > 100 or not name.isascii() or (draw and draw.random() < 0.1):
        records["path"] = name.decode()
    if len(member.link) > 100 or not member.link.isascii():
        records["linkpath"] = member.link.decode()
    if draw and draw.random() < 0.3:
        records["mtime"] = f"{member.time_s}.25"
    if draw and draw.random() < 0.1 and member.kind == "file":
        records["size"] = str(len(member.data))
    if draw and draw.random() < 0.1:
        records |= {"LIBARCHIVE.xattr.user.x": "eA==", "SCHILY.xattr.user.x": "x=y\nz"}
    return pax(**records) if records else b""


def _sum_up(block: bytearray) -> None:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)


# What old or odd programs write: where, and what there.
_Dress = Callable[[Member], bytes]
_DRESSES: dict[str, dict[str, tuple[int, _Dress]]] = {
    "file": {
        "contiguous": (156, lambda _: b"7"),
        "zero kind": (156, lambda m: b"0" if m.name.endswith(b"/") else b"\0"),
        "unknown kind": (156, lambda _: b"Q"),
        "wide size": (124, lambda m: b"\x80" + len(m.data).to_bytes(11, "big")),
        "spaces": (124, lambda m: b"%11o " % len(m.data)),
        "no end of size": (124, lambda m: b"%012o" % len(m.data)),
    },
    "folder": {"size of a folder": (124, lambda _: b"%011o " % 4096)},
    "symlink": {"size of a link": (124, lambda _: b"%011o " % 7)},
    "hard": {"size of a link": (124, lambda _: b"%011o " % 7)},
}
_FOR_ALL: dict[str, tuple[int, _Dress]] = {
    "wide time": (136, lambda m: b"\x80" + m.time_s.to_bytes(11, "big")),
    "mode in spaces": (100, lambda m: b"%6o \0" % m.mode),
    "no mode": (100, lambda _: bytes(8)),
    "owner that is none": (108, lambda _: b"nobody\0 "),
}


def _dressed(block: bytearray, member: Member, draw: random.Random) -> str:
    """Gives a header something odd; returns what."""
    dresses = _DRESSES[member.kind] | _FOR_ALL
    oddity = draw.choice(list(dresses))
    at, made = dresses[oddity]
    put = made(member)
    block[at : at + len(put)] = put
    return oddity


def _sparse(draw: random.Random, story: list[str]) -> bytes:
    """Returns a sparse file in one of the four forms that GNU tar has had."""
    pieces = [(0, draw.choice((512, 1024))), (4096, 512), (20_480, draw.choice((0, 9)))]
    whole = sum(pieces[-1])
    data = draw.randbytes(sum(size for _, size in pieces))
    form = draw.choice(("old", "0.0", "0.1", "1.0"))
    story.append(f"sparse {form} {pieces} of {whole}")
    name = b"sparse.bin"
    if form == "old":
        block = bytearray(tar_header(name, len(data), b"S"))
        block[136:148] = b"%011o " % T_S
        block[257:265] = b"ustar  \0"
        for at, (offset, size) in enumerate(pieces):
            block[386 + 24 * at : 410 + 24 * at] = b"%011o\0%011o\0" % (offset, size)
        block[483:495] = b"%011o\0" % whole
        _sum_up(block)
        return bytes(block) + padded(data)
    numbers = [number for piece in pieces for number in piece]
    if form == "0.0":
        records = _pax_pairs(
            [("GNU.sparse.size", whole), ("GNU.sparse.numblocks", len(pieces))]
            + [
                (key, number)
                for offset, size in pieces
                for key, number in (("GNU.sparse.offset", offset), ("GNU.sparse.numbytes", size))
            ]
        )
        return records + _dated(name, data)
    if form == "0.1":
        listed = ",".join(map(str, numbers))
        pairs = [("GNU.sparse.size", whole), ("GNU.sparse.numblocks", len(pieces))]
        pairs += [("GNU.sparse.name", "sparse.bin"), ("GNU.sparse.map", listed)]
        return _pax_pairs(pairs) + _dated(b"./GNUSparseFile.7/sparse.bin", data)
    head = padded(b"%d\n" % len(pieces) + b"".join(b"%d\n" % number for number in numbers))
    pairs = [("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.name", "sparse.bin")]
    pairs += [("GNU.sparse.realsize", whole)]
    return _pax_pairs(pairs) + _dated(b"./GNUSparseFile.7/sparse.bin", head + data)


def _dated(name: bytes, data: bytes) -> bytes:
    block = bytearray(tar_header(name, len(data)))
    block[136:148] = b"%011o " % T_S
    _sum_up(block)
    return bytes(block) + padded(data)


def _pax_pairs(pairs: Sequence[tuple[str, object]]) -> bytes:
    data = b"".join(pax(**{key: str(value)})[512:].rstrip(b"\0") for key, value in pairs)
    return tar_header(b"pax", len(data), b"x") + padded(data)


def _packed(out: Invented, draw: random.Random) -> Invented:
    """Packs a tar, at times in two streams or with something behind it."""
    kind = draw.choice(("", "", "", "gz", "gz", "bz2", "xz"))
    if not kind:
        return out
    pack = {"gz": lambda b: gzip.compress(b, mtime=0), "bz2": bz2.compress, "xz": lzma.compress}[
        kind
    ]
    out.suffix += f".{kind}"
    match draw.choice(("one", "one", "two", "named", "zeros behind")):
        case "two":
            half = draw.randrange(len(out.data)) if draw.random() < 0.5 else 0
            out.story.append(f"{kind} in two streams, the first of {half} bytes")
            out.data = pack(out.data[:half]) + pack(out.data[half:])
        case "named" if kind == "gz":
            out.story.append("gz with its name")
            packed = pack(out.data)
            out.data = (
                packed[:3] + b"\x08" + packed[4:10] + "été.tar\0".encode("latin-1") + packed[10:]
            )
        case "zeros behind" if kind != "bz2":
            out.story.append("zeros behind")
            out.data = pack(out.data) + bytes(draw.choice((4, 512)))
        case _:
            out.data = pack(out.data)
    return out
