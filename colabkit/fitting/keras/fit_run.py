"""A run whose steps Keras takes: told of each from within ``model.fit``."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.fitting.fit_run import TRAINING, FitRun
from colabkit.frameworks.base import Start
from colabkit.frameworks.batch_records import KeptBatch
from colabkit.frameworks.differences import differing
from colabkit.frameworks.keras.adapter import KerasAdapter
from colabkit.frameworks.keras.pass_watch import PassWatch, Watched, WatchOf
from colabkit.frameworks.keras.places import KerasFeed, Turn
from colabkit.frameworks.keras.randomness import seed_global
from colabkit.frameworks.keras.step_inspect import StepFindings
from colabkit.frameworks.seeding import derive
from colabkit.runs.data_check import NO_BATCH
from colabkit.runs.fingerprint import mismatch_error
from colabkit.runs.position import Cursor
from colabkit.runs.same_data import WAYS_ON
from colabkit.runs.state import Stop
from colabkit.runs.verdict import ResumeVerdict


class KerasRun(FitRun):
    """The same run as a loop of one's own, entered from callbacks instead of a ``for``."""

    _adapter: KerasAdapter
    _cursor: Cursor | None = None
    draws_at_steps = False
    may_be_left = True
    """Whether a validation or callbacks, which may raise, stand between two epochs' steps."""
    _is_noted = False
    turn: object = None
    """The pass under way, for data that does not say how long it is."""
    validation: KerasFeed | None = None
    """What each epoch is validated on, whose draws count for the verdict as well."""

    def _compare_training(self, feed: KerasFeed) -> None:
        if "class_weight" in differing(self._state.settings_then, self._state.settings):
            self._state.forget_batches()  # they hold a weight for each sample
        then, now = dict(self._state.known_data.get(0, {})), dict(feed.describe())
        changed = differing(then, now)
        if "batch_size" in changed and "samples" not in changed:
            return  # batches of another size are other batches
        if changed.keys() & {"samples", "batches"} and not self._data.accepts:
            raise mismatch_error(changed, self._checkpoints.location, hint=WAYS_ON)
        kept = KeptBatch.of_state(self._position.newest) if self.is_mid_epoch else None
        if changed or kept is None:
            self._compare_first(TRAINING, feed)
            return
        number = kept.number or 0
        where = f"batch {number + 1:,} of epoch {kept.epoch + 1}, trained before,"
        self._compare_again(TRAINING, kept, feed, where=where, goes_on=True)

    def _look_at_first(self, name: str, kept: KeptBatch, feed: KerasFeed, *, where: str) -> None:
        if not (self.goes_on_in_session and feed.reading_has_effects):
            self._compare_again(name, kept, feed, where=where, goes_on=False)

    def _compare_again(
        self,
        name: str,
        kept: KeptBatch,
        feed: KerasFeed,
        *,
        where: str,
        goes_on: bool,
    ) -> None:
        start = Start(self._pass_key(kept.epoch), kept.epoch, kept.number or 0)
        if name == TRAINING:
            place = kept.epoch - self.phase_began_at
            turn = self.turn
            if isinstance(turn, Turn) and place < turn.since:
                if place:
                    return  # a pass between the first and this one, whose number nothing tells
                turn = Turn()
            start = dataclasses.replace(start, epoch=place, state=turn)
        batches = feed.again(start, goes_on=goes_on)
        if batches is not None:
            self._data.compare(kept, next(batches, NO_BATCH), where=where, feed=feed)

    def keep_first(self, name: str, feed: KerasFeed, epoch: int, watch: PassWatch) -> None:
        """Keeps what the first batch of a pass was, to tell the data of a later session by.

        Args:
            name: What it is of.
            feed: The data.
            epoch: Number of the pass.
            watch: What has taken it down.
        """
        if (made := watch.first) is not None:
            self._keep_first(name, KeptBatch(made, epoch, feed.reasons(), 0), feed)

    def training(self, epochs: int) -> contextlib.AbstractContextManager[bool]:
        """Opens the run folder for a training up to ``epochs`` in all."""
        self._epochs_total = epochs
        return self._session()

    @property
    def batch(self) -> int:
        """Number of the batch under way within the epoch, from 0."""
        return self._position.batches_done

    @property
    def verdict(self) -> ResumeVerdict:
        """How exactly this run goes on, its validations among it."""
        verdict = super().verdict
        return verdict if self.validation is None else verdict.adding_feeds([self.validation])

    def sync(self) -> None:
        """Has the variables hold their values, for callbacks that read them between two steps."""
        self._adapter.sync()

    def note(self, findings: StepFindings) -> None:
        """Takes up what was seen of the model's step."""
        self._verdict = self._verdict.adding(reasons=findings.reasons, notices=findings.notices)
        self.draws_at_steps |= findings.calls_python

    def restore_metrics(self) -> None:
        """Puts the running epoch's metrics back, which Keras has just reset."""
        self._adapter.state.restore_metrics()

    def start(self) -> Start:
        """Returns where the data of the epoch under way begins."""
        position = self._position
        epoch = position.epoch - self.phase_began_at
        return Start(self._pass_key(position.epoch), epoch, position.batches_done)

    @property
    def phase_began_at(self) -> int:
        """Epochs done before the phase, with which its data begins anew."""
        return self._state.phases[self._state.phase_index].epoch

    @property
    def goes_on_in_session(self) -> bool:
        """Whether it goes on from the end of a call that this session has made."""
        return bool(self._state.ended_with)

    def count_from(self, epoch: int) -> None:
        """Begins to count epochs at a number, where nothing of the phase is trained yet.

        Raises:
            ArgumentError: More epochs are trained already.
        """
        is_new = self.begins_phase or not (self.step or self.epoch or self.is_mid_epoch)
        if not is_new or self.epoch == epoch:
            return
        if self.epoch > epoch:
            message = (
                f"initial_epoch is {epoch}, and {self.epoch} epochs are trained in"
                f" {self._checkpoints.location}."
            )
            hint = (
                "epochs and initial_epoch count all passes in a run folder, those of the phases"
                f" before included: pass initial_epoch={self.epoch}, or leave it out."
            )
            raise ArgumentError(message, argument="initial_epoch", hint=hint)
        self._state.count_from(epoch)

    def open_pass(self, feed: KerasFeed, passes: Watched) -> None:
        """Opens the epoch's pass over the data, whose batches may have another size by now."""
        # One that is still open got no batch, and is begun once more.
        cursor = self._cursor or self._position.enter(feed)
        assert cursor is not None, "an epoch of Keras has one pass over the data"  # noqa: S101
        self._cursor, cursor.watch = cursor, WatchOf(passes)
        self._check_same_data(cursor, feed)

    def begin_epoch(self, feed: KerasFeed, passes: Watched) -> None:
        """Begins an epoch with its pass over the data."""
        self._is_noted = False
        self._epoch_began_s = time.monotonic()
        self._adapter.forget_restored()
        self._adapter.seed(derive(self.seed, "epoch", self.epoch))
        self.open_pass(feed, passes)
        if not self.has_trained:
            self._announce()
        self._tell_length(feed)

    def begin_step(self) -> None:
        """Puts the streams where the step's number names, if anyone draws from them."""
        self._evaluation.forget()
        if self.draws_at_steps:
            self._adapter.seed(derive(self.seed, "step", self.step))

    def note_trained(self) -> None:
        """Notes that the steps of an epoch are done, which an error behind them does not undo."""
        if self.may_be_left and not self._is_noted:
            self._is_noted = True
            self._evaluation.note_stop()

    @contextlib.contextmanager
    def saving_what_is_left(self) -> Iterator[None]:
        """Saves what an error has left behind the last step of an epoch, or before the first."""
        try:
            yield
        except BaseException:
            self._save_place()
            raise

    def end_steps(self, count: int, values: Mapping[str, Any]) -> None:
        """Counts the steps of one execution, and saves when it is due."""
        position, cursor = self._position, self._cursor
        assert cursor is not None, "a step lies within an epoch"  # noqa: S101
        self._log.add(position.step + count - 1, position.epoch, values, 1.0)
        cursor.batches_done += count
        position.step += count - 1
        self._boundary()

    def end_epoch(
        self, values: Mapping[str, float], *, stops: bool, finished: bool, by: str = ""
    ) -> None:
        """Closes the epoch; when it was the last, everything is saved."""
        if self._cursor is not None:
            self._position.leave(self._cursor)
            self._cursor = None
        if stops and not self.should_stop:
            self._state.stop = Stop(f"{by or 'a callback'} ended it", self._epochs_total, by)
        self.log_epoch(**values)
        self._end_epoch()
        if self.may_be_left:
            self._evaluation.note_stop()
        if finished or self._state.should_stop:
            self._save_and_wait()

    @property
    def should_stop(self) -> bool:
        """Whether someone asked to end after the epoch under way."""
        return self._state.should_stop

    def _end_early(self, why: str) -> None:
        """Leaves ``model.fit`` as an interrupt does."""
        super()._end_early(why)
        self.was_interrupted = True
        raise KeyboardInterrupt

    def pass_on(self, epochs: int) -> None:
        """Leaves all streams, that of ``keras.random`` among them, as a call for these epochs."""
        super().pass_on(epochs)
        seed_global(derive(self.seed, "trained", epochs))

    def save(self) -> None:
        """Saves what is trained, and waits until it is on disk."""
        self._save_and_wait()

    def save_anew(self) -> None:
        """Saves once more at the same step: what ended the training changed the weights."""
        self._checkpoints.forget_place()
        self._save_and_wait()

    def _pass_key(self, epoch: int) -> int:
        return derive(self.seed, "pass", epoch, 0)
