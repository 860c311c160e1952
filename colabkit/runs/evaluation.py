"""Places that a save can go back to: passes that only evaluate, and what an error has left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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

    @property
    def number(self) -> tuple[int, bool]:
        """Tells it from the others of its epoch: the passes before it, and whether one begins."""
        return int(self.position["outermost_done"]), bool(self.position["is_at_next"])


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
        rests: Whether no code but the library's runs between two passes: no place is wanted there.
    """

    rests = False

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
        # What several processes agree on: where all can go back to, None where nobody asks, and
        # the place at which all had the same.
        self._agreed: frozenset[tuple[int, bool]] | None = None
        self._newest: _Place | None = None
        self._alike: _Place | None = None
        # The weights of the newest place, and those that stand in for them.
        self._trained: object | None = None
        self._stand_ins: object | None = None
        # After how many passes of the epoch the program goes on with names that one has set.
        self._read_on_from: float = math.inf
        self.reasons: tuple[str, ...] = ()

    def holding(self) -> list[tuple[int, bool]]:
        """Returns which places a save made now could go back to."""
        return [each.number for each in self._holding()]

    def agree_on(self, held: Iterable[Sequence[tuple[int, bool]]]) -> None:
        """Lets saves go back only to where all of several processes can.

        Args:
            held: What ``holding`` gave in each.
        """
        self._agreed = frozenset.intersection(*map(frozenset, held))

    def note_alike(self) -> None:
        """Notes that all of several processes have the same at the place just noted."""
        self._alike = self._newest

    @property
    def is_alike(self) -> bool:
        """Whether a save made now is of a place at which all of several processes had the same."""
        return self._alike is not None and self.place() is self._alike

    @property
    def knows_place(self) -> bool:
        """Whether the pass that has begun can begin anew, if it only evaluates."""
        return bool(self._places)

    def at_head(self) -> None:
        """Notes the place where an epoch begins: what stands there up to its pass is done again."""
        self._newest, self._read_on_from = None, math.inf
        if not (self._position.is_behind or self.rests):
            self.note_stop()
            self._trained = self._weights()

    def note_stop(self) -> None:
        """Notes the place where training stands still, up to where it goes on."""
        self._stops = self._noted()

    def before_pass(self, *, holds_weights: bool) -> None:
        """Notes the place where a pass is about to begin; the first of an epoch trains.

        Args:
            holds_weights: Whether checkpoints hold the weights of the place before it.
        """
        position, self._newest = self._position, None
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
        if self._stand_ins is not None or math.isinf(self._read_on_from):
            return self._stand_ins is not None
        found = self._holding()
        return bool(found) and found[0].number[0] >= self._read_on_from

    def after_pass(self, *, is_saved: bool = False, is_read_on: bool = False) -> None:
        """Notes the place where a pass has ended: what follows it up to the next is done again.

        Args:
            is_saved: Whether a save follows at once.
            is_read_on: Whether the program goes on with names that its steps have set.
        """
        self._newest = None
        if self.rests or not self._position.begins_next:
            return
        weights = self._weights()
        if self.lacks_something:
            return
        self._places = self._of_epoch(self._places)
        noted = self._noted(at_end=True)
        self._places += noted
        if is_read_on and not is_saved:
            self._read_on_from = min(self._read_on_from, self._position.outermost_done)
        self._stops = [] if noted or is_saved or is_read_on else self._noted()
        self._trained = weights

    def forget(self) -> None:
        """Drops the places, where all is saved."""
        self._places, self._stops = [], []

    def leave(self) -> int | None:
        """Returns the step of the place since which nothing has changed, None where there is none.

        A save of what an error has left, which is made then, is one of that place.
        """
        self._was_left, self._agreed = True, None
        place = None if self.lacks_something else self.place()
        self._was_left = place is not None
        return None if place is None else int(place.position["step"])

    def go_on(self) -> None:
        """Notes that nobody leaves after all."""
        self._was_left = False

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
        self._newest = _Place(place, mark, dict(self._state.epoch_values), noted, large)
        return [self._newest]

    def place(self) -> _Place | None:
        """Returns the place from which a save that is made now lets the run go on, None for now."""
        agreed = self._agreed
        holding = (e for e in self._holding() if agreed is None or e.number in agreed)
        return next(holding, None)

    def _holding(self) -> list[_Place]:
        places = self._of_epoch([*self._places, *(self._stops if self._was_left else ())])
        mark = self._mark() if places else None
        same = [] if mark is None else [each for each in places if each.of_objects == mark]
        found = [each for each in same if not self._changed(each)]
        if not found and not self._position.begins_next:
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
