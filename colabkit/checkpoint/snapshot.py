"""A snapshot: every tensor of a run copied into one reused block of host memory."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from colabkit.checkpoint.pieces import Box, Piece
from colabkit.checkpoint.pytree import encode
from colabkit.checkpoint.small_tensors import (
    MANY,
    Bundles,
    Forms,
    Pack,
    Packing,
    name_of,
    skeleton_of,
)
from colabkit.checkpoint.tensors import (
    ITEM_BYTES,
    Holding,
    LaysOut,
    TellsApart,
    TensorBackend,
    TensorSpec,
    describe_array,
    expected_nbytes,
)
from colabkit.errors import StateError
from colabkit.storage import Bytes, hash_of

# Smaller ones are copied on the training thread.
AT_ONCE_BYTES = 64 << 10
_ALIGN = 64
_HASHERS = 2
_ROOM_BYTES, _BLOCK_BYTES = 1 << 20, 128 << 20
# A smaller one is not worth a file apart.
_STEADY_BYTES = 1 << 16
_NOWHERE: Bytes = np.empty(0, np.uint8)


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A named part of a run's state.

    Attributes:
        name: Names the files it lies in.
        state: Nested Python values and tensors.
        weights: Whether the state is {parameter name: tensor} of a model.
        noted: Tensors of which only the hash is kept, by what gives it on the saver's thread:
            None where the tensor has changed since.
        form: What is equal to that of the last save while the tensors have the same names, forms
            and memory; None where nobody has looked.
        trained: Where those weights lie that are trained, and not by optimizers' steps alone.
        moments: What the keys of what optimizers keep of each weight begin with; "" for none.
    """

    name: str
    state: Any
    weights: bool
    noted: Mapping[str, Callable[[], str | None]] = dataclasses.field(default_factory=dict)
    form: Hashable = None
    trained: frozenset[int] = frozenset()
    moments: str = ""


class Mode(enum.Enum):
    """When a tensor is copied."""

    AT_ONCE = "on the training thread, before it goes on"
    GUARDED = "meanwhile: only an optimizer's step changes it, and that waits"
    PRIVATE = "meanwhile: it was put together for the snapshot, and nobody else has it"
    STEADY = "meanwhile: it has not changed lately, and its hash will show whether it did"


@dataclasses.dataclass(slots=True)
class SnapshotTensor:
    """One tensor of a snapshot, from where it was found to where it is written.

    Attributes:
        section: The part of the state that it lies in.
        key: Its name there.
        spec: Its form.
        source: The tensor itself.
        is_array: Whether it is an array of NumPy.
        is_private: Whether nobody else has it, so that it cannot change any more.
        mode: When it is copied.
        view: Its copy in host memory.
        hash: That of the copy, "" before there is one.
        members: Names and forms of the tensors that it holds one after the other; none where it
            is one itself.
        box: Where it lies in a tensor of which other processes hold the rest; else None.
    """

    section: str
    key: str
    spec: TensorSpec
    source: Any
    is_array: bool
    is_private: bool = False
    mode: Mode = Mode.AT_ONCE
    view: Bytes = dataclasses.field(default_factory=lambda: _NOWHERE)
    hash: str = ""
    members: tuple[tuple[str, TensorSpec], ...] = ()
    box: Box | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Its name in the whole state."""
        return self.section, self.key

    @property
    def is_steady(self) -> bool:
        """Whether it is not expected to change."""
        return self.mode is not Mode.GUARDED and self.spec.nbytes >= _STEADY_BYTES


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
        # Asked once: to ask a protocol looks at each of its members.
        self._holds = backend if isinstance(backend, Holding) else None
        self._packs = backend if isinstance(backend, Packing) else None
        self._tells = backend if isinstance(backend, TellsApart) else None
        self._lays = backend if isinstance(backend, LaysOut) else None
        # By section, whether there were many at the last save, and the forms of these.
        self._has_many: dict[str, bool] = {}
        self._forms: dict[str, Forms] = {}
        self._bundles: dict[str, Bundles] = {}

    def find(self, sections: Sequence[Section]) -> tuple[dict[str, Any], list[SnapshotTensor]]:
        """Returns the skeleton of each section, and all tensors in the order of their files.

        Raises:
            StateError: Two sections have one name, or something cannot be stored.
        """
        require_distinct(section.name for section in sections)
        skeletons: dict[str, Any] = {}
        leaves: list[SnapshotTensor] = []
        for section in sections:
            skeletons[section.name], part = self._find_in(section)
            # Wide numbers first, so that each tensor lies at a multiple of its own width.
            leaves += sorted(part, key=lambda leaf: -ITEM_BYTES[leaf.spec.dtype])
        self._hold(leaves)
        return skeletons, leaves

    def _hold(self, leaves: Sequence[SnapshotTensor]) -> None:
        """Takes copies of what training may take away, all in one call."""
        if self._holds is None:
            return
        tensors = [leaf for leaf in leaves if not leaf.is_array]
        held_ones = self._holds.hold([leaf.source for leaf in tensors])
        for leaf, held in zip(tensors, held_ones, strict=True):
            leaf.source, leaf.is_private = held, True

    def _find_in(self, section: Section) -> tuple[Any, list[SnapshotTensor]]:
        backend, packs, name = self._backend, self._packs, section.name
        if packs is not None and not section.weights and self._has_many.get(name, True):
            packed = self._pack(section, packs)
            self._has_many[name] = packed is not None
            if packed is not None:
                return packed
        if packs is not None and section.weights:
            bundled = self._bundled(section, packs)
            if bundled is not None:
                return bundled
        # Weights are copied into those that are there, which lie as they lie.
        lays = None if section.weights else self._lays
        skeleton, found = encode(section.state, backend.is_tensor, tells=self._tells, lays=lays)
        self._has_many[name] = len(found) >= MANY
        leaves = _leaves(name, found, backend)
        if packs is not None and section.weights and self._has_many[name]:
            return self._bundle(section, packs, skeleton, leaves)
        return skeleton, leaves

    def _bundle(
        self, section: Section, backend: Packing, skeleton: Any, leaves: list[SnapshotTensor]
    ) -> tuple[Any, list[SnapshotTensor]]:
        """Puts the small ones of many weights together, where each is a tensor of its own."""
        name, state = section.name, section.state
        is_plain = not any(isinstance(each, Piece) for each in state.values())
        if not is_plain or any(
            each.is_array or state.get(each.key) is not each.source for each in leaves
        ):
            return skeleton, leaves  # some are made of others, or are not all here
        specs = {each.key: each.spec for each in leaves}
        self._bundles[name] = Bundles(state, skeleton, specs, backend, form=section.form)
        return self._together(section, backend) or (skeleton, leaves)

    def _bundled(
        self, section: Section, backend: Packing
    ) -> tuple[Any, list[SnapshotTensor]] | None:
        """Returns what is known of many weights since the last save, with copies of now."""
        known = self._bundles.get(section.name)
        if known is None:
            return None
        if not known.are_of(section.state, backend, form=section.form):
            del self._bundles[section.name]
            return None
        return self._together(section, backend)

    def _together(
        self, section: Section, backend: Packing
    ) -> tuple[Any, list[SnapshotTensor]] | None:
        name, state = section.name, section.state
        known = self._bundles[name]
        gathered = known.gathered(state, backend)
        if gathered is None:
            del self._bundles[name]
            return None
        single = known.single.items()
        leaves = [SnapshotTensor(name, k, s, state[k], is_array=False) for k, s in single]
        for place, (rows, members) in enumerate(gathered):
            leaves.append(_leaf(name, name_of(place), rows, self._backend))
            leaves[-1].members = members
        return known.skeleton, leaves

    def _pack(self, section: Section, packs: Packing) -> tuple[Any, list[SnapshotTensor]] | None:
        backend, name = self._backend, section.name
        forms = self._forms.pop(name, None) or Forms()
        pack = Pack(packs, forms)
        skeleton, found = encode(section.state, backend.is_tensor, pack, lays=self._lays)
        gathered = pack.gathered() if len(pack.members) >= MANY else None
        if gathered is None:
            return None
        self._forms[name] = forms
        leaves = _leaves(name, found, backend)
        for place, each in enumerate(gathered[0]):
            leaves.append(_leaf(name, name_of(place), each, backend))
            leaves[-1].is_private = True
        return skeleton_of(skeleton, *gathered), leaves


def nbytes_of(sections: Sequence[Section], backend: TensorBackend) -> int:
    """Returns the bytes of all tensors of a state, also of what others hold of them."""

    def nbytes(tensor: Any) -> int:
        if isinstance(tensor, Piece):
            return expected_nbytes(backend.describe(tensor.local).dtype, tensor.box.whole)
        known = getattr(tensor, "nbytes", None)
        return backend.describe(tensor).nbytes if known is None else int(known)

    total = 0
    for section in sections:
        pack = Pack(backend, Forms()) if isinstance(backend, Packing) else None
        _, leaves = encode(section.state, backend.is_tensor, pack)
        every = [*leaves.values(), *(pack.members if pack is not None else ())]
        total += sum(map(nbytes, every))
    return total


def _leaves(section: str, found: Mapping[str, Any], backend: TensorBackend) -> list[SnapshotTensor]:
    """Returns what is written of the tensors found: of pieces, those that are this process's."""
    leaves = []
    for key, value in found.items():
        if not isinstance(value, Piece):
            leaves.append(_leaf(section, key, value, backend))
        elif value.is_own:
            leaf = _leaf(section, key, value.local, backend)
            leaf.box = value.box
            leaves += [leaf] if leaf.spec.nbytes else []
    return leaves


def _leaf(section: str, key: str, value: Any, backend: TensorBackend) -> SnapshotTensor:
    spec = describe_array(value) if isinstance(value, np.ndarray) else None
    if spec is None:
        spec = _described(f"{section}.{key}", value, backend)
        return SnapshotTensor(section, key, spec, value, is_array=False)
    return SnapshotTensor(section, key, spec, value, is_array=True)


def _described(where: str, tensor: Any, backend: TensorBackend) -> TensorSpec:
    try:
        return backend.describe(tensor)
    except StateError as error:
        # Only here it is known what the run calls it.
        message = f"{where}: {error.message}"
        raise StateError(message, where=where, hint=error.hint) from error


def choose_mode(
    tensor: SnapshotTensor,
    *,
    is_guarded: Callable[[TensorSpec], bool],
    unchanged_count: int,
    all_at_once: bool,
) -> Mode:
    """Decides when a tensor is copied.

    Args:
        tensor: The tensor.
        is_guarded: Whether only an optimizer's step changes it.
        unchanged_count: In how many snapshots in a row its hash was the same.
        all_at_once: Whether the last snapshot was torn, so that nothing may wait.
    """
    if tensor.is_private:
        return Mode.PRIVATE
    if all_at_once or tensor.members or tensor.is_array or tensor.spec.nbytes < AT_ONCE_BYTES:
        return Mode.AT_ONCE
    if is_guarded(tensor.spec):
        return Mode.GUARDED
    return Mode.STEADY if unchanged_count > 1 else Mode.AT_ONCE


class StagingBuffer:
    """Blocks of host memory, reused by every snapshot and added to when they are too few.

    Not one block: what is pinned for a GPU is rounded up to a power of two, which of a whole
    state may be as much again.
    """

    def __init__(self, backend: TensorBackend) -> None:
        self._backend = backend
        self._blocks: list[Bytes] = []

    def views(self, leaves: Sequence[SnapshotTensor]) -> list[Bytes]:
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


def _placed(leaves: Sequence[SnapshotTensor]) -> tuple[list[tuple[int, int]], list[int]]:
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


def copy_tensors(tensors: Sequence[SnapshotTensor], backend: TensorBackend) -> Callable[[], None]:
    """Starts copying; the function returned waits until all is in place."""
    for each in tensors:
        if each.is_array and each.spec.nbytes:
            np.copyto(each.view, np.ascontiguousarray(each.source).reshape(-1).view(np.uint8))
    others = [each for each in tensors if not each.is_array and each.spec.nbytes]
    return backend.copy([each.source for each in others], [each.view for each in others])


def parted(tensors: Iterable[SnapshotTensor]) -> list[SnapshotTensor]:
    """Returns them with those that hold others replaced by these, each with its own copy."""
    found = []
    for each in tensors:
        if not each.members:
            found.append(each)
            continue
        end = 0
        for key, spec in each.members:
            begin, end = end, end + spec.nbytes
            view = each.view[begin:end]
            found.append(SnapshotTensor(each.section, key, spec, None, is_array=False, view=view))
    return found


def hash_copies(tensors: Sequence[SnapshotTensor]) -> None:
    """Notes the hash of each tensor's copy."""
    large = []
    for each in tensors:
        if each.spec.nbytes < AT_ONCE_BYTES:
            # To hand one over costs more than to hash it, and training waits for that.
            each.hash = hash_of(each.view)
        else:
            large.append(each)
    with ThreadPoolExecutor(_HASHERS, "colabkit-hash") as hashers:
        hashes = hashers.map(lambda each: hash_of(each.view), large)
        for each, digest in zip(large, hashes, strict=True):
            each.hash = digest


def unchanged_counts_after(
    before: Mapping[tuple[str, str], tuple[str, int]], tensors: Sequence[SnapshotTensor]
) -> dict[tuple[str, str], tuple[str, int]]:
    """Returns, by tensor, its hash and in how many snapshots in a row it was the same."""
    after = {}
    for each in tensors:
        last, unchanged_count = before.get(each.place, ("", 0))
        after[each.place] = (each.hash, unchanged_count + 1 if last == each.hash else 1)
    return after
