"""Nested Python state as a JSON skeleton with the tensors and arrays taken out."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from colabkit.checkpoint import complex_numbers, masked, own_containers, sparse
from colabkit.checkpoint.columns import (
    DEPTH_MAX,
    FEW,
    PLAIN,
    TAG,
    Columns,
    numbers_in,
)
from colabkit.checkpoint.named_classes import (
    can_be_found,
    fields_of,
    place_of,
)
from colabkit.checkpoint.pieces import Piece
from colabkit.checkpoint.skeletons import CONSTANTS, FACTORIES
from colabkit.checkpoint.small_tensors import Pack
from colabkit.checkpoint.tensors import LaysOut, TellsApart, describe_array
from colabkit.errors import StateError

_HOLDERS = frozenset({tuple, list, collections.deque})


def encode(
    state: object,
    is_tensor: Callable[[object], bool],
    pack: Pack | None = None,
    tells: TellsApart | None = None,
    lays: LaysOut | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Takes the tensors and arrays out of a state.

    Args:
        state: Dicts, lists, tuples, sets, numbers, strings, arrays and tensors, nested.
        is_tensor: Whether a value is a tensor.
        pack: Takes the small ones, which then have no name of their own.
        tells: Knows which tensors are one, which then have the name of the first alone.
        lays: Knows how tensors lie in memory, so that a restored one lies as it did.

    Returns:
        What JSON can hold, and the tensors and arrays by a name of their own.

    Raises:
        StateError: Something in it cannot be stored without pickle; ``where`` says what.
    """
    encoder = _Encoder(is_tensor, pack, tells, lays)
    return encoder.encode(state, ()), encoder.leaves


class _Encoder:
    def __init__(
        self,
        is_tensor: Callable[[object], bool],
        pack: Pack | None,
        tells: TellsApart | None,
        lays: LaysOut | None,
        *,
        is_trial: bool = False,
    ) -> None:
        self._is_tensor = is_tensor
        self._is_trial = is_trial
        self._pack = pack
        self._columns = Columns(pack, self.encode) if pack is not None else None
        self._tells = tells
        self._lays = lays
        self._at: dict[int, list[str]] = {}
        self.leaves: dict[str, Any] = {}

    def encode(self, value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > DEPTH_MAX:
            message = f"The state is nested over {DEPTH_MAX} deep, or holds itself."
            raise StateError(message, where=".".join(path[:4]))
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind is dict:
            return self._mapping(value, path)
        if kind in _HOLDERS:
            return self._container(value, path)
        if kind is float:
            return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}
        if self._is_tensor(value):
            return self._laid(value, path)
        if isinstance(value, np.ndarray) and _is_plain(value):
            return self._array(value, path)
        if isinstance(value, np.generic) and value.dtype.kind in "biufc":
            return {TAG: "scalar", "dtype": value.dtype.str, "value": value.tobytes().hex()}
        if isinstance(value, Piece):
            return {TAG: "tensor", "key": self._name(value, path, "tensor")}
        return self._container(value, path)

    def _container(self, value: Any, path: tuple[str, ...]) -> Any:
        if (node := self._own(value, path)) is not None:
            return node
        if isinstance(value, list):
            items = self._items(value, path)
            return items if isinstance(items, list) else {TAG: "list", "items": items}
        if isinstance(value, tuple):
            fields = getattr(value, "_fields", None)
            if fields is not None:
                return {
                    TAG: "namedtuple",
                    "class": place_of(type(value)),
                    "fields": list(fields),
                    "items": self._items(value, path),
                }
            return {TAG: "tuple", "items": self._items(value, path)}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, set | frozenset):
            kind = "frozenset" if isinstance(value, frozenset) else "set"
            return {TAG: kind, "items": self._items(sorted(value, key=repr), path)}
        if isinstance(value, collections.deque):
            items = self._items(value, path)
            return {TAG: "deque", "items": items, "maxlen": value.maxlen}
        if isinstance(value, bytes | bytearray):
            kind = "bytearray" if isinstance(value, bytearray) else "bytes"
            return {TAG: kind, "value": bytes(value).hex()}
        if isinstance(value, complex):
            return {TAG: "complex", "value": [repr(value.real), repr(value.imag)]}
        return self._by_class(value, path)

    def _own(self, value: Any, path: tuple[str, ...]) -> dict[str, Any] | None:
        """Returns the node of a container of the user's class, None of one to be taken as plain."""
        kind: Any = type(value)
        if (plain := own_containers.plain_kind_of(kind)) is None:
            return None
        beside = own_containers.attributes_beside(value, plain)
        if not self._is_trial and not self._can_take(beside, path):
            return None  # it has a lock, or itself: as good as can be
        return {
            TAG: "own",
            "class": place_of(kind),
            "plain": self.encode(own_containers.plain_of(value, plain), path),
            "attributes": self.encode(beside, (*path, "attributes")),
        }

    def _can_take(self, beside: Any, path: tuple[str, ...]) -> bool:
        trial = _Encoder(self._is_tensor, None, None, None, is_trial=True)
        try:
            trial.encode(beside, (*path, "attributes"))
        except StateError:
            return False
        return True

    def _by_class(self, value: Any, path: tuple[str, ...]) -> Any:
        if type(value).__module__ == "torch" and type(value).__name__ in CONSTANTS:
            return {TAG: "torch", "kind": type(value).__name__, "name": str(value)}
        if isinstance(value, enum.Enum) and can_be_found(type(value)):
            if isinstance(value, enum.Flag) and value.name not in type(value).__members__:
                return {TAG: "flags", "class": place_of(type(value)), "value": value.value}
            return {TAG: "enum", "class": place_of(type(value)), "name": value.name}
        if dataclasses.is_dataclass(value) and (held := fields_of(value)) is not None:
            fields = {key: self.encode(each, (*path, key)) for key, each in held.items()}
            return {TAG: "dataclass", "class": place_of(type(value)), "fields": fields}
        where = ".".join(path) or "the state"
        message = f"{where} is a {type(value).__name__}, which cannot be stored without pickle."
        hint = "Leave it out of state_dict(), or store the numbers it is made of."
        raise StateError(message, where=where, hint=hint)

    def _items(self, items: Any, path: tuple[str, ...]) -> Any:
        """Returns a list of what each is, or one node for many."""
        if (numbers := numbers_in(items)) is not None:
            return {TAG: "numbers", "array": self.encode(numbers, path)}
        if PLAIN.issuperset(map(type, items)):
            return list(items)
        if self._columns is not None and len(items) >= FEW:
            return self._columns.of(list(items), path, range(len(items)))
        return [self.encode(item, (*path, str(place))) for place, item in enumerate(items)]

    def _mapping(self, value: Mapping[Any, Any], path: tuple[str, ...]) -> Any:
        kind, more = _kind_of(value, path)
        if self._columns is not None and len(value) >= FEW:
            keys, items = list(value), list(value.values())
            if len(set(map(type, items))) == 1:
                columns = [
                    self._columns.of(keys, (*path, "key"), range(len(keys))),
                    self._columns.of(items, path, keys),
                ]
                pairs = {TAG: "rows", "like": {TAG: "tuple"}, "columns": columns}
                return {TAG: kind, "items": pairs, **more}
        if kind == "dict" and all(type(key) is str and key != TAG for key in value):
            return {key: self.encode(item, (*path, key)) for key, item in value.items()}
        return {
            TAG: kind,
            "items": [
                [self.encode(key, (*path, "key")), self.encode(item, (*path, str(key)))]
                for key, item in value.items()
            ],
            **more,
        }

    def _tensor(self, value: Any, path: tuple[str, ...], kind: str) -> dict[str, Any]:
        if hasattr(value, "__tensor_flatten__"):
            return self._composite(value, path)
        if kind == "tensor" and (members := sparse.members_of(value)):
            parts = {name: self.encode(each, (*path, name)) for name, each in members.items()}
            return {TAG: "sparse", "parts": parts, **sparse.facts_of(value)}
        if (pairs := complex_numbers.pairs_of(value)) is not None:
            return {TAG: "complex128", "pairs": self.encode(pairs, path)}
        if self._pack is not None and type(value) in self._pack.kinds:
            at = self._pack.take((value,))
            if at is not None:
                return {TAG: "packed one", "at": at}
        return {TAG: kind, "key": self._name(value, path, kind)}

    def _laid(self, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
        axes = None if self._lays is None else self._lays.axes_in_memory(value)
        if self._lays is None or axes is None:
            return self._tensor(value, path, "tensor")
        # A product of matrices adds up in another order where a matrix lies otherwise.
        tensor = self._tensor(self._lays.transposed(value, axes), path, "tensor")
        return {TAG: "transposed", "array": tensor, "axes": np.argsort(axes).tolist()}

    def _array(self, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
        if (node := self._own(value, path)) is not None:
            return node
        if isinstance(value, np.ma.MaskedArray):
            parts = {n: self.encode(e, (*path, n)) for n, e in masked.parts_of(value).items()}
            return {TAG: "masked", "parts": parts, "is_hard": value.hardmask}
        axes = axes_in_memory(value)
        if axes == tuple(range(value.ndim)):
            return self._tensor(np.asarray(value, order="C"), path, "array")
        laid = np.ascontiguousarray(value.transpose(axes))
        array = self._tensor(laid, path, "array")
        return {TAG: "transposed", "array": array, "axes": np.argsort(axes).tolist()}

    def _name(self, value: Any, path: tuple[str, ...], kind: str) -> str:
        """Returns the name of a tensor, which one that has several has but once."""
        own = value.local if isinstance(value, Piece) else value
        address = self._tells.address(own) if self._tells is not None and kind == "tensor" else 0
        if not address or self._tells is None:
            return self._leaf(value, path)
        known = self._at.setdefault(address, [])
        for name in known:
            other = self.leaves[name]
            other = other.local if isinstance(other, Piece) else other
            if self._tells.is_same(other, own):
                return name
        known.append(self._leaf(value, path))
        return known[-1]

    def _composite(self, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
        """Takes a tensor apart that is made of others: codes and scales, say."""
        if hasattr(value, "device_mesh"):
            where = ".".join(path)
            message = f"{where} is in pieces, of which each process holds one."
            hint = (
                "Keep it in an attribute of the model, in an object with state_dict and"
                " load_state_dict that Run is given, or whole: value.full_tensor()."
            )
            raise StateError(message, where=where, hint=hint)
        names, context = value.__tensor_flatten__()
        return {
            TAG: "composite",
            "class": place_of(type(value)),
            "shape": list(value.shape),
            "stride": list(value.stride()),
            "parts": {name: self.encode(getattr(value, name), (*path, name)) for name in names},
            "context": self.encode(context, (*path, "context")),
        }

    def _leaf(self, value: Any, path: tuple[str, ...]) -> str:
        name = wanted = ".".join(path)
        number = 1
        while name in self.leaves:
            number += 1
            name = f"{wanted}~{number}"
        self.leaves[name] = value
        return name


def _kind_of(value: Mapping[Any, Any], path: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    if isinstance(value, collections.Counter):
        return "counter", {}
    if isinstance(value, collections.OrderedDict):
        return "ordered", {}
    if not isinstance(value, collections.defaultdict):
        return "dict", {}
    factory = value.default_factory
    if not is_known_factory(factory):
        where = ".".join(path) or "the state"
        message = f"{where} is a defaultdict that makes its values by a function of its own."
        hint = "Use defaultdict(int), (float), (list), (dict) or (set), or a plain dict."
        raise StateError(message, where=where, hint=hint)
    named = next(name for name, known in FACTORIES.items() if known is factory)
    return "defaultdict", {"factory": named}


def _is_plain(array: np.ndarray[Any, Any]) -> bool:
    return describe_array(array) is not None or array.dtype == np.complex128


def axes_in_memory(array: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Returns the axes of an array as they lie in memory, that of the longest step first."""
    if array.flags.c_contiguous:
        return tuple(range(array.ndim))
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def is_known_factory(factory: object) -> bool:
    """Whether a defaultdict with this factory can be stored."""
    return any(factory is known for known in FACTORIES.values())
