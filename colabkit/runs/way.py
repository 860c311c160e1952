"""What a program reads on its way to the place of a checkpoint, as it was there.

A resume runs the heads of epochs and what stands between two loops once more. A mean that is
read and reset between training and evaluation would be that of the middle of the evaluation.
"""

from __future__ import annotations

from colabkit.frameworks.base import FrameworkAdapter
from colabkit.runs.state import RunState

# Of a loop without epochs, the passes before these are too far back for anyone to read of them.
_STOPS_MAX = 16


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
        # Whether heads of epochs make something with the model, and so need the weights of then.
        self.holds_weights = False

    @property
    def has_head(self) -> bool:
        """Whether a resume in this epoch comes by its head with the weights of then."""
        return bool(self._state.stops.get(0, {}).get("objects", {}).get("weights"))

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
                self._state.kept.put(stops[passed]["kept"], stops[passed].get("coming", {}))
            return
        objects = self._adapter.small_state(with_weights=self.holds_weights and not passed)
        here = {"objects": objects, "kept": self._state.kept.small_state()}
        stops[passed] = here
        for passed_before in [each for each in stops if each < passed - _STOPS_MAX]:
            del stops[passed_before]

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
