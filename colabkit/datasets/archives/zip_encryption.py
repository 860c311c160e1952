"""Members of a zip that need a password: the old encryption, and AES as WinZip uses it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from colabkit.datasets.archives.codecs import Password, needed, passwords
from colabkit.datasets.archives.zip_directory import ZipEntries
from colabkit.datasets.archives.zip_format import (
    AES_METHOD,
    CENTRAL,
    CENTRAL_MAGIC,
    END,
    END_MAGIC,
    LOCAL,
    LOCAL_MAGIC,
)
from colabkit.errors import ArchiveCorruptError, ArchivePasswordError

HEADER_BYTES = 12
_FACTOR, _MASK = 134775813, 0xFFFFFFFF
_STARTS = (0x12345678, 0x23456789, 0x34567890)
# Numpy takes as long for one member as for a hundred.
_IN_STEP_MIN = 12
_PIECE_BYTES = 1 << 20
_STEP_BYTES = 64 << 10
_CHECKED_EVERY = 1024
_PROGRAM_FROM_BYTES = 256 << 10
# What needs no quoting in the variable that unzip takes its options from.
_PLAIN_PASSWORD = re.compile(rb"[ !#-&(-\[\]-~]+")
_NAME = b"a"
Keys = tuple[int, int, int]
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


def keys_of(password: bytes) -> Keys:
    """Returns the keys that a password begins with."""
    keys = _STARTS
    for byte in password:
        keys = _next(keys, byte)
    return keys


def decrypted(data: bytes | memoryview, keys: Keys) -> tuple[bytes, Keys]:
    """Returns what one stream says, and the keys with which it goes on."""
    crcs, stream = _crcs(), _stream()
    k0, k1, k2 = keys
    out = bytearray(len(data))
    for place, byte in enumerate(data):
        plain = byte ^ stream[k2 & 0xFFFF]
        out[place] = plain
        k0 = crcs[(k0 ^ plain) & 0xFF] ^ (k0 >> 8)
        k1 = ((k1 + (k0 & 0xFF)) * _FACTOR + 1) & _MASK
        k2 = crcs[(k2 ^ (k1 >> 24)) & 0xFF] ^ (k2 >> 8)
    return bytes(out), (k0, k1, k2)


def all_decrypted(
    streams: Sequence[memoryview], keys: Keys, check: Callable[[], None]
) -> list[bytes | memoryview]:
    """Returns what several streams of one password say, without their headers.

    Args:
        streams: The encrypted bytes.
        keys: What the password begins with.
        check: Called again and again; what it raises ends the work.
    """
    out: list[bytes | memoryview] = [b""] * len(streams)
    order = sorted(range(len(streams)), key=lambda at: -len(streams[at]))
    begin = 0
    while begin < len(order):
        # Of about one length: none waits long for another.
        least = len(streams[order[begin]]) // 2
        end = begin
        while end < len(order) and len(streams[order[end]]) >= least:
            end += 1
        group = order[begin:end]
        if len(group) < _IN_STEP_MIN:
            for at in group:
                pieces = []
                for piece in _in_steps([streams[at]], keys):
                    check()
                    pieces.append(piece)
                out[at] = b"".join(pieces)[HEADER_BYTES:]
        else:
            plain = _in_step([streams[at] for at in group], keys, check)
            for at, row in zip(group, plain, strict=True):
                out[at] = row[HEADER_BYTES:]
        begin = end
    return out


def stream_decrypted(
    packed: Iterable[bytes | memoryview], password: bytes, nbytes: int, folder: Path
) -> Iterator[bytes]:
    """Yields what one long stream says, header and all.

    Args:
        packed: Its pieces.
        password: The password.
        nbytes: Its length.
        folder: Where it may be kept aside for the program that is faster.
    """
    import shutil  # AES needs no program
    import tempfile

    unzip = shutil.which("unzip")
    if unzip is None or nbytes < _PROGRAM_FROM_BYTES or not _PLAIN_PASSWORD.fullmatch(password):
        yield from _in_steps(packed, keys_of(password))
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        header = _write_zip(file, packed, nbytes, keys_of(password))
        yield header
        yield from _unzipped(unzip, file, password)


def _in_steps(packed: Iterable[bytes | memoryview], keys: Keys) -> Iterator[bytes]:
    """Yields what one stream says in pieces that take some hundredths of a second each."""
    for piece in packed:
        for begin in range(0, len(piece), _STEP_BYTES):
            plain, keys = decrypted(piece[begin : begin + _STEP_BYTES], keys)
            yield plain


def _write_zip(
    file: BinaryIO, packed: Iterable[bytes | memoryview], nbytes: int, keys: Keys
) -> bytes:
    """Writes a zip of one member that says it is stored: unzip decrypts, and does no more.

    Returns:
        The stream's header, decrypted.
    """
    file.seek(LOCAL.size + len(_NAME))
    for piece in packed:
        file.write(piece)
    begin = file.tell()
    file.seek(LOCAL.size + len(_NAME))
    header = decrypted(file.read(HEADER_BYTES), keys)[0]
    # The header's last byte is that of the CRC, by which unzip tells a wrong password.
    facts = (20, 0x1, 0, 0, 0, header[-1] << 24, nbytes, nbytes - HEADER_BYTES)
    file.seek(0)
    file.write(LOCAL.pack(LOCAL_MAGIC, *facts, len(_NAME), 0) + _NAME)
    file.seek(begin)
    file.write(CENTRAL.pack(CENTRAL_MAGIC, 20, *facts, len(_NAME), 0, 0, 0, 0, 0, 0) + _NAME)
    file.write(END.pack(END_MAGIC, 0, 0, 1, 1, file.tell() - begin, begin, 0))
    file.flush()
    return header


def _unzipped(unzip: str, file: BinaryIO, password: bytes) -> Iterator[bytes]:
    """Yields what the one member of a zip says; whether that is right is the reader's to check."""
    import subprocess  # hardly any zip is encrypted

    from colabkit.runtime import start_program

    options = b'-P "' + password + b'"' if b" " in password else b"-P " + password
    process = start_program(
        [unzip, "-p", f"/dev/fd/{file.fileno()}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[file.fileno()],
        # Not among its arguments, which every user of the machine can read.
        env={**os.environb, b"UNZIP": options},
    )
    try:
        if process.stdout is not None:
            while piece := process.stdout.read(_PIECE_BYTES):
                yield piece
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _in_step(
    streams: Sequence[memoryview], keys: Keys, check: Callable[[], None]
) -> Iterator[memoryview]:
    """Yields what many streams say, byte by byte of all at once; the first is the longest."""
    import numpy as np  # what is not encrypted needs none

    sizes = np.array([len(stream) for stream in streams])
    rows = np.zeros((len(streams), sizes[0]), np.uint8)
    for row, stream in zip(rows, streams, strict=True):
        row[: len(stream)] = stream
    packed = np.ascontiguousarray(rows.T)
    crcs, laid_over = np.array(_crcs(), np.uint32), np.frombuffer(_stream(), np.uint8)
    k0, k1, k2 = (np.full(len(streams), key, np.uint32) for key in keys)
    # The keys' bytes as they lie in memory: no word has to be shifted and masked for them.
    low0, low2 = (key.view(np.uint8)[_FIRST::4] for key in (k0, k2))
    top1, half2 = k1.view(np.uint8)[_LAST::4], k2.view(np.uint16)[_FIRST_HALF::2]
    for place, column in enumerate(packed):
        if not place % _CHECKED_EVERY:
            check()
        column ^= laid_over.take(half2)
        index = low0 ^ column
        k0 >>= 8
        k0 ^= crcs.take(index)
        k1 += low0
        k1 *= _FACTOR
        k1 += 1
        index = low2 ^ top1
        k2 >>= 8
        k2 ^= crcs.take(index)
    plain = np.ascontiguousarray(packed.T)
    for row, nbytes in zip(plain, sizes.tolist(), strict=True):
        yield memoryview(row)[:nbytes]


_LITTLE = sys.byteorder == "little"
_FIRST, _LAST, _FIRST_HALF = (0, 3, 0) if _LITTLE else (3, 0, 1)


@lru_cache(1)
def _crcs() -> tuple[int, ...]:
    """Returns the table by which a CRC-32 takes a byte."""
    return tuple(zlib.crc32(bytes([byte]), _MASK) ^ _MASK for byte in range(256))


@lru_cache(1)
def _stream() -> bytes:
    """Returns the byte that is laid over the next, for each lower half of the third key."""
    halves = (half | 2 for half in range(1 << 16))
    return bytes((half * (half ^ 1) >> 8) & 0xFF for half in halves)


def _next(keys: Keys, byte: int) -> Keys:
    crcs = _crcs()
    k0 = crcs[(keys[0] ^ byte) & 0xFF] ^ (keys[0] >> 8)
    k1 = ((keys[1] + (k0 & 0xFF)) * _FACTOR + 1) & _MASK
    return k0, k1, crcs[(keys[2] ^ (k1 >> 24)) & 0xFF] ^ (keys[2] >> 8)


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

    def facts(self, row: int) -> AesFacts | None:
        """Returns what an entry says of its AES, None where it has none."""
        return aes_facts(self._entries, row)

    @property
    def goes_in_step(self) -> bool:
        """Whether members are decrypted the faster, the more there are at once."""
        facts = zip(self._entries.flags, self._entries.methods, strict=True)
        return any(flags & _ENCRYPTED and method != AES_METHOD for flags, method in facts)

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
            raise ArchiveCorruptError.of(name, "is too short for its encryption")
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
            raise ArchiveCorruptError.of(path, "is too short for its encryption")
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
            raise ArchiveCorruptError.of(path, "is not what was encrypted")

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
