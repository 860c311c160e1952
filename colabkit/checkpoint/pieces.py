"""Tensors in pieces: what several processes hold of one tensor, written by each, and made whole."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint.tensors import TensorSpec, expected_nbytes
from colabkit.storage import Bytes

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """Where a piece lies in its tensor.

    Attributes:
        whole: The dimensions of the tensor.
        offset: The place in it of the piece's first element.
    """

    whole: Shape
    offset: Shape


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """In a state, what this process holds of a tensor that several have in pieces.

    Attributes:
        local: Its piece, which may be empty.
        box: Where that lies in the tensor.
        is_own: Whether it is this process that writes it, where others hold the same piece.
    """

    local: Any
    box: Box
    is_own: bool = True


def fault_in(whole: Shape, pieces: Sequence[tuple[Shape, Shape, str]]) -> str:
    """Returns why pieces are not one tensor, "" where they are.

    They lie in layers without a gap, along each dimension in turn.

    Args:
        whole: The tensor's dimensions.
        pieces: Of each the offset, the dimensions, and the name of its file.
    """
    if any(len(offset) != len(whole) or len(shape) != len(whole) for offset, shape, _ in pieces):
        return f"a piece has another number of dimensions than {list(whole)}"
    if any(not math.prod(shape) for _, shape, _ in pieces):
        return "an empty piece"
    return _fault(whole, 0, pieces)


def _fault(whole: Shape, dim: int, pieces: Sequence[tuple[Shape, Shape, str]]) -> str:
    if dim == len(whole):
        return "" if len(pieces) == 1 else f"{pieces[0][2]} and {pieces[1][2]} hold one place"
    layers: Mapping[tuple[int, int], list[tuple[Shape, Shape, str]]]
    layers = collections.defaultdict(list)
    for each in pieces:
        layers[each[0][dim], each[0][dim] + each[1][dim]].append(each)
    end, before = 0, ""
    for begin, stop in sorted(layers):
        within = layers[begin, stop]
        if begin > end:
            return f"no file holds {end} to {begin} of dimension {dim}"
        if begin < end:
            return f"{before} and {within[0][2]} overlap along dimension {dim}"
        if fault := _fault(whole, dim + 1, within):
            return fault
        end, before = stop, within[0][2]
    if end < whole[dim]:
        return f"no file holds {end} to {whole[dim]} of dimension {dim}"
    return "" if end == whole[dim] else f"{before} leads outside of {list(whole)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """What one process wants of a tensor that lies in pieces.

    Attributes:
        offset: The place in the tensor where that begins.
        shape: Its dimensions, some of which may be 0.
        made: Returns what goes into the state in place of the whole, given a tensor of that.
    """

    offset: Shape
    shape: Shape
    made: Callable[[Any], Any]

    def meets(self, box: Box, shape: Shape) -> bool:
        """Whether a piece holds any of it."""
        return all(begin < end for begin, end in _common(self.offset, self.shape, box, shape))


# By section, name and form of a tensor in pieces, what is wanted; None for all of it.
Cutter = Callable[[str, str, TensorSpec], Cut | None]


def _common(offset: Shape, size: Shape, box: Box, shape: Shape) -> list[tuple[int, int]]:
    """Returns, by dimension, from where to where of a tensor two boxes have in common."""
    pairs = zip(offset, size, box.offset, shape, strict=True)
    return [(max(a, b), min(a + n, b + m)) for a, n, b, m in pairs]


class Wholes:
    """Tensors that are put together of their pieces, one after the other.

    Args:
        cuts: By the tensor's section and name, what is wanted of it; all of the others.
        forms: By the same, the forms of the tensors.
    """

    def __init__(
        self, cuts: Mapping[tuple[str, str], Cut], forms: Mapping[tuple[str, str], TensorSpec]
    ) -> None:
        self._cuts = cuts
        self.tensors: dict[tuple[str, str], tuple[TensorSpec, Bytes]] = {}
        for place, form in forms.items():
            shape = cuts[place].shape if place in cuts else form.shape
            spec = TensorSpec(form.dtype, shape, expected_nbytes(form.dtype, shape))
            self.tensors[place] = (spec, np.empty(spec.nbytes, np.uint8))

    def put(self, place: tuple[str, str], spec: TensorSpec, box: Box, data: Bytes) -> None:
        """Copies what is wanted of a piece to where it belongs.

        Args:
            place: The tensor's section and name.
            spec: The piece's form.
            box: Where it lies in the tensor.
            data: Its bytes.
        """
        wanted, into = self.tensors[place]
        cut = self._cuts.get(place)
        offset = cut.offset if cut is not None else (0,) * len(box.whole)
        common = _common(offset, wanted.shape, box, spec.shape)
        if not all(begin < end for begin, end in common):
            return
        width = spec.nbytes // math.prod(spec.shape)
        there = tuple(slice(a - at, b - at) for (a, b), at in zip(common, offset, strict=True))
        here = tuple(slice(a - at, b - at) for (a, b), at in zip(common, box.offset, strict=True))
        into.reshape(*wanted.shape, width)[there] = data.reshape(*spec.shape, width)[here]
