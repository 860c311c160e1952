"""TensorBoard's event files: scalars as bytes, many steps at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.uint8]

_VERSION = b"brain.Event:2"
_STEP_BYTES = 5
_LENGTH_BYTES, _CRC_BYTES = 8, 4
_POLYNOMIAL, _MASK = 0x82F63B78, 0xA282EAD8


def header(wall_time: float) -> bytes:
    """Returns what a file begins with.

    Args:
        wall_time: Seconds since the epoch.
    """
    event = b"\x09" + np.float64(wall_time).tobytes() + _field(3, _VERSION)
    return _records(np.frombuffer(event, np.uint8)[None]).tobytes()


def events(wall_times: Floats, steps: npt.NDArray[np.int64], values: Mapping[str, Floats]) -> bytes:
    """Returns an event for each step that has a value.

    Args:
        wall_times: [steps] seconds since the epoch.
        steps: [steps] in growing order.
        values: By tag, [steps]; NaN where there is none.

    Source:
        TensorFlow's event.proto, summary.proto and record_writer.cc: a record is its length,
        the length's CRC, the bytes, and their CRC; a CRC is CRC-32C, rotated and offset.
    """
    tags = list(values)
    table = np.array([values[tag] for tag in tags], np.float64).reshape(len(tags), len(steps))
    there = ~np.isnan(table)
    kinds, kind_of_step = np.unique(there.T, axis=0, return_inverse=True)
    rows: list[bytes] = [b""] * len(steps)
    for number, kind in enumerate(kinds):
        if not kind.any():
            continue
        chosen = np.flatnonzero(kind_of_step.reshape(-1) == number)
        with np.errstate(over="ignore"):
            numbers = table[kind][:, chosen].astype("<f4")
        names = [tag for tag, is_there in zip(tags, kind, strict=True) if is_there]
        records = _records(_same_kind(wall_times[chosen], steps[chosen], names, numbers))
        if len(chosen) == len(steps):
            return records.tobytes()
        for place, record in zip(chosen.tolist(), records, strict=True):
            rows[place] = record.tobytes()
    return b"".join(rows)


def _same_kind(
    wall_times: Floats,
    steps: npt.NDArray[np.int64],
    tags: list[str],
    numbers: npt.NDArray[np.float32],
) -> Array:
    """Returns events that differ in numbers only: [steps, bytes]."""
    summary, places = b"", []
    for tag in tags:
        value = _field(1, tag.encode()) + b"\x15" + bytes(4)
        summary += _field(1, value)
        places.append(len(summary) - 4)
    start = b"\x09" + bytes(8) + b"\x10" + bytes(_STEP_BYTES) + b"\x2a" + _varint(len(summary))
    rows = np.tile(np.frombuffer(start + summary, np.uint8), (len(steps), 1))
    rows[:, 1:9] = np.ascontiguousarray(wall_times, "<f8")[:, None].view(np.uint8)
    for place in range(_STEP_BYTES):
        more = 0x80 if place < _STEP_BYTES - 1 else 0
        rows[:, 10 + place] = (steps >> 7 * place) & 0x7F | more
    for place, line in zip(places, numbers, strict=True):
        at = len(start) + place
        rows[:, at : at + 4] = np.ascontiguousarray(line)[:, None].view(np.uint8)
    return rows


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def _records(rows: Array) -> Array:
    """Frames events of one length: [events, bytes]."""
    count, length = rows.shape
    size = np.frombuffer(np.uint64(length).tobytes(), np.uint8)
    whole = np.empty((count, _LENGTH_BYTES + _CRC_BYTES + length + _CRC_BYTES), np.uint8)
    whole[:, :_LENGTH_BYTES] = size
    whole[:, _LENGTH_BYTES : _LENGTH_BYTES + _CRC_BYTES] = _masked_crcs(size[None])
    whole[:, _LENGTH_BYTES + _CRC_BYTES : -_CRC_BYTES] = rows
    whole[:, -_CRC_BYTES:] = _masked_crcs(rows)
    return whole


def _table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


_TABLE = _table()


def _masked_crcs(rows: Array) -> Array:
    """Returns the CRC of each row as its four bytes: [rows, 4]."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    crc = ~crc
    turned = (crc >> np.uint32(15) | crc << np.uint32(17)).astype(np.uint32)
    masked = (turned.astype(np.uint64) + _MASK).astype("<u4")
    return masked[:, None].view(np.uint8)
