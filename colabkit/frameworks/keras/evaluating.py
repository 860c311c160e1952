"""What the objects of a loop held at one moment, for a pass behind it that only evaluates."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import Section
from colabkit.frameworks.keras.backend import Held
from colabkit.frameworks.keras.state import KerasState

_OTHERS_BYTES_MAX = 1 << 24


class Moment:
    """All objects as they were; a later one is equal while no optimizer has stepped.

    Metrics, rates and weights that a loop sets behind a pass are held as they were then, so that
    what stands there is done once. TensorFlow never writes into a value that is held.

    Args:
        state: The run's objects.
        sections: What a checkpoint has of them now.
    """

    holds_all = True

    def __init__(self, state: KerasState, sections: Sequence[Section]) -> None:
        self._optimizers = list(state.optimizers.values())
        self._steps = self._steps_now()
        self._sections: Sequence[Section] | None = sections

    @classmethod
    def of(cls, state: KerasState) -> Moment | None:
        """Returns what there is now; None where nobody trains, or objects are too large to copy."""
        if not state.optimizers:
            return None
        sections = state.sections()
        objects = next(each for each in sections if each.name == "objects")
        if _nbytes(objects.state["others"]) > _OTHERS_BYTES_MAX:
            return None
        objects.state["others"] = copy.deepcopy(objects.state["others"])
        return cls(state, sections)

    def _steps_now(self) -> list[int]:
        return [int(each.iterations) for each in self._optimizers]

    def let_go_if_past(self) -> bool:
        """Lets go what it holds once an optimizer has stepped; returns whether it has."""
        if self._sections is not None and self._steps != self._steps_now():
            self._sections = None
        return self._sections is None

    def __eq__(self, now: object) -> bool:
        """Whether no optimizer has stepped in between."""
        if not isinstance(now, Moment):
            return NotImplemented
        return self._sections is not None and self._steps == now._steps

    __hash__ = None  # type: ignore[assignment]

    def over(self, sections: Sequence[Section]) -> list[Section]:
        """Returns the sections of a save as they were."""
        then = sections if self._sections is None else self._sections
        return [dataclasses.replace(each, state=_held_once_more(each.state)) for each in then]


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


def _held_once_more(value: Any) -> Any:
    """Returns the same, with values that a save may let go when it has copied them."""
    if isinstance(value, Held):
        return Held(value.tensor)
    if isinstance(value, Mapping):
        return {key: _held_once_more(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_held_once_more(each) for each in value)
    return value


def _nbytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    return value.nbytes if isinstance(value, np.ndarray) else len(str(value)[:64])
