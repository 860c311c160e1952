"""Passes that only evaluate, which begin anew at a resume for what their loops sum up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from colabkit.runs.position import Position


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a pass began, and what the objects held then."""

    position: Mapping[str, Any]
    mark: object


class Evaluation:
    """Finds the place from which on nothing was changed that a checkpoint holds.

    The sums and lists of a loop that evaluates are variables of its own. Where a checkpoint held
    the place within the pass, they would lack the batches before it at a resume.

    Args:
        position: Where the run stands.
        mark: Returns what is equal while nothing changes, None where that cannot be told.
    """

    def __init__(self, position: Position, mark: Callable[[], object | None]) -> None:
        self._position = position
        self._mark = mark
        self._places: list[_Place] = []

    def before_pass(self) -> None:
        """Notes the place where a pass is about to begin; the first of an epoch trains."""
        position = self._position
        self._places = [each for each in self._places if each.position["epoch"] == position.epoch]
        if position.outermost_passed and position.begins_next:
            if (mark := self._mark()) is None:
                self._places = []
            else:
                self._places.append(_Place(position.state_dict(), mark))

    def position(self) -> Mapping[str, Any]:
        """Returns where a save that is made now lets the run go on."""
        position = self._position
        now = position.state_dict()
        places = [each for each in self._places if each.position["epoch"] == position.epoch]
        if not places or (mark := self._mark()) is None:
            return now
        began = next((each.position for each in places if each.mark == mark), now)
        return {**began, "data_reasons": now["data_reasons"]}
