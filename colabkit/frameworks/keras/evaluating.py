"""What the objects of a loop held at one moment, for a pass behind it that only evaluates."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import Section, decode, encode
from colabkit.errors import StateError
from colabkit.frameworks.keras.state import KerasState
from colabkit.frameworks.keras.variables import steps_of

_OTHERS_BYTES_MAX = 1 << 24
# Of PyTorch's and JAX's all are copied up to the first, and beyond it those up to the second.
_COPIED_BYTES_MAX, _SMALL_BYTES_MAX = 1 << 25, 1 << 16


class Moment:
    """All objects as they were; a later one is equal while no optimizer has stepped.

    Metrics, rates and weights that a loop sets behind a pass are held as they were then, so that
    what stands there is done once. TensorFlow never writes into a value that is held. Of PyTorch
    and JAX small ones are copied, and large ones must not have been written since, or taken away.

    Args:
        state: The run's objects.
        sections: What a checkpoint has of them now.
        is_tensor: Tells the backend's tensors from all else.

    Raises:
        StateError: There is something in them that cannot be stored.
    """

    holds_all = True

    def __init__(
        self, state: KerasState, sections: Sequence[Section], is_tensor: Callable[[object], bool]
    ) -> None:
        self._state = state
        self._steps = self._steps_now()
        encoded = [(each, *encode(each.state, is_tensor)) for each in sections]
        leaves = [leaf for _, _, found in encoded for leaf in found.values()]
        copies_all = sum(map(_size_of, leaves)) <= _COPIED_BYTES_MAX
        limit = _COPIED_BYTES_MAX if copies_all else _SMALL_BYTES_MAX
        self._stamps = [_stamp_of(leaf) for leaf in leaves if _size_of(leaf) > limit]
        self._held: list[tuple[Section, Any, dict[str, Any]]] | None = [
            (each, skeleton, {name: _held(leaf, limit) for name, leaf in found.items()})
            for each, skeleton, found in encoded
        ]

    @classmethod
    def of(cls, state: KerasState, is_tensor: Callable[[object], bool]) -> Moment | None:
        """Returns what there is now; None where nobody trains, or objects are too large to copy."""
        if not (state.optimizers or any(map(_groups_of, state.others.values()))):
            return None
        sections = state.sections()
        objects = next(each for each in sections if each.name == "objects")
        if _nbytes(objects.state["others"]) > _OTHERS_BYTES_MAX:
            return None
        try:
            return cls(state, sections, is_tensor)
        except StateError:  # a save says so
            return None

    def _steps_now(self) -> list[Any]:
        """Returns what each step of an optimizer changes."""
        groups = (group for each in self._state.others.values() for group in _groups_of(each))
        steps = [steps_of(each) for each in self._state.optimizers.values()]
        return [*steps, *(_stamp_of(each) for group in groups for each in group["params"])]

    def let_go_if_past(self) -> bool:
        """Lets go what it holds once an optimizer has stepped; returns whether it has."""
        if self._held is not None and self._steps != self._steps_now():
            self._held = None
        return self._held is None

    def __eq__(self, now: object) -> bool:
        """Whether no optimizer has stepped in between, and what is held still is as it was."""
        if not isinstance(now, Moment):
            return NotImplemented
        if self._held is None or self._steps != now._steps or self._stamps != now._stamps:
            return False
        leaves = (leaf for _, _, found in self._held for leaf in found.values())
        # A step of JAX that is given its state to overwrite takes the values away.
        return not any(leaf.is_deleted() for leaf in leaves if hasattr(leaf, "is_deleted"))

    __hash__ = None  # type: ignore[assignment]

    def over(self, sections: Sequence[Section]) -> list[Section]:
        """Returns the sections of a save as they were."""
        if self._held is None:
            return list(sections)
        return [
            dataclasses.replace(each, state=_joined(skeleton, found))
            for each, skeleton, found in self._held
        ]


class Moments:
    """Those that may still be equal to a later one; each costs memory once weights change."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Moment]] = []
        self._steps = self._next_look = 0

    def add(self, moment: Moment) -> None:
        """Takes up one more."""
        self._made.append(weakref.ref(moment))
        self._steps, self._next_look = 0, 2

    def begin_step(self) -> None:
        """Lets go those of a pass that turns out to train; looks ever more rarely, for it waits."""
        if not self._made:
            return
        self._steps += 1
        if self._steps == self._next_look:
            self._next_look *= 2
            left = [each() for each in self._made]
            self._made = [weakref.ref(m) for m in left if m is not None and not m.let_go_if_past()]


def _held(leaf: Any, limit: int) -> Any:
    if isinstance(leaf, np.ndarray):
        return leaf.copy("K")
    if _size_of(leaf) > limit:
        return leaf
    if _is_of_torch(leaf):
        return leaf.clone()
    return leaf.copy() if hasattr(leaf, "is_deleted") else leaf


def _joined(skeleton: Any, leaves: Mapping[str, Any]) -> Any:
    return decode(skeleton, lambda _, name: _given(leaves[name]))


def _given(leaf: Any) -> Any:
    """Returns what was held, for a save that may let it go when it has copied it."""
    return copy.copy(leaf) if hasattr(leaf, "spec") else leaf


def _stamp_of(leaf: Any) -> Any:
    """Returns where a tensor of PyTorch lies, and how often it was written."""
    return (leaf.data_ptr(), leaf._version) if _is_of_torch(leaf) else None


def _is_of_torch(leaf: Any) -> bool:
    return hasattr(leaf, "data_ptr")


def _groups_of(value: Any) -> Iterable[Any]:
    """Returns the groups of an optimizer of PyTorch, none of anything else."""
    return getattr(value, "param_groups", ())


def _size_of(leaf: Any) -> int:
    return int(leaf.spec.nbytes if hasattr(leaf, "spec") else leaf.nbytes)


def _nbytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    if _is_of_torch(value):
        return 0
    return value.nbytes if isinstance(value, np.ndarray) else len(str(value)[:64])
