"""Invented archives cut into parts, as 7-Zip, ``split`` and ``zip -s`` cut them."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

from tests.unit.datasets.archives.inventing.members import Invented

_SPAN_MARK = b"PK\x07\x08"


def cut_in_parts(one: Invented, draw: random.Random) -> dict[str, bytes]:
    """Returns the parts of an archive by name, in order, and tells of them in its story."""
    is_plain_zip = one.suffix == ".zip" and one.data.startswith(b"PK\3\4")
    forms = ["001", "aa", "00", "part-aa", "part1", *(["z01"] * 2 if is_plain_zip else [])]
    form = draw.choice(forms)
    cuts = _cuts(len(one.data), draw, at_headers=one.suffix == ".tar")
    parts = _spanned(one.data, cuts) if form == "z01" else None
    if parts is None:
        form = "001" if form == "z01" else form
        pieces = [one.data[a:b] for a, b in pairwise(cuts)]
        parts = {_name(one.suffix, form, n): piece for n, piece in enumerate(pieces)}
    one.story.append(f"in parts {[(name, len(piece)) for name, piece in parts.items()]}")
    return parts


def _cuts(nbytes: int, draw: random.Random, *, at_headers: bool) -> list[int]:
    count = draw.choice((1, 1, 2, 2, 3, 5, 12))
    step = 512 if at_headers and draw.random() < 0.4 else 1
    inner = {draw.randrange(step, nbytes, step) for _ in range(count)} if nbytes > step else set()
    if draw.random() < 0.3 and nbytes > 30:
        inner |= {nbytes - draw.choice((1, 2, 10, 21, 22, 23))}
    return [0, *sorted(inner), nbytes]


def _name(suffix: str, form: str, number: int) -> str:
    letters = chr(ord("a") + number // 26) + chr(ord("a") + number % 26)
    told = {
        "001": f".{number + 1:03}",
        "00": f".{number:02}",
        "aa": f".{letters}",
        "part-aa": f".part-{letters}",
        "part1": f".part{number + 1}",
    }
    return f"archive{suffix}{told[form]}"


def _spanned(data: bytes, cuts: list[int]) -> dict[str, bytes] | None:
    """Returns a zip as ``zip -s`` cuts it, None where the end would lie in two parts."""
    end = data.rindex(b"PK\5\6")
    if b"PK\6\7" in data[end - 20 : end] or cuts[-2] > end or len(cuts) < 3:
        return None
    # The mark stands before all, and every place moves by it.
    whole, cuts = bytearray(_SPAN_MARK + data), [0, *(at + len(_SPAN_MARK) for at in cuts[1:])]

    def place(at: int) -> tuple[int, int]:
        at += len(_SPAN_MARK)
        disk = max(n for n, cut in enumerate(cuts[:-1]) if cut <= at)
        return disk, at - cuts[disk]

    count, _, begin = struct.unpack_from("<H2L", data, end + 10)
    at, on_last, last = begin, 0, len(cuts) - 2
    for _ in range(count):
        disk, offset = place(struct.unpack_from("<L", data, at + 42)[0])
        struct.pack_into("<H", whole, at + len(_SPAN_MARK) + 34, disk)
        struct.pack_into("<L", whole, at + len(_SPAN_MARK) + 42, offset)
        on_last += place(at)[0] == last
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    disk, offset = place(begin)
    struct.pack_into("<3H", whole, end + len(_SPAN_MARK) + 4, last, disk, on_last)
    struct.pack_into("<L", whole, end + len(_SPAN_MARK) + 16, offset)
    names = [f"archive.z{n + 1:02}" for n in range(last)] + ["archive.zip"]
    return {name: bytes(whole[a:b]) for name, (a, b) in zip(names, pairwise(cuts), strict=True)}
