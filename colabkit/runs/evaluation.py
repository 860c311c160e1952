"""Places that a save can go back to: passes that only evaluate, and what an error has left."""

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

    def __init__(
        self,
        state: RunState,
        mark: Callable[..., object | None],
        weights: Callable[[], object | None],
    ) -> None:
        self._position, self._state = state.position, state
        self._mark, self._weights = mark, weights
        self._places: list[_Place] = []
        # Between two passes; a save that an error calls for goes back to these as well.
        self._stops: list[_Place] = []
        self._was_left = False
        # The weights of the newest place, and those that stand in for them.
        self._trained: object | None = None
        self._stand_ins: object | None = None
        self._is_read_on = False
        self.reasons: tuple[str, ...] = ()

    @property
    def knows_place(self) -> bool:
        """Whether the pass that has begun can begin anew, if it only evaluates."""
        return bool(self._places)

    def at_head(self) -> None:
        """Notes the place where an epoch begins: what stands there up to its pass is done again."""
        self._is_read_on = False
        if not self._position.is_behind:
            self._stops, self._trained = self._noted(), self._weights()

    def before_pass(self, *, holds_weights: bool) -> None:
        """Notes the place where a pass is about to begin; the first of an epoch trains.

        Args:
            holds_weights: Whether checkpoints hold the weights of the place before it.
        """
        position = self._position
        self._places = self._of_epoch(self._places)
        if not position.begins_next:
            return
        if position.outermost_passed:
            noted = self._noted(is_at_next=True)
            self._places = [*self._places, *noted] if noted else []
        weights = None if holds_weights else self._weights()
        is_known = weights is not None and self._trained is not None
        self._stand_ins = weights if is_known and weights != self._trained else None

    @property
    def lacks_something(self) -> bool:
        """Whether a save made now lacks what the program goes on with, where it only evaluates.

        Weights may stand in for those of the training, as averages do: who put them there has the
        others. And a loop that a resume finds through sets none of its names.
        """
        if self._stand_ins is not None and self._stand_ins != self._weights():
            self._stand_ins = None
        return self._stand_ins is not None or (self._is_read_on and self.place() is not None)

    def after_pass(self, *, is_saved: bool = False, is_read_on: bool = False) -> None:
        """Notes the place where a pass has ended: what follows it up to the next is done again.

        Args:
            is_saved: Whether a save follows at once.
            is_read_on: Whether the program goes on with names that its steps have set.
        """
        if not self._position.begins_next or self.lacks_something:
            return
        self._places = self._of_epoch(self._places)
        noted = self._noted(at_end=True)
        self._places += noted
        self._is_read_on |= is_read_on and not is_saved
        self._stops = [] if noted or is_saved or is_read_on else self._noted()
        self._trained = self._weights()

    def forget(self) -> None:
        """Drops the places, where all is saved."""
        self._places, self._stops = [], []

    def leave(self) -> int | None:
        """Returns the step of the place since which nothing has changed, None where there is none.

        A save of what an error has left, which is made then, is one of that place.
        """
        self._was_left = True
        place = None if self.lacks_something else self.place()
        return None if place is None else int(place.position["step"])

    def _of_epoch(self, places: Sequence[_Place]) -> list[_Place]:
        return [each for each in places if each.position["epoch"] == self._position.epoch]

    def _noted(self, *, at_end: bool = False, is_at_next: bool = False) -> list[_Place]:
        mark = self._mark(at_end=at_end)
        if mark is None:
            return []
        noted = self._state.noted(whole=getattr(mark, "holds_all", False))
        kept = self._state.kept
        large = marks_of(kept, [name for name in names_of(kept) if name not in noted["kept"]])
        # Where a pass begins, the state has in it what stands between it and the one before.
        place = {**self._position.state_dict(), "is_at_next": is_at_next}
        return [_Place(place, mark, dict(self._state.epoch_values), noted, large)]

    def place(self) -> _Place | None:
        """Returns the place from which a save that is made now lets the run go on, None for now."""
        places = self._of_epoch([*self._places, *(self._stops if self._was_left else ())])
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
