"""What becomes of loops that a program leaves before their end: on purpose, or by an error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from colabkit.errors import ColabKitError
from colabkit.frameworks.seeding import derive
from colabkit.runs.boundaries import Boundaries
from colabkit.runs.position import Cursor
from colabkit.runs.state import Stop

_logger = logging.getLogger(__name__)


class LeftLoops(Boundaries):
    """The part of a ``Run`` that closes what was left, and saves it where that is safe."""

    def _close_pass(self, cursor: Cursor, *, on_purpose: bool, is_outermost: bool) -> None:
        """Closes a pass that the program has left, and saves what can be saved."""
        was_under_way = self._leave(cursor, on_purpose=on_purpose)
        # What follows an inner one goes by names that its body has set; the next save is soon.
        # An error leaves nothing that the end of the pass before has not saved.
        if was_under_way and is_outermost and on_purpose:
            self._save_unraised()

    def _leave(self, cursor: Cursor, *, on_purpose: bool = True) -> bool:
        """Closes a loop that was broken off; returns whether it was still under way."""
        position = self._position
        if cursor.is_over:
            return False
        if cursor.outermost and self._was_trained(on_purpose=on_purpose):
            position.step += 1
        position.leave(cursor)
        self._seed_between(cursor)
        return True

    def _was_trained(self, *, on_purpose: bool) -> bool:
        """Whether the batch under way has had its step: an error leaves it undone."""
        return self._log.holds(self.step) or (on_purpose and self._adapter.has_stepped())

    def _seed_between(self, cursor: Cursor | None = None) -> None:
        """Puts the random streams where a program goes on after a loop, done now or before."""
        position = self._position
        if position.leading is None:
            self._way.pass_by()
            place: tuple[str, int] = ("after", position.outermost_passed)
        elif cursor is not None:
            place = ("in", cursor.call)
        else:
            return
        self._adapter.seed(derive(self.seed, self.epoch, *place))

    def _ends_at_head(self) -> bool:
        """Whether the run is over, or ends before an epoch begins: none may look within it."""
        is_at_head = self.is_users_loop and not (self.is_over or self._position.is_mid_epoch)
        if is_at_head and (why := self._limits.reached(self.step)):
            self._end_early(why)
        return self.is_over

    def _end_epoch(self, *, has_steps: bool = True) -> None:
        place, phase = self._position, self._state.phases[self._state.phase_index]
        is_one_a_step = place.step - phase.step == place.epoch - phase.epoch
        if self.is_users_loop and is_one_a_step and not place.calls:
            self._count_epoch()
        super()._end_epoch(has_steps=has_steps)

    def _count_epoch(self) -> None:
        """Counts an epoch over no batches as a step: all data at once, a generation, a round."""
        self._position.step += 1
        if not self.has_trained:
            self._announce()
            self._has_said_all = False  # of data that a later epoch reads nothing is known
            self._display.say(
                "An epoch without run.batches counts as one step: it is saved, and done again, as a"
                " whole."
            )

    def _leave_epochs(self, begun_at: int) -> None:
        """Ends the epochs in the one under way, at ``break`` or ``return``."""
        is_under_way = self._position.is_mid_epoch or bool(self._state.epoch_values)
        where = "in" if is_under_way else "before"
        reason = f"its loop was left {where} epoch {self.epoch + 1}"
        self._state.stop = Stop(reason, self._epochs_total)
        if is_under_way:
            with contextlib.suppress(KeyboardInterrupt), self._unraised():
                self._end_epoch(has_steps=self.step != begun_at)
        self._save_unraised()

    def _save_unraised(self, *, has_failed: bool = False) -> None:  # noqa: ARG002
        """Saves where nothing can be raised: a loop is being left, or an error is under way."""
        if not self._can_save():
            return
        with self._unraised():
            self._save_and_wait()

    def stop_in_evaluation(self) -> None:
        """Answers an interrupt in a pass that only evaluates, which a resume begins anew.

        What is left of it may take minutes. So may ``max_time``, where this session has trained:
        one that is given less time than the pass takes would else never come behind it.
        """
        if self._interrupts.pending and self._finds_place():
            self._answer_interrupt()
            self._evaluation.go_on()
        why = self._limits.out_of_time() if self.has_trained else ""
        if why and self._finds_place():
            self._end_early(why)
            raise KeyboardInterrupt

    def _finds_place(self) -> bool:
        """Whether a save that is made now goes back to a place since which nothing has changed."""
        return not self.is_mid_update() and self._evaluation.leave() is not None

    def _stops_at_once(self) -> bool:
        """Whether an interrupt may end what stands between two passes of a loop of one's own."""
        is_between = self.is_users_loop and self._is_open and self._position.leading is None
        stops = is_between and self._finds_place()
        self._evaluation.go_on()
        return stops

    def _leave_by_error(self) -> None:
        """Ends the epochs where an error has taken the program out of them."""
        self._save_place()

    def _save_place(self) -> None:
        """Saves what an error has left between two passes, where nothing has changed since."""
        if self.is_over or self.was_interrupted:
            return
        step = self._evaluation.leave()
        if step is not None and step > self._checkpoints.last_step:
            with contextlib.suppress(KeyboardInterrupt):  # another one is on its way out
                self._save_unraised(has_failed=True)
        status = self._checkpoints.status()
        is_saved = status is not None and status.error is None and status.step == step
        if self._interrupts.pending and is_saved:
            self._say_interrupted()

    @contextlib.contextmanager
    def _unraised(self) -> Iterator[None]:
        try:
            yield
        except ColabKitError as error:
            _logger.warning("What a loop has left could not be saved.", exc_info=True)
            self._display.say(str(error))
