"""Many small tensors stored as a few: those of one form lie one after the other in one tensor.

A memory of 10,000 transitions is 40,000 tensors of some bytes each. One by one, their copies,
hashes and names would hold training for seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from colabkit.checkpoint.tensors import LaysOut, TensorSpec, describe_array

TAG = "packed"
# Fewer than this are stored each under a name of its own.
MANY = 1000
_MEMBER_BYTES_MAX = 4 << 10
_NEW: Any = object()
_nbytes = operator.attrgetter("nbytes")


@runtime_checkable
class Packing(Protocol):
    """A backend that can put small tensors together."""

    tensor_type: type
    """The class whose instances, but not those of its subclasses, are packed."""
    form: Callable[[Any], Hashable]
    """Returns what tensors put together have in common."""

    def packs(self, tensor: Any) -> bool:
        """Whether tensors of its form can be put together."""
        ...

    def gather(self, tensors: list[Any] | tuple[Any, ...]) -> Any:
        """Returns tensors of one form as rows of a new one, None where a form has changed."""
        ...

    def part(self, gathered: Any) -> list[Any]:
        """Returns the rows, each with memory of its own."""
        ...

    def marks(self, tensors: Sequence[Any]) -> Sequence[Any] | None:
        """Returns what is the same while each has its form and place; None where one has none."""
        ...


class Forms:
    """Which form each small tensor of a section has, kept from save to save."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int | None] = {}
        # By identity, which stays a tensor's own while it is kept here.
        self._known: dict[int, tuple[Any, int | None]] = {}
        # All of the last save in their order, and which of them have one form.
        self._last: tuple[list[Any], Grouping | None] = ([], None)

    def know(self, items: Sequence[Any], at: int) -> bool:
        """Whether they were there at the last save.

        Args:
            items: Some of the members.
            at: The place that the first of them will have.
        """
        return _are_same(items, self._last[0][at : at + len(items)])

    def grouped(self, members: list[Any], backend: Packing) -> Grouping | None:
        """Returns which have one form; None where one cannot be put together with others."""
        if not _are_same(members, self._last[0]):
            self._last = (members, _grouping(self.of(members, backend)))
        return self._last[1]

    def of(self, members: Sequence[Any], backend: Packing) -> list[int | None]:
        """Returns a number for each one's form, None for one that no other can be put with."""
        ids = list(map(id, members))
        entries = list(map(self._known.get, ids))
        for place, entry in enumerate(entries):
            if entry is None:
                member = members[place]
                form = _form(member) if isinstance(member, np.ndarray) else backend.form(member)
                number = self._numbers.get(form, _NEW)
                if number is _NEW:
                    number = self._numbers[form] = self._number(member, backend)
                entries[place] = (member, number)
        known = [entry for entry in entries if entry is not None]
        self._known = dict(zip(ids, known, strict=True))
        return [number for _, number in known]

    def _number(self, member: Any, backend: Packing) -> int | None:
        is_array = isinstance(member, np.ndarray)
        can_be = describe_array(member) is not None if is_array else backend.packs(member)
        return len(self._numbers) if can_be else None


def _are_small(items: Sequence[Any]) -> bool:
    with contextlib.suppress(RuntimeError):  # a sparse one has no size, and is refused by name
        return bool(max(map(_nbytes, items)) <= _MEMBER_BYTES_MAX)
    return False


def _form(array: np.ndarray[Any, Any]) -> Hashable:
    return array.dtype.str, array.shape


@dataclasses.dataclass(frozen=True, slots=True)
class Grouping:
    """Which of many tensors are put together.

    Attributes:
        of: The number of the tensor that each is a row of.
        picks: What takes the rows of each out of all.
    """

    of: list[int]
    picks: list[Callable[[Any], Any]]


def _grouping(numbers: Sequence[int | None]) -> Grouping | None:
    places: dict[int | None, list[int]] = {}
    for place, number in enumerate(numbers):
        places.setdefault(number, []).append(place)
    if None in places:
        return None
    nth = {number: n for n, number in enumerate(places)}
    return Grouping([nth[n] for n in numbers], [_picking(each) for each in places.values()])


def _picking(places: list[Any]) -> Callable[[Any], Any]:
    """Returns what gives those at some places, or under some names, in a sequence."""
    if len(places) == 1:
        return lambda all_of_them: (all_of_them[places[0]],)
    return operator.itemgetter(*places)


def _are_same(items: Sequence[Any], before: Sequence[Any]) -> bool:
    return len(items) == len(before) and all(map(operator.is_, items, before))


class Pack:
    """The small tensors and arrays of one section, in the order in which they are met.

    Args:
        backend: The framework's tensors.
        forms: What is known of them from the last save.
    """

    def __init__(self, backend: Packing, forms: Forms) -> None:
        self._backend = backend
        self._forms = forms
        self._lays = backend if isinstance(backend, LaysOut) else None
        self.kinds = frozenset({backend.tensor_type, np.ndarray})
        self.members: list[Any] = []

    def take(self, items: Sequence[Any]) -> int | None:
        """Takes up tensors and arrays of its kinds; returns the place of the first.

        None where not all are small, and lie row after row.
        """
        at = len(self.members)
        if not self._forms.know(items, at) and not (_are_small(items) and self._lie(items)):
            return None
        self.members.extend(items)
        return at

    def _lie(self, items: Sequence[Any]) -> bool:
        """Whether many lie as they are stored; of one by itself that is known."""
        lays = self._lays
        if lays is None or len(items) == 1:
            return True
        tensors = (each for each in items if not isinstance(each, np.ndarray))
        return all(lays.axes_in_memory(each) is None for each in tensors)

    def gathered(self) -> tuple[list[Any], list[int]] | None:
        """Returns the tensors put together, and of which of them each member is a row.

        None where one of the members cannot be put together with others.
        """
        known = self._forms.grouped(self.members, self._backend)
        if known is None:
            return None
        together = [self._gather(pick(self.members)) for pick in known.picks]
        if any(each is None for each in together):
            return None
        return together, known.of

    def _gather(self, members: tuple[Any, ...]) -> Any:
        if not isinstance(members[0], np.ndarray):
            return self._backend.gather(members)
        is_one_form = len({(each.dtype, each.shape) for each in members}) == 1
        return np.stack(members) if is_one_form else None


class Bundles:
    """Which weights of a section are copied together, kept from save to save.

    In the files each has a name of its own; only training waits for one copy in place of many.

    Args:
        state: All weights by name.
        skeleton: What ``encode`` gave for them.
        specs: The forms of those that are stored, by name.
        backend: The framework's tensors.
        form: What is equal while names, forms and places are; None where nobody has looked.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        skeleton: Any,
        specs: Mapping[str, TensorSpec],
        backend: Packing,
        *,
        form: Hashable = None,
    ) -> None:
        self.skeleton = skeleton
        self._marks = _marks_of(state, backend) if form is None else form
        addresses = [spec.address for spec in specs.values() if spec.nbytes]
        if len(specs) < len(state) or len(set(addresses)) < len(addresses):
            self._marks = None  # two are one as long as they are read alike, which no mark tells
        together: dict[Hashable, list[str]] = {}
        self.single: dict[str, TensorSpec] = {}
        for name, spec in specs.items():
            if 0 < spec.nbytes <= _MEMBER_BYTES_MAX and backend.packs(state[name]):
                together.setdefault(backend.form(state[name]), []).append(name)
            else:
                self.single[name] = spec
        self._bundles = [tuple((name, specs[name]) for name in each) for each in together.values()]
        self._picks = [_picking(each) for each in together.values()]

    def are_of(self, state: Mapping[str, Any], backend: Packing, *, form: Hashable = None) -> bool:
        """Whether all weights have the names, forms and places they had."""
        if self._marks is None:
            return False
        return bool(self._marks == (_marks_of(state, backend) if form is None else form))

    def gathered(
        self, state: Mapping[str, Any], backend: Packing
    ) -> list[tuple[Any, tuple[tuple[str, TensorSpec], ...]]] | None:
        """Returns copies of the small ones, those of one form in one tensor, and who they are.

        None where some cannot be put together.
        """
        found = []
        for pick, members in zip(self._picks, self._bundles, strict=True):
            rows = backend.gather(pick(state))
            if rows is None:
                return None
            found.append((rows, members))
        return found


def _marks_of(state: Mapping[str, Any], backend: Packing) -> Any:
    marks = backend.marks(list(state.values()))
    return None if marks is None else [list(state), *marks]


def name_of(place: int) -> str:
    """Returns what those put together are called in the files."""
    return f"packed {place}"


def skeleton_of(state: Any, together: Sequence[Any], of: Sequence[int]) -> dict[str, Any]:
    """Returns the skeleton of a section whose nodes name members by their place."""
    kinds = ["array" if isinstance(each, np.ndarray) else "tensor" for each in together]
    return {"$": TAG, "state": state, "kinds": kinds, "of": list(of)}


def members_of(skeleton: Mapping[str, Any], leaf: Callable[[str, str], Any]) -> list[Any]:
    """Returns the members in their order."""
    rows: list[Iterator[Any]] = [
        iter(leaf(f"rows of {kind}", name_of(place)))
        for place, kind in enumerate(skeleton["kinds"])
    ]
    return [next(rows[place]) for place in skeleton["of"]]
