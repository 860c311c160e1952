"""A state put together again from its JSON skeleton, its tensors and its arrays."""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import complex_numbers, masked, own_containers, small_tensors, sparse
from colabkit.checkpoint.columns import TAG, cells_of
from colabkit.checkpoint.named_classes import (
    at_place,
    dataclass_named,
    filled,
    missing,
    tuple_named,
)
from colabkit.errors import CheckpointCorruptError, StateError

CONSTANTS = frozenset({"dtype", "device", "layout", "memory_format"})
_WRONG_FORM = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def decode(skeleton: Any, leaf: Callable[[str, str], Any]) -> Any:
    """Puts a state together again.

    Args:
        skeleton: What ``encode`` gave.
        leaf: Returns the tensor or array for (kind, name).

    Raises:
        CheckpointCorruptError: It is no skeleton.
    """
    try:
        if isinstance(skeleton, dict) and skeleton.get(TAG) == small_tensors.TAG:
            members = small_tensors.members_of(skeleton, leaf)
            return _decode(skeleton["state"], _with_members(leaf, members))
        return _decode(skeleton, leaf)
    except _WRONG_FORM as error:
        if isinstance(error, CheckpointCorruptError | StateError):
            raise
        message = "A checkpoint's state has an unknown form."
        raise CheckpointCorruptError(message, path="", reason=repr(error)) from error


def _with_members(
    leaf: Callable[[str, str], Any], members: Sequence[Any]
) -> Callable[[str, Any], Any]:
    def found(kind: str, key: Any) -> Any:
        return members[key] if kind == "member" else leaf(kind, key)

    return found


def _decode(value: Any, leaf: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, list):
        return [_decode(item, leaf) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: _decode(item, leaf) for key, item in value.items()}
    kind = value[TAG]
    if kind in {"tensor", "array"}:
        return leaf(kind, value["key"])
    if kind == "packed one":
        return leaf("member", value["at"])
    if kind == "packed tuple":
        return tuple(leaf("member", value["at"] + place) for place in range(value["of"]))
    return _DECODERS[kind](value, lambda items: _many(items, leaf))


def _many(items: Any, leaf: Callable[[str, Any], Any]) -> Iterator[Any]:
    if isinstance(items, dict):
        return cells_of(items, lambda each: _many(each, leaf), lambda at: leaf("member", at))
    return (_decode(item, leaf) for item in items)


Many = Callable[[Any], Iterator[Any]]


def _scalar(value: Any, _many: Many) -> Any:
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in "biufc":
        raise ValueError(value["dtype"])
    return np.frombuffer(bytes.fromhex(value["value"]), dtype)[0]


def _pairs(value: Any, many: Many) -> Any:
    return {key: item for key, item in many(value["items"])}  # noqa: C416  # pairs are lists


def _named(value: Any, many: Many) -> Any:
    return tuple.__new__(tuple_named(value), many(value["items"]))


def _transposed(value: Any, many: Many) -> Any:
    (found,) = many([value["array"]])
    is_array = isinstance(found, np.ndarray)
    return found.transpose(value["axes"]) if is_array else found.permute(value["axes"])


def _composed(value: Any, many: Many) -> Any:
    """Returns a tensor made of others, as its class makes it."""
    kind = at_place(value["class"])
    if not (isinstance(kind, type) and hasattr(kind, "__tensor_unflatten__")):
        raise missing(value)
    parts, (context,) = value["parts"], many([value["context"]])
    inner = dict(zip(parts, many(parts.values()), strict=True))
    return kind.__tensor_unflatten__(inner, context, tuple(value["shape"]), tuple(value["stride"]))


def _sparse(value: Any, many: Many) -> Any:
    parts = value["parts"]
    return sparse.made_of(dict(zip(parts, many(parts.values()), strict=True)), value)


def _constant(value: Any, _many: Many) -> Any:
    if value["kind"] not in CONSTANTS:
        raise ValueError(value["kind"])
    if value["kind"] == "device":
        return at_place(["torch", "device"])(value["name"])
    found = at_place(["torch", value["name"].removeprefix("torch.")])
    if type(found).__name__ != value["kind"]:
        raise ValueError(value["name"])
    return found


def _member(value: Any, _many: Many) -> Any:
    kind = at_place(value["class"])
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        raise missing(value)
    return kind[value["name"]]


def _flags(value: Any, _many: Many) -> Any:
    kind = at_place(value["class"])
    if not (isinstance(kind, type) and issubclass(kind, enum.Flag)):
        raise missing(value)
    return kind(value["value"])


def _filled(value: Any, many: Many) -> Any:
    fields = value["fields"]
    return filled(dataclass_named(value), list(fields), list(many(fields.values())))


FACTORIES: dict[str, Any] = {
    "none": None, "int": int, "float": float, "bool": bool, "str": str, "list": list,
    "dict": dict, "set": set, "tuple": tuple, "deque": collections.deque,
    "counter": collections.Counter, "ordered": collections.OrderedDict,
}  # fmt: skip

_DECODERS: dict[str, Callable[[Any, Many], Any]] = {
    "float": lambda value, _: float(value["value"]),
    "scalar": _scalar,
    "list": lambda value, many: list(many(value["items"])),
    "tuple": lambda value, many: tuple(many(value["items"])),
    "set": lambda value, many: set(many(value["items"])),
    "deque": lambda value, many: collections.deque(many(value["items"]), value["maxlen"]),
    "frozenset": lambda value, many: frozenset(many(value["items"])),
    "namedtuple": _named,
    "own": lambda value, many: own_containers.made_of(
        value, *many([value["plain"], value["attributes"]])
    ),
    "ordered": lambda value, many: collections.OrderedDict(_pairs(value, many)),
    "defaultdict": lambda value, many: collections.defaultdict(
        FACTORIES[value["factory"]], _pairs(value, many)
    ),
    "bytearray": lambda value, _: bytearray.fromhex(value["value"]),
    "bytes": lambda value, _: bytes.fromhex(value["value"]),
    "complex": lambda value, _: complex(*map(float, value["value"])),
    "enum": _member,
    "flags": _flags,
    "transposed": _transposed,
    "composite": _composed,
    "sparse": _sparse,
    "complex128": lambda value, many: complex_numbers.made_of(*many([value["pairs"]])),
    "masked": masked.made_of,
    "torch": _constant,
    "dataclass": _filled,
    "dict": _pairs,
    "counter": lambda value, many: collections.Counter(_pairs(value, many)),
}
