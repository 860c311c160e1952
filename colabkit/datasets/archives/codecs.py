"""Decompressors with one interface, each bounded in what it gives out at once."""

from __future__ import annotations

import importlib
import lzma
import zlib
from typing import Any, Protocol

from colabkit.errors import MissingPackageError

Password = str | bytes | None
"""What an archive is encrypted with, as text or as the very bytes."""

_PASSWORD_ENCODINGS = ("utf-8", "gb18030", "cp932", "big5", "cp949", "cp437", "latin-1")
_PACKAGES = {"lz4": "lz4", "Cryptodome": "pycryptodomex"}
_DEFLATE64_STEP = 4 << 10


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
