"""What a program reads on its way to the place of a checkpoint, as it was there.

A resume runs the heads of epochs and what stands between two loops once more. A mean that is
read and reset between training and evaluation would be that of the middle of the evaluation.
"""

from __future__ import annotations

from typing import Any

from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.small_copies import is_room_beside
from colabkit.runs.made_with_model import Used
from colabkit.runs.state import RunState

# Of a loop without epochs, the passes before these are too far back for anyone to read of them.
_STOPS_MAX, _WITH_WEIGHTS_MAX = 16, 100


class Way:
    """Notes what is small at the head of an epoch and behind each of its passes.

    Args:
        state: The run's own.
        adapter: Knows the objects.
        is_users_loop: Whether anybody reads on the way: ``fit`` reads nothing.
    """

    def __init__(self, state: RunState, adapter: FrameworkAdapter, *, is_users_loop: bool) -> None:
        self._state, self._position, self._adapter = state, state.position, adapter
        self._is_users_loop = is_users_loop
        # Where something is made with the model, which so needs the weights of then.
        self.uses = Used()

    def lacks(self) -> Used:
        """Returns where a resume in the pass that begins does not have the weights of then."""
        between = range(1, self._position.outermost_passed + 1) if self.uses.between else ()
        return Used(
            at_heads=self.uses.at_heads and not self._weights_at(0),
            between=not all(map(self._weights_at, between)),
        )

    @property
    def holds_weights(self) -> bool:
        """Whether checkpoints hold the weights that there were behind the newest pass."""
        return bool(self._weights_at(self._position.outermost_passed))

    def _wants_weights(self, passed: int) -> bool:
        return self.uses.between if passed else self.uses.at_heads

    def _weights_at(self, passed: int) -> Any:
        return self._state.stops.get(passed, {}).get("objects", {}).get("weights")

    def begin_epoch(self) -> None:
        """Comes to the head of an epoch, for the first time or again."""
        if not self._position.is_behind:
            self._state.stops = {}
        self.pass_by()

    def pass_by(self) -> None:
        """Comes to where the program goes on behind a pass that leads, done now or before."""
        position, stops = self._position, self._state.stops
        if not self._is_users_loop:
            return
        passed = position.outermost_passed
        if position.is_behind:
            if passed in stops:
                self._adapter.put_small(stops[passed]["objects"])
                coming, assigned = (stops[passed].get(key, {}) for key in ("coming", "assigned"))
                self._state.kept.put(stops[passed]["kept"], coming, assigned)
            return
        others = [each for n in stops if n != passed and (each := self._weights_at(n))]
        # A session that begins just here has not seen a loop yet, and holds them all the same.
        wants_weights = self._wants_weights(passed) or self._weights_at(passed)
        is_room = len(others) < _WITH_WEIGHTS_MAX and is_room_beside(others)
        takes_weights = bool(wants_weights) and is_room
        objects = self._adapter.small_state(with_weights=takes_weights)
        here = {"objects": objects, "kept": self._state.kept.small_state()}
        stops[passed] = here
        self._state.kept.count_anew()
        for before in [each for each in stops if each < passed - _STOPS_MAX]:
            if not self._weights_at(before):  # what was made there is read for long
                del stops[before]

    def arrive(self) -> None:
        """Puts all back that was done again, where the next loop is that of the checkpoint."""
        position, stops = self._position, self._state.stops
        if not self._is_users_loop:
            return
        if position.arrives_next:
            self._state.put_back()
            self._adapter.restore_again(all_of_it=True)
        elif position.leading is None and not position.is_behind:
            stop = stops.get(position.outermost_passed, {})
            stop["coming"] = self._state.kept.small_state()
            stop["assigned"] = self._state.kept.assigned()
