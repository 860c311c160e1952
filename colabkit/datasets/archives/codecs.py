"""Decompressors, the fastest installed of each kind, bounded in what they give out at once."""

from __future__ import annotations

import functools
import importlib
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from colabkit.datasets.writing.small_files import DAMAGES, Content, inflate_whole
from colabkit.errors import MissingPackageError

if TYPE_CHECKING:
    import lzma

Password = str | bytes | None
"""What an archive is encrypted with, as text or as the very bytes."""
_PASSWORD_ENCODINGS = ("utf-8", "gb18030", "cp932", "big5", "cp949", "cp437", "latin-1")
_PACKAGES = {"lz4": "lz4", "Cryptodome": "pycryptodomex"}
_DEFLATE64_STEP = 4 << 10
RAW_DEFLATE, GZIP = -15, 31
PIECE_BYTES = 64 << 10
_PPMD_HEAD_BYTES = 3
_LZMA_MEMORY_BYTES = 1 << 30
# As far as `zstd --long=31` goes; memory is taken only as it is filled.
_ZSTD_WINDOW_LOG = 31


class Decoder(Protocol):
    """One packed stream, as the standard library's bz2 and lzma do it."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether it has given out all it can without more bytes."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What followed the end of the stream."""
        ...

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Takes packed bytes, returns at most ``max_length`` unpacked ones."""
        ...


class Zlib:
    """The standard library's zlib."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        """Whether it has given out all it can without more bytes."""
        return not self._stream.eof and not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What followed the end of the stream."""
        return self._stream.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Takes packed bytes, returns at most ``max_length`` unpacked ones."""
        tail = self._stream.unconsumed_tail
        return self._stream.decompress(tail + data if tail else data, max_length)


class Deflate64:
    """Deflate with a window of 64 KiB, which Windows' Explorer uses for large files."""

    def __init__(self) -> None:
        inflate64 = needed("inflate64", "a zip packed with deflate64")
        self._stream: Any = inflate64.Inflater()
        self._waiting = b""
        self._ready = b""
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return bool(self._stream.eof) and not self._ready

    @property
    def needs_input(self) -> bool:
        """Whether it has given out all it can without more bytes."""
        return not self._waiting and not self._ready

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Takes packed bytes, returns at most ``max_length`` unpacked ones."""
        self._waiting += data
        # Its output has no bound, so a little is fed at a time.
        while not self._ready and self._waiting and not self._stream.eof:
            step, self._waiting = self._waiting[:_DEFLATE64_STEP], self._waiting[_DEFLATE64_STEP:]
            self._ready = self._stream.inflate(step)
        if self._stream.eof:
            self._waiting = b""
        out, self._ready = self._ready[:max_length], self._ready[max_length:]
        return out


class ZipPpmd:
    """PPMd as zip frames it: two bytes of the model's settings, and the stream."""

    def __init__(self, nbytes: int) -> None:
        self._package = needed("pyppmd", "a zip packed with PPMd")
        self._left = nbytes
        self._head = b""
        self._stream: Any = None
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        """Whether all of the member has come: an end mark is not always written."""
        return not self._left

    @property
    def needs_input(self) -> bool:
        """Whether it has given out all it can without more bytes."""
        return self._stream is None or bool(self._stream.needs_input)

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Takes packed bytes, returns at most ``max_length`` unpacked ones."""
        data = bytes(data)
        if self._stream is None:
            self._head += data
            if len(self._head) < _PPMD_HEAD_BYTES:
                return b""
            settings, data = int.from_bytes(self._head[:2], "little"), self._head[2:]
            order, megabytes, restore = (
                (settings & 15) + 1,
                (settings >> 4 & 255) + 1,
                settings >> 12,
            )
            self._stream = self._package.Ppmd8Decoder(order, megabytes << 20, restore)
        out: bytes = self._stream.decode(data, min(self._left, max_length))
        self._left -= len(out)
        return out


class ZipLzma:
    """LZMA as zip frames it: four bytes, the coder's properties, the stream."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._head = b""
        self._stream: lzma.LZMADecompressor | None = None
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._stream is not None and self._stream.eof

    @property
    def needs_input(self) -> bool:
        """Whether it has given out all it can without more bytes."""
        return self._stream is None or self._stream.needs_input

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Takes packed bytes, returns at most ``max_length`` unpacked ones."""
        if self._stream is None:
            self._head += data
            if len(self._head) < 9:
                return b""
            properties, data = self._head[4:9], self._head[9:]
            self._stream = self._open(properties)
        return self._stream.decompress(data, max_length)

    def _open(self, properties: bytes) -> lzma.LZMADecompressor:
        import lzma  # most archives need no decoder but zlib

        rest, lc = divmod(properties[0], 9)
        pb, lp = divmod(rest, 5)
        # A distance cannot exceed what was unpacked, so a lying dictionary size costs nothing.
        dictionary = min(int.from_bytes(properties[1:], "little"), self._nbytes)
        filters = [
            {"id": lzma.FILTER_LZMA1, "dict_size": max(4096, dictionary), "lc": lc, "lp": lp}
            | {"pb": pb}
        ]
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def passwords(password: str | bytes) -> list[bytes]:
    """Returns the bytes that a password may have been, the likeliest first."""
    if isinstance(password, bytes):
        return [password]
    found = []
    for encoding in _PASSWORD_ENCODINGS:
        try:
            found.append(password.encode(encoding))
        except UnicodeEncodeError:
            continue
    return list(dict.fromkeys(found))


def text_password(password: Password) -> str | None:
    """Returns a password as text, for packages that encode it themselves."""
    if not isinstance(password, bytes):
        return password
    for encoding in _PASSWORD_ENCODINGS[:2]:
        try:
            return password.decode(encoding)
        except UnicodeDecodeError:
            continue
    return password.decode("latin-1")


def needed(package: str, what: str) -> Any:
    """Imports a package that only some archives need.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        package = _PACKAGES.get(package.partition(".")[0], package)
        message = f"Reading {what} needs the package {package}."
        hint = f"Run %pip install {package}, then run the cell again."
        raise MissingPackageError(message, package=package, hint=hint) from error


def optional(package: str) -> Any:
    """Imports a package that makes something faster, None where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


_igzip = optional("isal.igzip_lib")


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
    import bz2

    return bz2.BZ2Decompressor()


def xz_decoder() -> Decoder:
    """Returns a decoder of one xz stream, or of one that is older than xz."""
    import lzma

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
    except errors() as error:
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
            except errors() as error:
                raise CodecError(str(error)) from error
            if piece:
                left -= len(piece)
                yield piece
        if decoder.eof or not left:
            return


@functools.cache
def errors() -> tuple[type[Exception], ...]:
    """Returns what the decoders raise for damaged bytes."""
    import lzma

    kinds: list[type[Exception]] = [zlib.error, lzma.LZMAError, EOFError, OSError, ValueError]
    kinds += [CodecError, *DAMAGES]
    if _igzip is not None:
        kinds.append(_igzip.error)
    kinds += [m.ZstdError for m in map(optional, ("compression.zstd", "backports.zstd")) if m]
    return tuple(kinds)
