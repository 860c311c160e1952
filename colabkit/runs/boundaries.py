"""What a run does between two steps: it looks around, saves, and ends where it was asked to."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colabkit.checkpoint import SaveStatus
from colabkit.errors import DivergedError
from colabkit.frameworks.base import Feed, FrameworkAdapter, Owned
from colabkit.frameworks.seeding import derive
from colabkit.runs.checkpoint_manager import CheckpointManager, CheckpointOptions, Snapshot
from colabkit.runs.display import Display
from colabkit.runs.evaluation import Evaluation
from colabkit.runs.event_log import Events
from colabkit.runs.fingerprint import fingerprint_of
from colabkit.runs.handover import has_diverged, note
from colabkit.runs.history import History
from colabkit.runs.interrupts import InterruptGuard
from colabkit.runs.limits import Limits
from colabkit.runs.news import News
from colabkit.runs.own_variables import OwnVariables
from colabkit.runs.phases import Call, Start
from colabkit.runs.pictures import Pictures
from colabkit.runs.position import Cursor, Position
from colabkit.runs.state import RunState
from colabkit.runs.step_log import WAY_BACK, StepLog
from colabkit.runs.verdict import ResumeVerdict
from colabkit.runs.way import Way
from colabkit.storage import RemountResult

_logger = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.25


class Boundaries:
    """The part of a ``Run`` that acts at step boundaries, where alone its state is whole."""

    history: History
    seed: int
    was_interrupted: bool
    has_trained: bool
    _has_said_all: bool
    is_over: bool
    _adapter: FrameworkAdapter
    _position: Position
    _log: StepLog
    _state: RunState
    _evaluation: Evaluation
    _own: OwnVariables
    _way: Way
    _display: Display
    _interrupts: InterruptGuard
    _checkpoints: CheckpointManager
    _limits: Limits
    _events: Events
    _pictures: Pictures
    _news: News
    _is_best: bool
    _is_open: bool
    is_users_loop: bool
    _next_look_s: float
    _epochs_total: int | None
    _epochs_done: int | None
    _epoch_began_s: float
    # What fit knows of its call besides its objects.
    _epochs_asked: int | None = None
    _fit_settings: Mapping[str, Any] = {}
    _call_settings: Mapping[str, Any] = {}
    _has_own_optimizers = True
    # Whether the epoch under way lacks the validation that others have.
    skips_validation = False

    @property
    def batch(self) -> int:
        """Number of the batch under way within its pass over the data, from 0.

        ``enumerate`` would count from 0 again after a resume in mid-epoch.
        """
        return max(0, self._position.batches_done - 1)

    @property
    def epoch_logs(self) -> dict[str, float]:
        """The means of the epoch under way, and what ``log_epoch`` noted."""
        return self._state.epoch_logs()

    @property
    def is_mid_epoch(self) -> bool:
        """Whether part of the epoch under way is already done."""
        return self._position.is_mid_epoch

    @property
    def checkpoint_wait_s(self) -> float:
        """Seconds that checkpoints have held this session's training thread."""
        return self._checkpoints.wait_s

    @property
    def save_status(self) -> SaveStatus | None:
        """Where the newest save is and what it took; None outside a loop."""
        return self._checkpoints.status()

    @property
    def verdict(self) -> ResumeVerdict:
        """How exactly this run goes on after an interruption."""
        raise NotImplementedError

    def _leave(self, cursor: Cursor, *, on_purpose: bool = True) -> bool:
        """Closes a loop that was broken off; returns whether it was still under way."""
        raise NotImplementedError

    def _kept_in(self, ckpt_dir: str | Path, options: CheckpointOptions) -> CheckpointManager:
        """Returns what keeps the run's checkpoints."""
        return CheckpointManager(
            ckpt_dir,
            self._adapter,
            options,
            take=self._snapshot,
            where=self._state.place,
            on_remount=self._tell_remounted,
        )

    def _tell_remounted(self, result: RemountResult) -> None:
        self._display.show_remount(result)
        self._news.remounted(result)

    @property
    def step(self) -> int:
        """Batches trained since the run began, over all its sessions."""
        return self._position.step

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return self._position.epoch

    def ask_for(self, epochs: int) -> None:
        """Notes how many epochs are asked for in all; more than when it stopped go on."""
        self._epochs_total = epochs
        if words := self._state.ask_for(epochs):
            self._display.say(words)

    @property
    def is_closed(self) -> bool:
        """Whether a later phase goes on from the end of this one, which so trains no more."""
        return self._state.is_closed

    def _call(self, name: str = "") -> Call:
        """Returns what tells this run's phase from others, with the objects as they were made."""
        settings = {**self._adapter.passed(), **self._fit_settings}
        return Call(name, self._adapter.parts(), settings, self._epochs_asked)

    def _owned(self) -> Owned:
        owned = self._adapter.owned()
        return owned if self._has_own_optimizers else dataclasses.replace(owned, optimizers=())

    @property
    def is_idle(self) -> bool:
        """Whether the objects come from a call that has trained all that is asked for."""
        return self._state.is_idle

    @property
    def begins_phase(self) -> bool:
        """Whether this call begins a phase, and has not trained yet."""
        return self._state.begins_phase

    def turns_to_other_data(self) -> bool:
        """Begins a phase for data that the finished one was not trained on; returns whether.

        That is where the session that has trained it goes on with the same model: another model,
        or another session, may have been given the wrong data.
        """
        state = self._state
        if not state.ended_with or state.begins_phase:
            return False
        state.begin_phase(self._call(), stands_on=state.ended_with, is_comparable=False)
        title = state.history.phases[-1].name
        self._display.phase_begins(
            title, self._position, source=Start.AS_IT_IS.value, changes=["data"]
        )
        return True

    def pass_on(self, epochs: int) -> None:
        """Leaves the random streams and the objects to the notebook as a call for these epochs.

        What the notebook draws next is the same, whether the call has trained or found it done.
        """
        self._adapter.seed(derive(self.seed, "trained", epochs))
        self._note_passing()

    def _note_passing(self) -> None:
        state = self._state
        settings = {**self._adapter.left(), **self._fit_settings}
        note(
            self._checkpoints.location,
            self._owned(),
            index=state.phase_index,
            phase=state.phases[state.phase_index],
            left=Call("", self._adapter.parts(), settings),
            is_done=self._is_done(),
            has_diverged=self._log.has_diverged,
            was_interrupted=self.was_interrupted and not self._news.is_out_of_time,
            out_of_time=self._news.ended_early if self._news.is_out_of_time else "",
        )

    def _is_done(self) -> bool:
        """Whether its loops have come to their end."""
        asked = self._epochs_total
        is_open = bool(self._position.open) or self.was_interrupted
        return not is_open and (asked is None or self.epoch >= asked or self.has_stopped)

    @property
    def has_stopped(self) -> bool:
        """Whether someone ended the run early, and the epoch then under way is done."""
        return self._state.should_stop and not self._position.is_mid_epoch

    def has_passed(self, epochs: int) -> bool:
        """Whether the run has trained beyond so many epochs: their end was another call's."""
        return self.epoch > epochs or (self.epoch == epochs and self._position.is_mid_epoch)

    def _boundary(self) -> None:
        """Between two steps: the one place where a run is saved or stopped."""
        self._position.step += 1
        now_s = time.monotonic()
        if (
            now_s >= self._next_look_s
            or self._checkpoints.counts_steps
            or self._interrupts.pending
            or self._position.step >= self._limits.last_step
        ):
            self._tick(now_s)

    def _tick(self, now_s: float, *, counts: bool = False) -> None:
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_EVERY_S
            self._log.drain()
            status = self._checkpoints.status()
            self._display.update(self._position, self._log.newest, status)
            self._events.follow(status)
        if self._adapter.is_mid_group() or not self._can_save():
            return
        if self._is_interrupted():
            self._answer_interrupt()
        if (why := self._limits.reached(self.step)) and not self._is_at_an_end():
            self._end_early(why)
            return
        self._require_finite(self._checkpoints.status())
        if not self._is_behind_last_batch():
            self._checkpoints.save_if_due(self.step, counts=counts)
        self._checkpoints.remount()

    def _answer_interrupt(self) -> None:
        self._save_and_wait()
        self._say_interrupted()
        self.was_interrupted = self._ends()
        if self.was_interrupted:
            raise KeyboardInterrupt

    def _say_interrupted(self) -> None:
        self._display.say(f"Interrupted at step {self.step}; saved. Run the cell to go on.")

    def _is_interrupted(self) -> bool:
        """Whether an interrupt is to be answered."""
        return self._interrupts.pending

    def _ends(self) -> bool:
        """Whether the run ends, now that an interrupt is answered."""
        return self._interrupts.ends()

    def _can_save(self) -> bool:
        """Whether the objects are those of the training, whole."""
        return not (self.is_mid_update() or self._evaluation.lacks_something)

    def _lacks_something(self) -> bool:
        """Whether a save behind a pass would lack what the program goes on with."""
        return self._evaluation.lacks_something

    def is_mid_update(self) -> bool:
        """Whether gradients wait that a checkpoint could not hold."""
        return False

    def _is_at_an_end(self) -> bool:
        """Whether a pass or the last epoch is through, after which the loop ends by itself."""
        leading = self._position.leading
        if leading is None:
            return self._epochs_total is not None and self.epoch >= self._epochs_total
        length = leading.feed.length if leading.feed is not None else None
        return length is not None and leading.batches_done >= length

    def _come_to_head(self) -> None:
        """Says what was set behind a restore and comes back: it has had its turn already."""
        undone = self._adapter.begin_epoch()
        if undone and self.is_users_loop and self._position.is_behind:
            self._display.say(
                f"Set behind Run, and comes back to what the checkpoint has: {', '.join(undone)}."
                " Pass it where the optimizer is made, or set it at a batch."
            )
        self._way.begin_epoch()
        self._evaluation.at_head()

    def _is_behind_last_batch(self) -> bool:
        """Whether the epoch goes on behind a loop that is through, with names its body has set.

        A loop that a resume finds through sets none of them: ``loss``, say. The next save is soon.
        """
        is_in_epoch = self.is_users_loop and self._epochs_total is not None
        return is_in_epoch and self._position.leading is not None and self._is_at_an_end()

    def _end_early(self, why: str) -> None:
        """Ends the run where it stands, in mid-epoch too; the loops over it yield no more."""
        self.is_over = True
        # What has run out of time is not done.
        self.was_interrupted = self.step < self._limits.last_step
        self._news.ended_early, self._news.is_out_of_time = why, self.was_interrupted
        if self.has_trained:
            self._save_and_wait()
            self._display.say(f"Ended at step {self.step:,}, saved: {why}. It goes on from here.")
        elif self.was_interrupted:
            self._display.say(f"Ended at step {self.step:,} before it trained: {why}.")
        else:
            self._display.say(f"Nothing left to do: {self.step:,} steps are trained, {why}.")

    def _announce(self) -> None:
        self.has_trained = self._has_said_all = True
        self.history.verdict = self.verdict
        self._display.say(str(self.verdict))

    def _tell_length(self, feed: Feed) -> None:
        """Says how long an epoch is: what its passes so far come to, or what the one before had."""
        (begun_before, begun), place = self.history.newest_bounds(), self._position
        known = [begun - begun_before] if self.is_users_loop else []
        if feed.length is not None:
            known.append(place.step - place.batches_done - begun + feed.length)
        self._display.length(
            max(known, default=0) or None,
            epoch=self.epoch,
            begun=begun,
            most=self._limits.max_steps,
        )

    @contextlib.contextmanager
    def _session(self) -> Iterator[bool]:
        """Yields whether it is the outermost, with which the session ends, whatever is open."""
        is_outermost, self._is_open = not self._is_open, True
        try:
            if is_outermost:
                self._begin_session()
            yield is_outermost
        finally:
            if is_outermost:
                self._is_open = False
                self._end_session()

    def _begin_session(self) -> None:
        self._limits.begin()
        self._state.train_on()
        self._interrupts.install()
        self._checkpoints.open()
        self._display.open(self._position, self._checkpoints.folder, epochs=self._epochs_total)
        self._events.open(self.step)
        if self.step == 0 or self._state.begins_phase:
            self._checkpoints.save(self.step, wait=False)
            self._state.begins_phase = False

    def _end_session(self) -> None:
        status = None
        try:
            status = self._checkpoints.close()
        finally:
            self._interrupts.restore()
            self._note_passing()
            self._events.close()
            self._pictures.close()
            self._display.close(self._position, self._log.newest, status)

    def _save_and_wait(self) -> None:
        self._checkpoints.save(self.step, wait=True)
        self._display.update(self._position, self._log.newest, self._checkpoints.status())
        self._require_finite(self._checkpoints.status())
        self._checkpoints.publish_history(self.history.csv_text())
        self._events.finish(self.step)

    def _require_finite(self, status: SaveStatus | None) -> None:
        """Raises DivergedError when a save has found NaN in weights that had none before."""
        if status is None or status.is_finite:
            return
        if status.finite_step is not None:
            message = (
                "The weights became NaN or infinite, or what the optimizer keeps of their"
                f" gradients, between step {status.finite_step} and step {status.step} (epoch"
                f" {self.epoch + 1})."
            )
            hint = WAY_BACK
        elif has_diverged(self._checkpoints.location, self._owned()):
            message = "The model has diverged in this session, and still holds NaN or infinity."
            hint = "Run the cell that makes it again, then this one."
        else:  # a weight that is so by intent, a mask say
            return
        self._log.has_diverged = True
        raise DivergedError(message, step=status.step, epoch=self.epoch, loss=math.nan, hint=hint)

    def _say_unsaved(self, reasons: tuple[str, ...]) -> None:
        """Says the verdict again where training was seen to read or change what none can repeat."""
        said = self.history.verdict
        if self.has_trained and said is not None:
            self.history.verdict = said.adding(reasons=reasons)
            if self.history.verdict != said:
                self._display.say(str(self.history.verdict))

    def _snapshot(self) -> Snapshot:
        sections = self._adapter.sections()
        place = self._evaluation.place()
        if place is None:
            self._own.note_goes_on()
        unsaved = self.verdict.reasons
        self._say_unsaved(unsaved)
        reasons = (*self._state.reasons, *unsaved)
        self._state.reasons = tuple(dict.fromkeys(reasons))
        self._state.parts = self._adapter.parts()
        made = self._state.objects_as_made
        fingerprint = fingerprint_of(self._adapter, seed=self.seed, at_start=made)
        facts = self._state.facts(is_best=self._is_best, fingerprint=fingerprint)
        return Snapshot(self._evaluation.snapshot(sections, place), facts)

    def _end_epoch(self, *, has_steps: bool = True) -> None:
        if (left := self._position.leading) is not None:
            # Somebody holds on to an iterator that the program has left.
            self._leave(left)
        complaint = self._state.monitor.complaint(self._state.epoch_logs())
        if complaint and not self.skips_validation:
            self._display.say(complaint)
        is_best = self._state.end_epoch(seconds=time.monotonic() - self._epoch_began_s)
        self._is_best = self._agreed_best(is_best)
        if self._is_best:
            self._checkpoints.save(self.step, wait=False)
            self._is_best = False
        self._tick(time.monotonic(), counts=not has_steps)

    def _agreed_best(self, is_best: bool) -> bool:
        """Returns whether the epoch was the best, as all that train together see it."""
        return is_best
