"""Passes that only evaluate, which begin anew at a resume for what their loops sum up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colabkit.checkpoint import Section
from colabkit.runs.kept_values import marks_of, names_of
from colabkit.runs.state import RunState

_TOO_LARGE = (
    "the kept {name} is too large to be held as it was before a pass that only evaluates: what the"
    " loop itself sums up there is not whole where it is interrupted"
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a pass began or the one before it ended, and what the run held then.

    Attributes:
        position: The place.
        of_objects: The mark of what the objects held.
        epoch_values: What the loop had logged for the epoch.
        noted: What it had logged and kept; what is logged and kept later is so once more.
        large: Marks of what it keeps that is too large to be held, by name; None of what has none.
    """

    position: Mapping[str, Any]
    of_objects: object
    epoch_values: Mapping[str, Any]
    noted: Mapping[str, Any]
    large: Mapping[str, object | None]


class Evaluation:
    """Finds the place from which on nothing was changed that a checkpoint holds.

    The sums and lists of a loop that evaluates are variables of its own. Where a checkpoint held
    the place within the pass, they would lack the batches before it at a resume.

    Args:
        state: The run's own.
        mark: Returns what is equal while nothing changes in the objects, None where that cannot be
            told.

    Attributes:
        reasons: Why such a pass was left to go on at the batch.
    """

    def __init__(self, state: RunState, mark: Callable[..., object | None]) -> None:
        self._position, self._state = state.position, state
        self._mark = mark
        self._places: list[_Place] = []
        self.reasons: tuple[str, ...] = ()

    @property
    def knows_place(self) -> bool:
        """Whether the pass that has begun can begin anew, if it only evaluates."""
        return bool(self._places)

    def before_pass(self) -> None:
        """Notes the place where a pass is about to begin; the first of an epoch trains."""
        position = self._position
        self._places = self._of_epoch()
        if position.outermost_passed and position.begins_next and not self._note():
            self._places = []

    def after_pass(self) -> None:
        """Notes the place where a pass has ended: what follows it up to the next is done again."""
        if self._position.begins_next:
            self._places = self._of_epoch()
            self._note(at_end=True)

    def _of_epoch(self) -> list[_Place]:
        return [each for each in self._places if each.position["epoch"] == self._position.epoch]

    def _note(self, *, at_end: bool = False) -> bool:
        mark = self._mark(at_end=at_end)
        if mark is None:
            return False
        noted = self._state.noted(whole=getattr(mark, "holds_all", False))
        kept = self._state.kept
        large = marks_of(kept, [name for name in names_of(kept) if name not in noted["kept"]])
        # Where a pass begins, the state has in it what stands between it and the one before.
        place = {**self._position.state_dict(), "is_at_next": not at_end}
        self._places.append(_Place(place, mark, dict(self._state.epoch_values), noted, large))
        return True

    def place(self) -> _Place | None:
        """Returns the place from which a save that is made now lets the run go on, None for now."""
        places = self._of_epoch()
        mark = self._mark() if places else None
        same = [] if mark is None else [each for each in places if each.of_objects == mark]
        found = next((each for each in same if not self._changed(each)), None)
        if found is None and not self._position.begins_next:
            changed = dict.fromkeys(name for each in same for name in self._changed(each))
            of_these = (_TOO_LARGE.format(name=name) for name in changed)
            self.reasons = tuple(dict.fromkeys((*self.reasons, *of_these)))
        return found

    def snapshot(self, sections: Sequence[Section], place: _Place | None) -> list[Section]:
        """Returns all sections of a save that is made now.

        Args:
            sections: Those of the objects.
            place: Where it lets the run go on.
        """
        now = self._position.state_dict()
        if place is None:
            return [*sections, self._state.section(now, self._state.epoch_values)]
        over: Any = getattr(place.of_objects, "over", list)
        began = {**place.position, "data_reasons": now["data_reasons"]}
        own = self._state.section(began, place.epoch_values, place.noted, place.large)
        return [*over(sections), own]

    def held_by_all(self, sections: Sequence[Section]) -> tuple[list[Section], Mapping[str, Any]]:
        """Returns the objects' sections and the kept values that a save made now would hold.

        Args:
            sections: Those of the objects as they are.
        """
        place, kept = self.place(), self._state.kept.state_dict()
        if place is None:
            return list(sections), kept
        over: Any = getattr(place.of_objects, "over", list)
        return over(sections), {name: kept[name] for name in place.large} | place.noted["kept"]

    def _changed(self, place: _Place) -> list[str]:
        """Returns what cannot be put back as it was at a place, and is so no more."""
        now = marks_of(self._state.kept, place.large)
        return [name for name, mark in place.large.items() if mark is None or now[name] != mark]
