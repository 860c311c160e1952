"""What this session's calls have left behind them, to know the next call on a run folder by."""

from __future__ import annotations

import dataclasses
import sys
import weakref
from collections.abc import Sequence
from typing import Any

from colabkit.errors import CheckpointMismatchError
from colabkit.frameworks.base import Owned
from colabkit.frameworks.differences import differing
from colabkit.notebook import RUN_AGAIN, cell_number, note_stopped
from colabkit.runs.phases import Call, Left, Phase


@dataclasses.dataclass(frozen=True, slots=True)
class _Passed:
    models: tuple[weakref.ref[Any], ...]
    optimizers: tuple[weakref.ref[Any], ...]
    index: int
    phase: Phase
    left: Call
    cell: object
    is_done: bool
    has_diverged: bool
    was_interrupted: bool
    out_of_time: str


_PASSED: dict[str, _Passed] = {}
_LOADED: dict[str, weakref.ref[Any]] = {}


def note(
    location: str,
    owned: Owned,
    *,
    index: int,
    phase: Phase,
    left: Call,
    is_done: bool,
    has_diverged: bool,
    was_interrupted: bool,
    out_of_time: str = "",
) -> None:
    """Takes down that a call has come to its end, or was interrupted.

    Args:
        location: The run folder.
        owned: What the call was given.
        index: Number of its phase.
        phase: The phase as the call knows it.
        left: What a call with the objects as they are now would be.
        is_done: Whether it has come to its end.
        has_diverged: Whether it ended because the loss or the weights became NaN or infinite.
        was_interrupted: Whether somebody stopped it.
        out_of_time: Which limit of its time ended it before its end, "" for none.
    """
    if was_interrupted:
        note_stopped()
    models, optimizers = _refs(owned.models), _refs(owned.optimizers)
    _PASSED[location] = _Passed(
        models=models,
        optimizers=optimizers,
        index=index,
        phase=phase,
        left=left,
        cell=cell_number(),
        is_done=is_done,
        has_diverged=has_diverged,
        was_interrupted=was_interrupted,
        out_of_time=out_of_time,
    )


def note_loaded(location: str, model: Any) -> None:
    """Takes down that the user has put a checkpoint's weights into a model."""
    _LOADED[location] = weakref.ref(model)


def is_loaded(location: str, owned: Owned) -> bool:
    """Whether a model was given a checkpoint's weights in this session."""
    there = _LOADED.get(location)
    return there is not None and any(there() is model for model in owned.models)


def was_done_by_another(location: str, owned: Owned) -> bool:
    """Whether other objects were trained there to the end, in this very cell or script."""
    passed = _PASSED.get(location)
    is_here = passed is not None and passed.is_done and passed.cell == cell_number()
    return is_here and _of(location, owned) is None


def has_diverged(location: str, owned: Owned) -> bool:
    """Whether a call has left these objects with weights that are NaN or infinite."""
    passed = _of(location, owned)
    return passed is not None and passed.has_diverged


def stop_before_phase(location: str, owned: Owned, before: str, step: int) -> None:
    """Ends a call that would begin a phase on one that this session could not train to its end.

    Args:
        location: The run folder.
        owned: What the call was given.
        before: What the phase before is called.
        step: Where it stands.

    Raises:
        CheckpointMismatchError: It ran out of time, and could never come to its end.
        KeyboardInterrupt: It was stopped in this very cell or script.
    """
    passed, number = _of(location, owned), cell_number()
    if passed is not None and passed.out_of_time:
        message = (
            f"{before} in {location} is not trained to its end: at step {step:,} its time was up"
            f" ({passed.out_of_time}). The next phase does not begin on it: it would be left so."
        )
        hint = f"Make the call of {before} again, in this session or the next, to go on with it"
        hint += f"; or pass max_steps={step} to it, to leave it where it is." if step else "."
        raise CheckpointMismatchError(message, differences={}, hint=hint)
    is_known = number or not hasattr(sys, "ps1")  # a prompt of Python's has no cells
    if passed is not None and passed.was_interrupted and is_known and passed.cell == number:
        message = f"The phase before was interrupted: the next one does not begin. {RUN_AGAIN}"
        raise KeyboardInterrupt(message)


def phase_left(location: str, owned: Owned) -> Phase | None:
    """Returns the phase that these objects have been through, as its call knew it at the end."""
    passed = _of(location, owned)
    return None if passed is None else passed.phase


def left_by(location: str, owned: Owned, call: Call, *, has_weights: bool) -> Left | None:
    """Returns how these objects were left, None where they were in no call on this folder.

    Args:
        location: The run folder.
        owned: The objects.
        call: What is asked for now.
        has_weights: Whether the model holds the newest checkpoint's weights.
    """
    passed = _of(location, owned)
    if passed is None:
        return None
    is_same = _are(passed.optimizers, owned.optimizers) and not differing(
        passed.left.parts, call.parts
    )
    # An optimizer that fit makes by its name begins as it did then, whatever became of that one.
    is_set = not differing(passed.left.settings, call.settings) or (
        not owned.optimizers and not differing(passed.phase.settings, call.settings)
    )
    return Left(passed.index, is_same and is_set, has_weights, passed.has_diverged)


def _of(location: str, owned: Owned) -> _Passed | None:
    passed = _PASSED.get(location)
    if passed is None or not any(ref() is each for ref in passed.models for each in owned.models):
        return None
    return passed


def _refs(objects: Sequence[Any]) -> tuple[weakref.ref[Any], ...]:
    return tuple(weakref.ref(each) for each in objects)


def _are(refs: Sequence[weakref.ref[Any]], objects: Sequence[Any]) -> bool:
    pairs = zip(refs, objects, strict=False)
    return len(refs) == len(objects) and all(ref() is each for ref, each in pairs)
