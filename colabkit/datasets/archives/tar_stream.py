"""A tar's bytes in order: unpacked in a thread of their own, cut into headers and contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from colabkit.datasets.archives.codecs import (
    GZIP,
    CodecError,
    Decoder,
    bz2_decoder,
    decode,
    deflate_decoder,
    lz4_decoder,
    optional,
    pull_zstd,
    xz_decoder,
    zstd_decoder,
)
from colabkit.datasets.archives.kinds import ArchiveKind, magic_of, skipped_bytes
from colabkit.datasets.archives.tar_headers import BLOCK_BYTES
from colabkit.errors import ArchiveCorruptError, ArchiveUnsupportedError

_NO_BOUND = 1 << 62
_CUT_HINT = "It was cut short: upload or download it again."
_VOLUME_HINT = (
    " If it is one of several volumes, as tar -M writes them, unpack them with"
    " `tar -xMf FIRST -f SECOND ...`, and pass the folder."
)
# Who inflates waits for the interpreter at every piece while headers are cut: few and large.
_PIECE_BYTES = 1 << 20
_DECODERS: dict[ArchiveKind, Callable[[], Decoder]] = {
    ArchiveKind.TAR_GZ: lambda: deflate_decoder(GZIP),
    ArchiveKind.TAR_BZ2: bz2_decoder,
    ArchiveKind.TAR_XZ: xz_decoder,
    ArchiveKind.TAR_ZST: zstd_decoder,
    ArchiveKind.TAR_LZ4: lz4_decoder,
    ArchiveKind.TAR_LZMA: xz_decoder,
}
_WITH_SKIPPED = frozenset({ArchiveKind.TAR_ZST, ArchiveKind.TAR_LZ4})
_SKIPPED_HEAD_BYTES = 8
# As Zstandard itself calls it, whichever package asks it.
_OTHER_DICTIONARY = "Dictionary mismatch"


def unpacked_pieces(
    kind: ArchiveKind, chunks: Iterable[bytes], *, on_junk: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """Yields what a packed tar unpacks to; several streams one after the other are one.

    Args:
        kind: How it is packed.
        chunks: The packed bytes.
        on_junk: Told that a packed stream ended and something else follows it.

    Raises:
        ArchiveCorruptError: The packed bytes are damaged or end too early.
        ArchiveUnsupportedError: They can only be unpacked with a dictionary.
    """
    if kind is ArchiveKind.TAR:
        yield from chunks
        return
    try:
        if kind is ArchiveKind.TAR_ZST and optional("compression.zstd") is None:
            yield from pull_zstd(chunks, _PIECE_BYTES)
        else:
            yield from _streams(kind, _small(chunks), on_junk)
    except CodecError as error:
        if _OTHER_DICTIONARY in str(error):
            message = f"The {kind.value} was packed with a dictionary, which is not in it."
            hint = "Unpack it with `zstd -d -D DICTIONARY`, and pass the tar."
            raise ArchiveUnsupportedError(message, hint=hint) from error
        message = f"The {kind.value} is damaged ({error})."
        raise ArchiveCorruptError(message, hint="Upload or download it again.") from error


def _streams(
    kind: ArchiveKind, chunks: Iterator[bytes], on_junk: Callable[[], None]
) -> Iterator[bytes]:
    rest, magic = _behind_skipped(kind, b"", chunks), magic_of(kind)
    while True:
        decoder = _DECODERS[kind]()
        yield from decode(
            decoder, chain(_small([rest]), chunks), _NO_BOUND, piece_bytes=_PIECE_BYTES
        )
        if not decoder.eof:
            message = "it ends too early"
            raise CodecError(message)
        # Padding with zeros is allowed after a stream, and further streams.
        rest = bytes(decoder.unused_data or b"").lstrip(b"\0")
        while len(rest) < len(magic) and (more := next(chunks, b"")):
            rest = (rest + more).lstrip(b"\0")
        rest = _behind_skipped(kind, rest, chunks).lstrip(b"\0")
        if not rest:
            return
        if not rest.startswith(magic):
            on_junk()
            return


def _behind_skipped(kind: ArchiveKind, rest: bytes, chunks: Iterator[bytes]) -> bytes:
    """Returns what follows the frames for others that come next.

    Raises:
        CodecError: It ends within one.
    """
    if kind not in _WITH_SKIPPED:
        return rest
    while True:
        while len(rest) < _SKIPPED_HEAD_BYTES and (more := next(chunks, b"")):
            rest += more
        if not (left := skipped_bytes(rest)):
            return rest
        while left > len(rest):
            left -= len(rest)
            rest = next(chunks, b"")
            if not rest:
                message = "it ends too early"
                raise CodecError(message)
        rest = rest[left:]


def _small(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the chunks in parts that a decoder takes whole, so that it holds what is left."""
    for chunk in chunks:
        for begin in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[begin : begin + _PIECE_BYTES]


def cut_hint(kind: ArchiveKind, archive_bytes: int) -> str:
    """Returns what to do about a tar that ends within a member.

    A volume of several is whole blocks; what was cut short seldom is.
    """
    may_go_on = kind is ArchiveKind.TAR and not archive_bytes % BLOCK_BYTES
    return _CUT_HINT + (_VOLUME_HINT if may_go_on else "")


class Blocks:
    """Takes exact numbers of bytes from pieces of any size.

    Args:
        pieces: The tar's bytes.
        on_piece: Told the size of each piece.
        hint: What to do where they end too early.
    """

    def __init__(
        self, pieces: Iterable[bytes], on_piece: Callable[[int], None], *, hint: str
    ) -> None:
        self._pieces = iter(pieces)
        self._on_piece = on_piece
        self._hint = hint
        self._view = memoryview(b"")

    def exactly(self, nbytes: int, member: str) -> bytes:
        """Returns so many bytes in one.

        Raises:
            ArchiveCorruptError: The archive ends before.
        """
        if len(self._view) < nbytes:
            return b"".join(self.views(nbytes, member))
        part = self._view[:nbytes].tobytes()
        self._view = self._view[nbytes:]
        return part

    def pieces(self, nbytes: int, member: str) -> list[memoryview[Any]]:
        """Returns so many bytes without a copy."""
        if not nbytes or len(self._view) < nbytes:
            return list(self.views(nbytes, member))
        part = self._view[:nbytes]
        self._view = self._view[nbytes:]
        return [part]

    def peek(self, nbytes: int) -> bytes:
        """Returns the bytes that come next, fewer only at the end; they stay there."""
        while len(self._view) < nbytes:
            held = self._view
            if not self._next():
                self._view = held
                break
            self._view = memoryview(b"".join([held, self._view]))
        return self._view[:nbytes].tobytes()

    def skip(self, nbytes: int, member: str) -> None:
        """Passes over so many bytes."""
        if nbytes <= len(self._view):
            self._view = self._view[nbytes:]
        else:
            for _ in self.views(nbytes, member):
                pass

    def views(self, nbytes: int, member: str) -> Iterator[memoryview[Any]]:
        """Yields so many bytes without a copy."""
        while nbytes:
            if not self._view and not self._next():
                message = f"The archive ends within member {member!r}." if member else _CUT
                raise ArchiveCorruptError(message, member=member, hint=self._hint)
            part = self._view[:nbytes]
            self._view = self._view[len(part) :]
            nbytes -= len(part)
            yield part

    def drain(self) -> bool:
        """Reads to the end, so that the packed stream's own checksum is checked.

        Returns:
            Whether anything but zeros was left.
        """
        more = bool(self._view) and bool(self._view.tobytes().strip(b"\0"))
        while self._next():
            more = more or bool(self._view.tobytes().strip(b"\0"))
        return more

    def _next(self) -> bool:
        for piece in self._pieces:
            if piece:
                self._view = memoryview(piece)
                self._on_piece(len(piece))
                return True
        return False


_CUT = "The archive ends within a header."
