"""The fastest decompressor that is installed for each kind of stream."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator

from colabkit.datasets.decoders import Decoder, Zlib, Zstandard, needed, optional

_isal, _igzip, _libdeflate = (
    optional("isal.isal_zlib"),
    optional("isal.igzip_lib"),
    optional("deflate"),
)

RAW_DEFLATE, GZIP = -15, 31
PIECE_BYTES = 64 << 10
_LZMA_MEMORY_BYTES = 1 << 30

crc32: Callable[[bytes | memoryview, int], int] = (_isal or zlib).crc32


class CodecError(Exception):
    """The packed bytes are damaged."""


def deflate_decoder(wbits: int) -> Decoder:
    """Returns a decoder of deflate (``RAW_DEFLATE``) or gzip (``GZIP``) streams."""
    if _igzip is None:
        return Zlib(wbits)
    flag = _igzip.DECOMP_DEFLATE if wbits == RAW_DEFLATE else _igzip.DECOMP_GZIP
    decoder: Decoder = _igzip.IgzipDecompressor(flag=flag)
    return decoder


def zstd_decoder() -> Decoder:
    """Returns a decoder of one or more Zstandard frames."""
    package = optional("compression.zstd")
    if package is None:
        return Zstandard(needed("zstandard", "a tar.zst"))
    decoder: Decoder = package.ZstdDecompressor()
    return decoder


def bz2_decoder() -> Decoder:
    """Returns a decoder of one bzip2 stream."""
    return bz2.BZ2Decompressor()


def xz_decoder() -> Decoder:
    """Returns a decoder of one xz stream."""
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)


def inflate(packed: memoryview, nbytes: int) -> bytes:
    """Unpacks a small raw deflate stream that should give ``nbytes``, never much more.

    Raises:
        CodecError: It gives more or less, or is damaged.
    """
    try:
        if _libdeflate is not None:
            content = bytes(_libdeflate.deflate_decompress(packed, nbytes))
        else:
            content = _inflate(packed, nbytes)
    except ERRORS as error:
        raise CodecError(str(error)) from error
    if len(content) != nbytes:
        message = f"gives {len(content):,} bytes instead of {nbytes:,}"
        raise CodecError(message)
    return content


def _inflate(packed: memoryview, nbytes: int) -> bytes:
    stream = deflate_decoder(RAW_DEFLATE)
    content = stream.decompress(packed, nbytes + 1)
    if not stream.eof and len(content) == nbytes:
        # The end mark may need one more call once the output is full.
        content += stream.decompress(b"", 1)
    if not stream.eof:
        message = "does not end where it should"
        raise CodecError(message)
    return content


def decode(
    decoder: Decoder, packed: Iterable[bytes | memoryview], nbytes_max: int
) -> Iterator[bytes]:
    """Yields what a stream unpacks to in small pieces, ``nbytes_max`` + 1 bytes at most.

    Raises:
        CodecError: The stream is damaged.
    """
    left = nbytes_max + 1
    for chunk in packed:
        view = memoryview(chunk)
        while left and not decoder.eof and (view or not decoder.needs_input):
            step: bytes | memoryview = b""
            # Large input is copied by every call, large output is paid with page faults.
            if decoder.needs_input:
                step, view = view[:PIECE_BYTES], view[PIECE_BYTES:]
            try:
                piece = decoder.decompress(step, min(PIECE_BYTES, left))
            except ERRORS as error:
                raise CodecError(str(error)) from error
            if piece:
                left -= len(piece)
                yield piece


def _errors() -> tuple[type[Exception], ...]:
    kinds: list[type[Exception]] = [zlib.error, lzma.LZMAError, EOFError, OSError, ValueError]
    kinds += [CodecError, MemoryError, OverflowError]
    if _igzip is not None:
        kinds.append(_igzip.error)
    if _libdeflate is not None:
        kinds.append(_libdeflate.DeflateError)
    kinds += [m.ZstdError for m in map(optional, ("zstandard", "compression.zstd")) if m]
    return tuple(kinds)


ERRORS = _errors()
"""What the decoders raise for damaged bytes."""
