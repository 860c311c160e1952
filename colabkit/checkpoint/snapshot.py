"""A snapshot: every tensor of a run copied into one reused block of host memory."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from colabkit.checkpoint.pytree import encode
from colabkit.checkpoint.small_tensors import MANY, Forms, Pack, Packing, name_of, skeleton_of
from colabkit.checkpoint.tensors import (
    ITEM_BYTES,
    Holding,
    TellsApart,
    TensorBackend,
    TensorSpec,
    describe_array,
)
from colabkit.errors import StateError
from colabkit.storage import Bytes, hash_of

_SMALL_BYTES = 64 << 10
_ALIGN = 64
_HASHERS = 2
_ROOM_BYTES, _BLOCK_BYTES = 1 << 20, 128 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A named part of a run's state.

    Attributes:
        name: Names the files it lies in.
        state: Nested Python values and tensors.
        weights: Whether the state is {parameter name: tensor} of a model.
        noted: Tensors of which only the hash is kept, by what gives it on the saver's thread:
            None where the tensor has changed since.
    """

    name: str
    state: Any
    weights: bool
    noted: Mapping[str, Callable[[], str | None]] = dataclasses.field(default_factory=dict)


class Mode(enum.Enum):
    """When a tensor is copied."""

    AT_ONCE = "on the training thread, before it goes on"
    GUARDED = "meanwhile: only an optimizer's step changes it, and that waits"
    PRIVATE = "meanwhile: it was put together for the snapshot, and nobody else has it"
    STEADY = "meanwhile: it has not changed lately, and its hash will show whether it did"


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One tensor of a snapshot."""

    section: str
    key: str
    spec: TensorSpec
    source: Any
    mode: Mode
    view: Bytes
    is_array: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor found in a state.

    Attributes:
        is_private: Whether nobody else has it, so that it cannot change any more.
    """

    section: str
    key: str
    spec: TensorSpec
    source: Any
    is_array: bool
    is_private: bool = False


def require_distinct(names: Iterable[str]) -> None:
    """Refuses parts of a run that would lie in one file.

    Raises:
        StateError: Two have one name.
    """
    seen = set()
    for name in names:
        if name in seen:
            message = f"Two parts of the run are called {name!r}."
            raise StateError(message, where=name, hint="Give your object another name.")
        seen.add(name)


class LeafFinder:
    """Finds the tensors of a run's state, and remembers from save to save where many are small.

    Args:
        backend: The framework's tensors.
    """

    def __init__(self, backend: TensorBackend) -> None:
        self._backend = backend
        # By section, whether there were many at the last save, and the forms of these.
        self._has_many: dict[str, bool] = {}
        self._forms: dict[str, Forms] = {}

    def find(self, sections: Sequence[Section]) -> tuple[dict[str, Any], list[Leaf]]:
        """Returns the skeleton of each section, and all tensors in the order of their files.

        Raises:
            StateError: Two sections have one name, or something cannot be stored.
        """
        require_distinct(section.name for section in sections)
        skeletons: dict[str, Any] = {}
        leaves: list[Leaf] = []
        for section in sections:
            skeletons[section.name], part = self._find_in(section)
            # Wide numbers first, so that each tensor lies at a multiple of its own width.
            leaves += sorted(part, key=lambda leaf: -ITEM_BYTES[leaf.spec.dtype])
        return skeletons, self._held(leaves)

    def _held(self, leaves: list[Leaf]) -> list[Leaf]:
        """Takes copies of what training may take away, all in one call."""
        if not isinstance(self._backend, Holding):
            return leaves
        held = iter(self._backend.hold([leaf.source for leaf in leaves if not leaf.is_array]))
        return [
            leaf if leaf.is_array else dataclasses.replace(leaf, source=next(held), is_private=True)
            for leaf in leaves
        ]

    def _find_in(self, section: Section) -> tuple[Any, list[Leaf]]:
        backend, name = self._backend, section.name
        may_pack = isinstance(backend, Packing) and not section.weights
        if may_pack and self._has_many.get(name, True):
            packed = self._pack(section)
            self._has_many[name] = packed is not None
            if packed is not None:
                return packed
        tells = backend if isinstance(backend, TellsApart) else None
        skeleton, found = encode(section.state, backend.is_tensor, tells=tells)
        self._has_many[name] = len(found) >= MANY
        return skeleton, [_leaf(name, key, value, backend) for key, value in found.items()]

    def _pack(self, section: Section) -> tuple[Any, list[Leaf]] | None:
        backend, name = self._backend, section.name
        assert isinstance(backend, Packing)  # noqa: S101  # asked before a section gets here
        forms = self._forms.pop(name, None) or Forms()
        pack = Pack(backend, forms)
        skeleton, found = encode(section.state, backend.is_tensor, pack)
        gathered = pack.gathered() if len(pack.members) >= MANY else None
        if gathered is None:
            return None
        self._forms[name] = forms
        leaves = [_leaf(name, key, value, backend) for key, value in found.items()]
        leaves += [
            dataclasses.replace(_leaf(name, name_of(place), each, backend), is_private=True)
            for place, each in enumerate(gathered[0])
        ]
        return skeleton_of(skeleton, *gathered), leaves


def nbytes_of(sections: Sequence[Section], backend: TensorBackend) -> int:
    """Returns the bytes of all tensors of a state."""
    total = 0
    for section in sections:
        pack = Pack(backend, Forms()) if isinstance(backend, Packing) else None
        _, leaves = encode(section.state, backend.is_tensor, pack)
        every = [*leaves.values(), *(pack.members if pack is not None else ())]
        total += sum(
            t.nbytes if hasattr(t, "nbytes") else backend.describe(t).nbytes for t in every
        )
    return total


def _leaf(section: str, key: str, value: Any, backend: TensorBackend) -> Leaf:
    spec = describe_array(value) if isinstance(value, np.ndarray) else None
    if spec is None:
        return Leaf(section, key, backend.describe(value), value, is_array=False)
    return Leaf(section, key, spec, value, is_array=True)


def choose_mode(
    leaf: Leaf,
    *,
    is_guarded: Callable[[TensorSpec], bool],
    streak: int,
    all_at_once: bool,
) -> Mode:
    """Decides when a tensor is copied.

    Args:
        leaf: The tensor.
        is_guarded: Whether only an optimizer's step changes it.
        streak: In how many snapshots in a row its hash was the same.
        all_at_once: Whether the last snapshot was torn, so that nothing may wait.
    """
    if leaf.is_private:
        return Mode.PRIVATE
    if all_at_once or leaf.is_array or leaf.spec.nbytes < _SMALL_BYTES:
        return Mode.AT_ONCE
    if is_guarded(leaf.spec):
        return Mode.GUARDED
    return Mode.STEADY if streak > 1 else Mode.AT_ONCE


class Arena:
    """Blocks of host memory, reused by every snapshot and added to when they are too few.

    Not one block: what is pinned for a GPU is rounded up to a power of two, which of a whole
    state may be as much again.
    """

    def __init__(self, backend: TensorBackend) -> None:
        self._backend = backend
        self._blocks: list[Bytes] = []

    def views(self, leaves: Sequence[Leaf]) -> list[Bytes]:
        """Returns a place for each tensor, those of one section next to each other."""
        places, ends = _placed(leaves)
        for number, end in enumerate(ends):
            if number == len(self._blocks):
                self._blocks.append(np.empty(0, np.uint8))
            if end > len(self._blocks[number]):
                self._blocks[number] = np.empty(0, np.uint8)
                self._blocks[number] = self._backend.allocate(_with_room(end))
        return [
            self._blocks[number][at : at + leaf.spec.nbytes]
            for (number, at), leaf in zip(places, leaves, strict=True)
        ]


def _placed(leaves: Sequence[Leaf]) -> tuple[list[tuple[int, int]], list[int]]:
    """Returns the block and the place in it of each tensor, and how far each block is filled."""
    places, ends, section = [], [0], ""
    for leaf in leaves:
        if leaf.section != section:
            section, ends[-1] = leaf.section, -(-ends[-1] // _ALIGN) * _ALIGN
        if ends[-1] and ends[-1] + leaf.spec.nbytes > _BLOCK_BYTES:
            ends.append(0)
        places.append((len(ends) - 1, ends[-1]))
        ends[-1] += leaf.spec.nbytes
    return places, ends


def _with_room(nbytes: int) -> int:
    """Returns a little more: histories grow, and a new block is slow to touch."""
    if nbytes > _BLOCK_BYTES:
        return nbytes
    return min(nbytes + max(_ROOM_BYTES, nbytes // 50), _BLOCK_BYTES)


def copy_items(items: Sequence[Item], backend: TensorBackend) -> Callable[[], None]:
    """Starts copying; the function returned waits until all is in place."""
    for item in items:
        if item.is_array and item.spec.nbytes:
            np.copyto(item.view, np.ascontiguousarray(item.source).reshape(-1).view(np.uint8))
    tensors = [item for item in items if not item.is_array and item.spec.nbytes]
    return backend.copy([item.source for item in tensors], [item.view for item in tensors])


def hashes_of(items: Sequence[Item]) -> dict[tuple[str, str], str]:
    """Returns the hash of each tensor's copy, by section and key."""
    with ThreadPoolExecutor(_HASHERS, "colabkit-hash") as hashers:
        told = hashers.map(lambda item: hash_of(item.view), items)
        return {(item.section, item.key): one for item, one in zip(items, told, strict=True)}


def streaks_after(
    before: Mapping[tuple[str, str], tuple[str, int]], hashes: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], tuple[str, int]]:
    """Returns, by tensor, its hash and in how many snapshots in a row it was the same."""
    after = {}
    for place, told in hashes.items():
        last, streak = before.get(place, ("", 0))
        after[place] = (told, streak + 1 if last == told else 1)
    return after
