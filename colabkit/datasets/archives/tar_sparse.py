"""Sparse files in a tar: which pieces of a file are there, between them nothing but zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from colabkit.datasets.writing.damage import corrupt

BLOCK_BYTES = 512
_MAP_AT, _SIZE_AT, _ENTRY_BYTES, _NUMBER_BYTES = 386, 483, 24, 12
_IN_HEADER, _IN_BLOCK, _GOES_ON_AT = 4, 21, 504
_PIECES_MAX = 1_000_000
_ZEROS = bytes(1 << 20)
_BASE256 = 0x80


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
                raise corrupt(name, "is a sparse file whose pieces overlap")
            place = offset + nbytes
        if place > self.nbytes or sum(n for _, n in self.pieces) != stored_bytes - self.map_bytes:
            raise corrupt(name, "is a sparse file whose pieces are not those that follow")


def of_gnu(block: bytes, more: Callable[[], bytes], name: str) -> SparseMap:
    """Reads the map in GNU's own header, and in the blocks behind it.

    Args:
        block: The header.
        more: Returns the next block.
        name: The member, for messages.
    """
    pieces = list(_entries(block[_MAP_AT:], _IN_HEADER, name))
    nbytes = _number(block[_SIZE_AT : _SIZE_AT + _NUMBER_BYTES], name)
    goes_on = bool(block[_SIZE_AT - 1])
    while goes_on:
        block = more()
        pieces += _entries(block, _IN_BLOCK, name)
        goes_on = bool(block[_GOES_ON_AT])
        if len(pieces) > _PIECES_MAX:
            raise corrupt(name, "is a sparse file of too many pieces")
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
        raise corrupt(name, "is a sparse file whose map cannot be read") from error
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
        yield _number(entry[:_NUMBER_BYTES], name), _number(entry[_NUMBER_BYTES:], name)


def _number(digits: bytes, name: str) -> int:
    if digits[0] & _BASE256:
        return int.from_bytes(digits[1:], "big")
    text = digits.partition(b"\0")[0].strip(b" ")
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise corrupt(name, "is a sparse file whose map cannot be read") from error
