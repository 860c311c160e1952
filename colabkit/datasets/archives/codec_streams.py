"""The fastest decompressor that is installed for each kind of stream."""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from colabkit.datasets.archives.codecs import Decoder, Zlib, needed, optional
from colabkit.datasets.writing.small_files import DAMAGES, Content, inflate_whole

_isal, _igzip = optional("isal.isal_zlib"), optional("isal.igzip_lib")

RAW_DEFLATE, GZIP = -15, 31
PIECE_BYTES = 64 << 10
_LZMA_MEMORY_BYTES = 1 << 30
# As far as `zstd --long=31` goes; memory is taken only as it is filled.
_ZSTD_WINDOW_LOG = 31


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
    """Returns a decoder of one Zstandard frame, from the standard library or its backport."""
    package = optional("compression.zstd") or needed("backports.zstd", "a zip packed with zstd")
    options = {package.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    decoder: Decoder = package.ZstdDecompressor(options=options)
    return decoder


def pull_zstd(packed: Iterable[bytes], piece_bytes: int) -> Iterator[bytes]:
    """Yields what Zstandard frames unpack to, through the package zstandard.

    Raises:
        CodecError: A frame is damaged.
    """
    package = needed("zstandard", "a tar.zst")
    decompressor = package.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG)
    # The reader takes a cut frame for a whole one; a last frame of our own tells them apart.
    mark = os.urandom(16)
    last = package.ZstdCompressor(write_checksum=True).compress(mark)
    # Only what it pulls has a bound: fed with 64 KiB, it may give out gigabytes.
    reader = decompressor.stream_reader(_Pulled(chain(packed, [last])), read_across_frames=True)
    held = b""
    while True:
        try:
            piece = reader.read(piece_bytes)
        except package.ZstdError as error:
            raise CodecError(str(error)) from error
        if not piece:
            break
        if len(piece) < len(mark):
            held += piece
            yield held[: -len(mark)]
            held = held[-len(mark) :]
        else:
            yield held
            yield piece[: -len(mark)]
            held = piece[-len(mark) :]
    if held != mark:
        message = "it ends too early"
        raise CodecError(message)


class _Pulled:
    """Chunks as the file that zstandard reads from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._view = memoryview(b"")

    def read(self, nbytes: int) -> memoryview:
        """Returns at most so many bytes, none only at the end."""
        while not self._view:
            chunk = next(self._chunks, None)
            if chunk is None:
                return self._view
            self._view = memoryview(chunk)
        part, self._view = self._view[:nbytes], self._view[nbytes:]
        return part


def bz2_decoder() -> Decoder:
    """Returns a decoder of one bzip2 stream."""
    return bz2.BZ2Decompressor()


def xz_decoder() -> Decoder:
    """Returns a decoder of one xz stream, or of one that is older than xz."""
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)


def lz4_decoder() -> Decoder:
    """Returns a decoder of one LZ4 frame."""
    decoder: Decoder = needed("lz4.frame", "a tar.lz4").LZ4FrameDecompressor()
    return decoder


def inflate(packed: memoryview, nbytes: int) -> Content:
    """Unpacks a small raw deflate stream that should give ``nbytes``, never much more.

    Raises:
        CodecError: It gives more or less, or is damaged.
    """
    try:
        return inflate_whole(packed, nbytes)
    except ERRORS as error:
        raise CodecError(str(error)) from error


def decode(
    decoder: Decoder,
    packed: Iterable[bytes | memoryview],
    nbytes_max: int,
    *,
    piece_bytes: int = PIECE_BYTES,
) -> Iterator[bytes]:
    """Yields what a stream unpacks to in pieces, ``nbytes_max`` + 1 bytes at most.

    Chunks behind the one in which the stream ends are not taken.

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
                step, view = view[:piece_bytes], view[piece_bytes:]
            try:
                piece = decoder.decompress(step, min(piece_bytes, left))
            except ERRORS as error:
                raise CodecError(str(error)) from error
            if piece:
                left -= len(piece)
                yield piece
        if decoder.eof or not left:
            return


def _errors() -> tuple[type[Exception], ...]:
    kinds: list[type[Exception]] = [zlib.error, lzma.LZMAError, EOFError, OSError, ValueError]
    kinds += [CodecError, *DAMAGES]
    if _igzip is not None:
        kinds.append(_igzip.error)
    kinds += [m.ZstdError for m in map(optional, ("compression.zstd", "backports.zstd")) if m]
    return tuple(kinds)


ERRORS = _errors()
"""What the decoders raise for damaged bytes."""
