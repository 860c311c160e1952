"""Files that tell by themselves that their end is missing."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_ZIP_END_BYTES = 22
_ZIP_TAIL_BYTES = _ZIP_END_BYTES + 65_535
_SUPERBLOCK_BYTES = 56
_HDF5 = b"\x89HDF\r\n\x1a\n"
_JSON_BYTES_MAX = 16 << 20
_SAFETENSORS_HEADER_MAX = 100_000_000

# A program has these open only until they are whole: logs and tables grow while they are open.
WEIGHTS = frozenset(
    {
        *(".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".keras", ".npz", ".npy"),
        *(".zip", ".pkl", ".pickle", ".msgpack", ".onnx", ".gguf", ".tar", ".joblib", ".distcp"),
        *(".pdparams", ".pdopt", ".pdema", ".states", ".state", ".eqx"),
    }
)


def is_torn(path: Path) -> bool:
    """Whether a file lacks its end, as far as its format tells: zip, safetensors, HDF5, JSON.

    PyTorch's and Keras' own files are zips. A file of any other kind is never called torn.
    """
    with path.open("rb") as file:
        nbytes = os.fstat(file.fileno()).st_size
        head = file.read(128)
        if path.suffix in WEIGHTS and (_ZIP.startswith(head) or _HDF5.startswith(head)):
            return True
        if head.startswith(_ZIP):
            file.seek(max(0, nbytes - _ZIP_TAIL_BYTES))
            return not _ends_as_zip(file.read())
        if head.startswith(_HDF5):
            return len(head) < _SUPERBLOCK_BYTES or _hdf5_bytes(head) > nbytes
        if path.suffix == ".safetensors":
            return _safetensors_bytes(head, path) > nbytes
        if path.suffix == ".json" and nbytes <= _JSON_BYTES_MAX:
            file.seek(0)
            return not _is_json(file.read())
    return False


def _ends_as_zip(tail: bytes) -> bool:
    place = tail.rfind(_ZIP_END)
    if place < 0 or len(tail) - place < _ZIP_END_BYTES:
        return False
    comment = int(struct.unpack_from("<H", tail, place + _ZIP_END_BYTES - 2)[0])
    return len(tail) - place >= _ZIP_END_BYTES + comment


def _hdf5_bytes(head: bytes) -> int:
    """Returns how long the superblock says the file is, 0 where it does not say."""
    version = head[8]
    if version in {0, 1}:
        place = 40 if version == 0 else 44
        return int(struct.unpack_from("<Q", head, place)[0]) if head[13] == 8 else 0
    return int(struct.unpack_from("<Q", head, 28)[0]) if head[9] == 8 else 0


def _safetensors_bytes(head: bytes, path: Path) -> int:
    """Returns how long the header says the file is, and 1 more than it is without a header."""
    nbytes = path.stat().st_size
    if len(head) < 8:
        return nbytes + 1
    length = int(struct.unpack_from("<Q", head)[0])
    if length > _SAFETENSORS_HEADER_MAX or 8 + length > nbytes:
        return nbytes + 1
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = json.loads(file.read(length))
            ends = [each["data_offsets"][1] for n, each in header.items() if n != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return nbytes + 1
    return 8 + length + max(ends, default=0)


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        # Comments and several values one after the other are in use, and end somewhere.
        return data.rstrip().endswith((b"}", b"]", b'"', b"e", b"l")) and data.endswith(b"\n")
    return True
