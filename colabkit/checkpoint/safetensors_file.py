"""Safetensors files: written raw from memory, read strictly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from colabkit.checkpoint.tensors import ITEM_BYTES, TensorSpec, expected_nbytes
from colabkit.errors import CheckpointCorruptError
from colabkit.storage import Bytes

_HEADER_MAX = 64 << 20
_LENGTH_BYTES = 8


def header_of(tensors: Mapping[str, TensorSpec]) -> Bytes:
    """Returns the header of a file that holds the tensors one after the other."""
    table, end = {}, 0
    for key, spec in tensors.items():
        begin, end = end, end + spec.nbytes
        table[key] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return np.frombuffer(len(text).to_bytes(_LENGTH_BYTES, "little") + text, np.uint8)


def merged(views: Iterable[Bytes]) -> list[Bytes]:
    """Joins views that lie next to each other in one block of memory, for fewer writes."""
    joined: list[Bytes] = []
    end = -1
    for view in views:
        if not len(view):
            continue
        start = view.__array_interface__["data"][0]
        if start == end and joined and joined[-1].base is view.base and view.base is not None:
            last = joined[-1]
            begin = last.__array_interface__["data"][0] - view.base.__array_interface__["data"][0]
            joined[-1] = view.base[begin : begin + len(last) + len(view)]
        else:
            joined.append(view)
        end = start + len(view)
    return joined


def read_shard(data: Bytes, path: str) -> dict[str, tuple[TensorSpec, Bytes]]:
    """Returns the tensors of a file as views of its bytes.

    Raises:
        CheckpointCorruptError: The header is not exactly what safetensors allows.
    """
    try:
        return _read(data, path)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        if isinstance(error, CheckpointCorruptError):
            raise
        raise _corrupt(path, f"unreadable header ({type(error).__name__})") from error


def _read(data: Bytes, path: str) -> dict[str, tuple[TensorSpec, Bytes]]:
    if len(data) < _LENGTH_BYTES:
        raise _corrupt(path, "shorter than a header")
    length = int.from_bytes(data[:_LENGTH_BYTES].tobytes(), "little")
    if length > min(_HEADER_MAX, len(data) - _LENGTH_BYTES):
        raise _corrupt(path, "a header longer than the file")
    text = data[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes()
    table = json.loads(text, object_pairs_hook=_no_doubles)
    body = data[_LENGTH_BYTES + length :]
    tensors, end = {}, 0
    for key, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
        spec = _spec(entry, path, key)
        begin, stop = entry["data_offsets"]
        if begin != end or stop - begin != spec.nbytes or stop > len(body):
            raise _corrupt(path, f"offsets of {key!r} that overlap, leave a gap or lead outside")
        tensors[key] = (spec, body[begin:stop])
        end = stop
    if end != len(body):
        raise _corrupt(path, "bytes that belong to no tensor")
    return tensors


def _spec(entry: Any, path: str, key: str) -> TensorSpec:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    whole = [*shape, *offsets]
    if dtype not in ITEM_BYTES or any(type(n) is not int or n < 0 for n in whole):
        raise _corrupt(path, f"an impossible form of {key!r}")
    return TensorSpec(dtype, tuple(shape), expected_nbytes(dtype, shape))


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        message = "a key stands twice"
        raise ValueError(message)
    return table


def _corrupt(path: str, reason: str) -> CheckpointCorruptError:
    message = f"{path} is no whole safetensors file: {reason}."
    return CheckpointCorruptError(message, path=path, reason=reason)
