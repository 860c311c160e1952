"""Reads a run folder by the rules of docs/format.md alone; nothing of colabkit is used."""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

NAME = re.compile(r"a(\d{2,})-g(\d{4,})-(\d{8,})-([0-9a-f]{8})")
SHARD = re.compile(r"[A-Za-z0-9_.~ -]+\.safetensors")
FRONT, MIDDLE = b'{"xxh3_128":"', b'","manifest":'
# NumPy has no type for BF16 and the two F8: their bits are what counts here.
DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2",
    "U8": "u1", "C64": "c8", "BOOL": "b1",
}  # fmt: skip
Tensors = dict[str, np.ndarray]


def names(run: Path) -> list[str]:
    """Returns the checkpoints there, newest first."""
    found = [m for path in run.glob("checkpoints/*.json") if (m := NAME.fullmatch(path.stem))]
    return [m[0] for m in sorted(found, key=lambda m: (*map(int, m.groups()[:3]), m[4]))[::-1]]


def read(run: Path, name: str) -> dict[str, Any]:
    """Returns the state of each section, every hash verified; objects of classes as dicts."""
    raw = (run / f"checkpoints/{name}.json").read_bytes()
    told, body = raw[len(FRONT) :][:32], raw[len(FRONT) + 32 + len(MIDDLE) : -1]
    assert raw == FRONT + told + MIDDLE + body + b"}"
    assert told.decode() == xxhash.xxh3_128_hexdigest(body)
    found, files, tensors = json.loads(body), {}, collections.defaultdict(dict)
    assert (found["format"] in {1, 2}, found["name"]) == (True, name)
    for file, (size, told) in found["shards"].items():
        assert SHARD.fullmatch(file)
        raw = (run / "shards" / file).read_bytes()
        assert (len(raw), xxhash.xxh3_128_hexdigest(raw)) == (size, told)
        start = 8 + int.from_bytes(raw[:8], "little")
        files[file] = json.loads(raw[8:start]), raw[start:]
    for section, key, dtype, shape, told, file, *box in found["tensors"]:
        entry = files[file][0][key]
        data = files[file][1][slice(*entry["data_offsets"])]
        assert (entry["dtype"], entry["shape"]) == (dtype, shape)
        assert xxhash.xxh3_128_hexdigest(data) == told
        tensor = np.frombuffer(data, "<" + DTYPES[dtype]).reshape(shape)
        for whole, offset in box:
            there = tensors[section].setdefault(key, np.empty(whole, tensor.dtype))
            there[tuple(slice(at, at + n) for at, n in zip(offset, shape, strict=True))] = tensor
            tensor = there
        tensors[section][key] = tensor
    return {section: state(s, tensors[section], []) for section, s in found["skeletons"].items()}


def state(node: Any, tensors: Tensors, members: list[np.ndarray]) -> Any:
    if not isinstance(node, dict):
        is_list = isinstance(node, list)
        return [state(each, tensors, members) for each in node] if is_list else node
    kind = node.get("$")
    value, at = node.get("value"), node.get("at", 0)
    if kind == "packed":
        rows = [iter(tensors[f"packed {place}"]) for place in range(len(node["kinds"]))]
        return state(node["state"], tensors, [next(rows[place]) for place in node["of"]])
    if kind in {"packed one", "packed tuple"}:
        return members[at] if kind == "packed one" else tuple(members[at : at + node["of"]])
    if kind in {"tensor", "array", "transposed"}:
        is_plain = kind != "transposed"
        return tensors[node["key"]] if is_plain else transposed(node, tensors, members)
    if kind in {"bytes", "bytearray", "scalar"}:
        raw = bytes.fromhex(value)
        return np.frombuffer(raw, node["dtype"])[0] if kind == "scalar" else raw
    if kind in {"float", "complex"}:
        return float(value) if kind == "float" else complex(*map(float, value))
    if kind in {None, "dataclass", "enum", "flags", "composite", "sparse", "complex128", "torch"}:
        return {key: state(each, tensors, members) for key, each in node.items()}
    if kind in {"members", "numbers", "scalars", "some", "rows"}:
        return column(node, tensors, members)
    items = state(node["plain" if kind == "own" else "items"], tensors, members)
    if kind == "deque":
        return collections.deque(items, node["maxlen"])
    make = {"set": set, "frozenset": set, "tuple": tuple, "list": list, "namedtuple": tuple}.get(
        kind,
        type(items) if kind == "own" else dict,  # of a class, with attributes
    )
    return make(items)


def transposed(node: Any, tensors: Tensors, members: list[np.ndarray]) -> np.ndarray:
    return state(node["array"], tensors, members).transpose(node["axes"])


def column(node: Any, tensors: Tensors, members: list[np.ndarray]) -> list[Any]:
    if node["$"] == "members":
        return members[node["at"] : node["at"] + node["of"]]
    if node["$"] == "numbers":
        return state(node["array"], tensors, members).tolist()
    if node["$"] == "scalars":
        return list(np.frombuffer(bytes.fromhex(node["value"]), node["dtype"]))
    if node["$"] == "some":
        items = state(node["items"], tensors, members)
        there = dict(zip(node["there"], items, strict=True))
        return [there.get(place) for place in range(node["of"])]
    like, columns = node["like"], [state(each, tensors, members) for each in node["columns"]]
    keys = like.get("keys") or like.get("fields")
    make = {"tuple": tuple, "namedtuple": tuple, "list": list}.get(like["$"])
    rows = zip(*columns, strict=True)
    return [make(each) if make else dict(zip(keys, each, strict=True)) for each in rows]
