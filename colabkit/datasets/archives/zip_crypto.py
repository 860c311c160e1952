"""The old encryption of zips, whose keys depend on every byte before: many members in step."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

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
_Words = np.ndarray[Any, np.dtype[np.uint32]]


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


_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")


def _write_zip(
    file: BinaryIO, packed: Iterable[bytes | memoryview], nbytes: int, keys: Keys
) -> bytes:
    """Writes a zip of one member that says it is stored: unzip decrypts, and does no more.

    Returns:
        The stream's header, decrypted.
    """
    file.seek(_LOCAL.size + len(_NAME))
    for piece in packed:
        file.write(piece)
    begin = file.tell()
    file.seek(_LOCAL.size + len(_NAME))
    header = decrypted(file.read(HEADER_BYTES), keys)[0]
    # The header's last byte is that of the CRC, by which unzip tells a wrong password.
    facts = (20, 0x1, 0, 0, 0, header[-1] << 24, nbytes, nbytes - HEADER_BYTES)
    file.seek(0)
    file.write(_LOCAL.pack(b"PK\3\4", *facts, len(_NAME), 0) + _NAME)
    file.seek(begin)
    file.write(_ENTRY.pack(b"PK\1\2", 20, *facts, len(_NAME), 0, 0, 0, 0, 0, 0) + _NAME)
    file.write(_END.pack(b"PK\5\6", 0, 0, 1, 1, file.tell() - begin, begin, 0))
    file.flush()
    return header


def _unzipped(unzip: str, file: BinaryIO, password: bytes) -> Iterator[bytes]:
    """Yields what the one member of a zip says; whether that is right is the reader's to check."""
    options = b'-P "' + password + b'"' if b" " in password else b"-P " + password
    process = subprocess.Popen(  # noqa: S603 - a program that was found
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
