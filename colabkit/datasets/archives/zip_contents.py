"""One zip member: its local header checked against the directory, its data unpacked."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator

from colabkit.datasets.archives.codecs import (
    RAW_DEFLATE,
    CodecError,
    Decoder,
    Deflate64,
    ZipLzma,
    ZipPpmd,
    bz2_decoder,
    decode,
    deflate_decoder,
    inflate,
    xz_decoder,
    zstd_decoder,
)
from colabkit.datasets.archives.zip_directory import ZipEntries
from colabkit.datasets.archives.zip_format import LOCAL_BYTES, LOCAL_MAGIC
from colabkit.datasets.writing.small_files import Content, crc32
from colabkit.errors import ArchiveCorruptError, ArchiveUnsafeError

_LOCAL = struct.Struct("<4s2xHH4xLLLHH")
_ENCRYPTED_FLAG, _LATER_FLAG = 0x1, 0x8
_FULL = 0xFFFFFFFF


class ZipMethod(enum.Enum):
    """How a member is packed."""

    STORED = 0
    DEFLATE = 8
    DEFLATE64 = 9
    BZIP2 = 12
    LZMA = 14
    ZSTD = 93
    XZ = 95
    PPMD = 98


_STORED, _DEFLATE = ZipMethod.STORED.value, ZipMethod.DEFLATE.value


def data_begin(data: bytes, place: int, entries: ZipEntries, row: int, path: str) -> int:
    """Returns where a member's data begins, its local header checked.

    Args:
        data: Bytes that hold the header.
        place: Where the header begins in them.
        entries: The directory.
        row: The member's place in it.
        path: The member, for messages.
    """
    if place + LOCAL_BYTES > len(data):
        raise ArchiveCorruptError.of(path, "is cut short")
    magic, flags, method, crc, packed, nbytes, name_bytes, extra_bytes = _LOCAL.unpack_from(
        data, place
    )
    if magic != LOCAL_MAGIC:
        raise ArchiveCorruptError.of(path, "is not where the directory says")
    # Its name may be another one here, as after a renaming: the directory's counts, as for others.
    if method != entries.methods[row]:
        raise ArchiveCorruptError.of(path, "is another one than the directory says")
    if (flags ^ entries.flags[row]) & _ENCRYPTED_FLAG:
        raise ArchiveCorruptError.of(path, "is encrypted only according to one of its headers")
    declared = (crc, packed, nbytes)
    listed = (entries.crcs[row], entries.packed_bytes[row], entries.nbytes[row])
    if declared != listed and not flags & _LATER_FLAG:
        for here, there in zip(declared, listed, strict=True):
            if here not in {there, _FULL}:
                raise ArchiveCorruptError.of(
                    path, f"declares {here:,} where the directory says {there:,}"
                )
    return int(place + LOCAL_BYTES + name_bytes + extra_bytes)


def data_ranges(
    data: bytes,
    places: Iterable[int],
    bounds: Iterable[int],
    entries: ZipEntries,
    rows: Iterable[int],
    paths: Iterable[str],
) -> list[tuple[int, int]]:
    """Returns where each member's data begins and ends, all local headers checked.

    Args:
        data: Bytes that hold the members whole.
        places: Where each member begins in them.
        bounds: Where the next one begins.
        entries: The directory.
        rows: The members' places in it.
        paths: The members, for messages.
    """
    ranges = []
    for place, bound, row, path in zip(places, bounds, rows, paths, strict=True):
        begin = data_begin(data, place, entries, row, path)
        end = begin + entries.packed_bytes[row]
        if end > bound:
            raise overlap(path)
        if end > len(data):
            raise ArchiveCorruptError.of(path, "is cut short")
        ranges.append((begin, end))
    return ranges


def unpacked(packed: memoryview, method: int, nbytes: int, crc: int | None, path: str) -> Content:
    """Returns a small member's content, checked; a stored one without a copy."""
    content: Content
    if method == _STORED:
        content = packed
    elif method == _DEFLATE:
        try:
            content = inflate(packed, nbytes)
        except CodecError as error:
            raise ArchiveCorruptError.of(path, f"cannot be unpacked ({error})") from error
    else:
        content = b"".join(pieces(iter([packed]), method, nbytes, path))
    if crc is not None and crc32(content, 0) != crc:
        raise ArchiveCorruptError.of(path, "has another CRC-32 than the directory says")
    return content


def pieces(
    packed: Iterable[bytes | memoryview], method: int, nbytes: int, path: str
) -> Iterator[bytes | memoryview]:
    """Yields a member's content in small pieces, never more than it declares."""
    if method == _STORED:
        yield from packed
        return
    done = 0
    try:
        for piece in decode(_decoder(ZipMethod(method), nbytes), packed, nbytes):
            done += len(piece)
            if done > nbytes:
                raise ArchiveCorruptError.of(
                    path, f"unpacks to more than the {nbytes:,} bytes it declares"
                )
            yield piece
    except CodecError as error:
        raise ArchiveCorruptError.of(path, f"cannot be unpacked ({error})") from error
    if done != nbytes:
        raise ArchiveCorruptError.of(path, f"unpacks to {done:,} bytes instead of {nbytes:,}")


def _decoder(method: ZipMethod, nbytes: int) -> Decoder:
    match method:
        case ZipMethod.DEFLATE:
            return deflate_decoder(RAW_DEFLATE)
        case ZipMethod.DEFLATE64:
            return Deflate64()
        case ZipMethod.BZIP2:
            return bz2_decoder()
        case ZipMethod.LZMA:
            return ZipLzma(nbytes)
        case ZipMethod.PPMD:
            return ZipPpmd(nbytes)
        case ZipMethod.XZ:
            return xz_decoder()
        case _:
            return zstd_decoder()


def overlap(path: str) -> ArchiveUnsafeError:
    """Returns the error for a member that shares bytes with another."""
    message = f"Member {path!r} reaches into the next one, as in a bomb."
    return ArchiveUnsafeError(message, member=path, hint="Don't unpack this archive.")
