"""Many values of one kind stored by columns: the transitions of a memory, an optimizer's states.

To take 10,000 transitions apart one by one would hold training for a tenth of a second.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint.named_classes import (
    can_be_found,
    dataclass_named,
    filled,
    place_of,
    slots_beside,
    tuple_named,
)
from colabkit.checkpoint.own_containers import plain_kind_of
from colabkit.checkpoint.small_tensors import Pack

TAG = "$"
PLAIN = frozenset({type(None), bool, int, str})
DEPTH_MAX = 64
# Fewer than this are stored one by one; rows with more values are.
FEW = 16
# Numbers from here on are stored as an array: as text, each would take a microsecond.
_MANY_NUMBERS = 1_000
_NUMBERS: Mapping[type, type] = {float: np.float64, int: np.int64}
_WIDTH_MAX = 64
_NONE = type(None)


@dataclasses.dataclass(frozen=True, slots=True)
class _Way:
    """Where the values of a column lie: by path, place, and what leads on within each place."""

    path: tuple[str, ...]
    places: Sequence[Any]
    after: tuple[str, ...] = ()

    def to(self, number: int) -> tuple[str, ...]:
        return (*self.path, str(self.places[number]), *self.after)

    def into(self, name: str) -> _Way:
        return dataclasses.replace(self, after=(*self.after, name))

    def at(self, numbers: Sequence[int]) -> _Way:
        return dataclasses.replace(self, places=[self.places[number] for number in numbers])

    @property
    def depth(self) -> int:
        return len(self.path) + 1 + len(self.after)


class Columns:
    """Puts values of one kind together.

    Args:
        pack: Takes the small tensors.
        encode: Takes apart a value that stands alone, at its path.
    """

    def __init__(self, pack: Pack, encode: Callable[[Any, tuple[str, ...]], Any]) -> None:
        self._pack = pack
        self._encode = encode

    def of(self, cells: Sequence[Any], path: tuple[str, ...], places: Sequence[Any]) -> Any:
        """Returns what is stored of values: a node for all, or a list of one for each.

        Args:
            cells: The values.
            path: Where what holds them lies.
            places: Where each lies in it.
        """
        return self._of(cells, _Way(path, places))

    def _of(self, cells: Sequence[Any], way: _Way) -> Any:
        if (numbers := numbers_in(cells)) is not None:
            return {TAG: "numbers", "array": self._encode(numbers, (*way.path, *way.after))}
        kinds = set(map(type, cells))
        if kinds <= PLAIN or (kinds == {float} and all(map(math.isfinite, cells))):
            return list(cells)
        if kinds <= self._pack.kinds and _are_row_major(cells, kinds):
            at = self._pack.take(cells)
            if at is not None:
                return {TAG: "members", "at": at, "of": len(cells)}
        if len(kinds - {_NONE}) == 1 and way.depth < DEPTH_MAX:
            if _NONE in kinds:
                return self._some(cells, way)
            if (node := self._rows(kinds.pop(), cells, way)) is not None:
                return node
        return [self._encode(cell, way.to(number)) for number, cell in enumerate(cells)]

    def _some(self, cells: Sequence[Any], way: _Way) -> dict[str, Any]:
        """Returns the node of a column in which some are None: the last state of each game, say."""
        there = [number for number, cell in enumerate(cells) if cell is not None]
        items = self._of([cells[number] for number in there], way.at(there))
        return {TAG: "some", "of": len(cells), "there": there, "items": items}

    def _rows(self, kind: type, cells: Sequence[Any], way: _Way) -> dict[str, Any] | None:
        if issubclass(kind, np.generic) and cells[0].dtype.kind in "biufc":
            raw = np.array(cells, cells[0].dtype).tobytes()
            return {TAG: "scalars", "dtype": cells[0].dtype.str, "value": raw.hex()}
        if (found := _rows_of(kind, cells)) is None:
            return None
        like, names, values = found
        columns = [
            self._of(values[place :: len(names)], way.into(str(name)))
            for place, name in enumerate(names)
        ]
        return {TAG: "rows", "like": like, "columns": columns}


def numbers_in(cells: Collection[Any]) -> np.ndarray[Any, Any] | None:
    """Returns many numbers of one kind as an array, None of what is no such thing."""
    if len(cells) < _MANY_NUMBERS:
        return None
    kinds = set(map(type, cells))
    dtype = _NUMBERS.get(kinds.pop()) if len(kinds) == 1 else None
    try:
        return None if dtype is None else np.fromiter(cells, dtype, len(cells))
    except OverflowError:
        return None


def _are_row_major(cells: Sequence[Any], kinds: set[type]) -> bool:
    """Whether all arrays lie as they are stored, so that none needs its axes noted."""
    if np.ndarray not in kinds:
        return True
    return all(cell.flags.c_contiguous for cell in cells if isinstance(cell, np.ndarray))


_Rows = tuple[dict[str, Any], Sequence[Any], list[Any]]


def _rows_of(kind: type, cells: Sequence[Any]) -> _Rows | None:
    """Returns what rows are, the names of their columns, and all values row by row.

    None where they have not all the same columns, or cannot be made of these.
    """
    if dataclasses.is_dataclass(kind):
        return _objects(kind, cells)
    fields = getattr(kind, "_fields", None) if issubclass(kind, tuple) else None
    if kind not in {tuple, list, dict} and fields is None:
        return None
    widths = set(map(len, cells))
    width = widths.pop()
    if widths or not 0 < width <= _WIDTH_MAX:
        return None
    if kind is dict:
        return _dicts(cells)
    values = list(itertools.chain.from_iterable(cells))
    if kind is tuple or kind is list:
        return {TAG: kind.__name__}, range(width), values
    named = {TAG: "namedtuple", "class": place_of(kind), "fields": list(fields or ())}
    return named, range(width), values


def _dicts(cells: Sequence[dict[Any, Any]]) -> _Rows | None:
    # By type, too: keys may be equal and not be stored alike.
    if set(map(type, itertools.chain.from_iterable(cells))) != {str}:
        return None
    keys = set(map(tuple, cells))
    if len(keys) > 1:
        return None
    names = list(keys.pop())
    values = list(itertools.chain.from_iterable(map(dict.values, cells)))
    return {TAG: "dict", "keys": names}, names, values


def _objects(kind: type, cells: Sequence[Any]) -> _Rows | None:
    names = [field.name for field in dataclasses.fields(kind)]
    attributes = itertools.chain.from_iterable(getattr(each, "__dict__", ()) for each in cells)
    is_made_of_these = 0 < len(names) <= _WIDTH_MAX and can_be_found(kind)
    # Of slots beside the fields, some may be empty in some; and a dict holds more than fields.
    is_made_of_these &= not (slots_beside(kind) or plain_kind_of(kind))
    if not is_made_of_these or not set(attributes) <= set(names):
        return None
    try:
        by_name = [list(map(operator.attrgetter(name), cells)) for name in names]
    except AttributeError:
        return None
    values = list(itertools.chain.from_iterable(zip(*by_name, strict=True)))
    return {TAG: "dataclass", "class": place_of(kind), "fields": names}, names, values


def cells_of(
    node: Mapping[str, Any],
    many: Callable[[Any], Iterator[Any]],
    member: Callable[[int], Any],
) -> Iterator[Any]:
    """Returns the values that ``Columns.of`` gave a node for.

    Args:
        node: The node.
        many: Returns the values of another column.
        member: Returns a small tensor by its place.
    """
    kind = node[TAG]
    if kind == "members":
        return map(member, range(node["at"], node["at"] + node["of"]))
    if kind == "numbers":
        (array,) = many([node["array"]])
        return iter(array.tolist())
    if kind == "scalars":
        dtype = np.dtype(node["dtype"])
        if dtype.kind not in "biufc":
            raise ValueError(node["dtype"])
        return iter(np.frombuffer(bytes.fromhex(node["value"]), dtype))
    if kind == "some":
        cells = [None] * node["of"]
        for number, cell in zip(node["there"], many(node["items"]), strict=True):
            cells[number] = cell
        return iter(cells)
    if kind != "rows":
        raise ValueError(kind)
    return _made(node["like"], zip(*map(many, node["columns"]), strict=True))


def _made(like: Mapping[str, Any], rows: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
    if like[TAG] == "tuple":
        return rows
    if like[TAG] == "list":
        return map(list, rows)
    if like[TAG] == "dict":
        return (dict(zip(like["keys"], row, strict=True)) for row in rows)
    if like[TAG] == "namedtuple":
        named = tuple_named(like)
        return (tuple.__new__(named, row) for row in rows)
    kind = dataclass_named(like)
    return (filled(kind, like["fields"], row) for row in rows)
