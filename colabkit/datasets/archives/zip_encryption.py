"""Members of a zip that need a password: the old encryption, and AES as WinZip and 7-Zip use it."""

from __future__ import annotations

import hashlib
import hmac
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabkit.datasets.archives.codecs import Password, needed, passwords
from colabkit.datasets.archives.zip_crypto import (
    HEADER_BYTES,
    all_decrypted,
    decrypted,
    keys_of,
    stream_decrypted,
)
from colabkit.datasets.archives.zip_directory import ZipEntries
from colabkit.datasets.writing.damage import corrupt
from colabkit.errors import ArchiveCorruptError, ArchivePasswordError

AES_METHOD = 99
_AES_WHAT = "a zip encrypted with AES"
_AES_EXTRA = 0x9901
_AES = struct.Struct("<H2sBH")
_ENCRYPTED, _CRC_LATER = 0x1, 0x8
_SALT_BYTES = {1: 8, 2: 12, 3: 16}
_KEY_BYTES = {1: 16, 2: 24, 3: 32}
_MARK_BYTES, _SEAL_BYTES, _ROUNDS = 2, 10, 1000
_TIME_AT = 12
# So many checks of one byte leave no wrong password.
_CHECKED = 16


@dataclass(frozen=True, slots=True)
class AesFacts:
    """What an entry says of its AES: how strong, what is inside, whether its CRC is told."""

    strength: int
    method: int
    has_crc: bool

    @property
    def around_bytes(self) -> int:
        """How many bytes stand around the member's own."""
        return _SALT_BYTES[self.strength] + _MARK_BYTES + _SEAL_BYTES


def aes_facts(entries: ZipEntries, row: int) -> AesFacts | None:
    """Returns what an entry says of its AES, None where it says nothing that is known."""
    for kind, data in entries.extras(row):
        if kind == _AES_EXTRA and len(data) >= _AES.size:
            version, _, strength, method = _AES.unpack_from(data)
            if strength in _SALT_BYTES and version in {1, 2}:
                return AesFacts(strength, method, version == 1)
    return None


class Decryption:
    """Takes the encryption off members; threads may share it.

    Args:
        entries: The directory.
        password: What the user gave.
    """

    def __init__(self, entries: ZipEntries, password: Password) -> None:
        self._entries = entries
        self._candidates = passwords(password) if password is not None else []
        self._guard = threading.Lock()
        self._chosen: bytes | None = None

    @property
    def goes_in_step(self) -> bool:
        """Whether members are decrypted the faster, the more there are at once."""
        is_old = (self._entries.flags & _ENCRYPTED != 0) & (self._entries.methods != AES_METHOD)
        return bool(is_old.any())

    def small(
        self,
        packed: Sequence[memoryview],
        rows: Sequence[int],
        paths: Sequence[str],
        check: Callable[[], None],
    ) -> list[bytes | memoryview]:
        """Returns what small members say, packed as they are; one that is plain stays as it is.

        Args:
            packed: Their bytes.
            rows: Their places in the directory.
            paths: Their names, for messages.
            check: Raises once nobody waits for them any more.
        """
        out: list[bytes | memoryview] = list(packed)
        methods, flags = self._entries.methods, self._entries.flags
        are_old = []
        for at, row in enumerate(rows):
            if methods[row] == AES_METHOD:
                out[at] = b"".join(self._aes_pieces(iter([packed[at]]), row, paths[at]))
            elif flags[row] & _ENCRYPTED:
                are_old.append(at)
        if are_old:
            heads = [(packed[at][:HEADER_BYTES], rows[at], paths[at]) for at in are_old]
            keys = keys_of(self._password_for(heads))
            streams = [packed[at] for at in are_old]
            for at, plain in zip(are_old, all_decrypted(streams, keys, check), strict=True):
                out[at] = plain
        return out

    def large(
        self, packed: Iterable[bytes | memoryview], row: int, path: str, aside: Path
    ) -> Iterator[bytes | memoryview]:
        """Yields what a large member says, packed as it is."""
        nbytes = int(self._entries.packed_bytes[row])
        if self._entries.methods[row] == AES_METHOD:
            yield from self._aes_pieces(packed, row, path)
            return
        pieces = iter(packed)
        head = b""
        while len(head) < HEADER_BYTES and (piece := next(pieces, None)) is not None:
            head += piece
        password = self._password_for([(memoryview(head)[:HEADER_BYTES], row, path)])
        skipped = 0
        whole = _chained(memoryview(head), pieces)
        for plain in stream_decrypted(whole, password, nbytes, aside):
            begin = min(len(plain), HEADER_BYTES - skipped)
            skipped += begin
            yield memoryview(plain)[begin:]

    def _password_for(self, heads: Sequence[tuple[memoryview, int, str]]) -> bytes:
        """Returns the password that the check bytes of these members allow."""
        with self._guard:
            candidates = self._candidates if self._chosen is None else [self._chosen]
            for candidate in candidates:
                keys = keys_of(candidate)
                if all(self._fits(data, row, keys) for data, row, _ in heads):
                    self._chosen = candidate if len(heads) >= _CHECKED else self._chosen
                    return candidate
        raise _wrong(heads[0][2])

    def _fits(self, data: memoryview, row: int, keys: tuple[int, int, int]) -> bool:
        """Whether a header says under some keys what it is to say; one of 256 does by chance."""
        if len(data) < HEADER_BYTES:
            name = self._entries.raw_name(row).decode("utf-8", "replace")
            raise corrupt(name, "is too short for its encryption")
        check = decrypted(data, keys)[0][-1]
        time_at = int(self._entries.starts[row]) + _TIME_AT
        by_time = self._entries.raw[time_at + 1]
        by_crc = int(self._entries.crcs[row]) >> 24
        return check == by_crc or (bool(self._entries.flags[row] & _CRC_LATER) and check == by_time)

    def _aes_pieces(
        self, packed: Iterable[bytes | memoryview], row: int, path: str
    ) -> Iterator[bytes]:
        facts = aes_facts(self._entries, row)
        left = int(self._entries.packed_bytes[row])
        if facts is None or left < facts.around_bytes:
            raise corrupt(path, "is too short for its encryption")
        left -= facts.around_bytes
        ahead = _SALT_BYTES[facts.strength] + _MARK_BYTES
        held = b""
        cipher: Any = None
        seal: Any = None
        for piece in packed:
            data: bytes | memoryview = piece
            if cipher is None:
                held += piece
                if len(held) < ahead:
                    continue
                cipher, seal = self._aes(facts, held[:ahead], path)
                data, held = held[ahead:], b""
            part, rest = data[:left], data[left:]
            left -= len(part)
            held += rest
            if part:
                seal.update(part)
                yield cipher.decrypt(part)
        if cipher is None or not hmac.compare_digest(seal.digest()[:_SEAL_BYTES], held):
            raise corrupt(path, "is not what was encrypted")

    def _aes(self, facts: AesFacts, head: bytes, path: str) -> tuple[Any, Any]:
        salt, mark = head[:-_MARK_BYTES], head[-_MARK_BYTES:]
        nbytes = _KEY_BYTES[facts.strength]
        aes = needed("Cryptodome.Cipher.AES", _AES_WHAT)
        counter = needed("Cryptodome.Util.Counter", _AES_WHAT)
        with self._guard:
            candidates = self._candidates if self._chosen is None else [self._chosen]
        for candidate in candidates:
            derived = hashlib.pbkdf2_hmac(
                "sha1", candidate, salt, _ROUNDS, 2 * nbytes + _MARK_BYTES
            )
            if derived[-_MARK_BYTES:] == mark:
                if len(candidates) > 1:
                    with self._guard:
                        self._chosen = candidate
                count = counter.new(128, little_endian=True, initial_value=1)
                cipher = aes.new(derived[:nbytes], aes.MODE_CTR, counter=count)
                return cipher, hmac.new(derived[nbytes : 2 * nbytes], digestmod="sha1")
        raise _wrong(path)


def _chained(first: memoryview, rest: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    yield first
    yield from rest


def _wrong(path: str) -> ArchivePasswordError:
    message = f"The password is wrong for member {path!r}."
    return ArchivePasswordError(message, member=path, hint="Pass the right one as password=.")


def maybe_wrong(error: ArchiveCorruptError) -> ArchiveCorruptError:
    """Returns an error about an encrypted member, which a wrong password may explain as well."""
    error.hint = f"Is the password right? {error.hint}"
    return error
