"""A run whose loop body belongs to ``fit``, which has more to say than a loop of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colabkit.fitting.fit_run import TRAINING, VALIDATION, FitRun
from colabkit.fitting.torch.step import TrainStep
from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_records import KeptBatch
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.adapter import TorchAdapter
from colabkit.frameworks.torch.dataset_watch import holds_one_of
from colabkit.runs.options import RunOptions
from colabkit.runs.position import Cursor
from colabkit.runs.verdict import ResumeVerdict


class TorchRun(FitRun):
    """The same run, with a voice."""

    def __init__(
        self,
        ckpt_dir: str | Path,
        options: RunOptions,
        objects: Mapping[str, Any],
        *,
        epochs: int,
        call: Mapping[str, Any],
        settings: Mapping[str, Any],
        has_own_optimizers: bool,
    ) -> None:
        self._fit_settings = settings
        self._has_own_optimizers = has_own_optimizers
        self._hold_back: Callable[[], bool] = lambda: False
        super().__init__(ckpt_dir, options, objects, epochs=epochs, call=call)

    def say(self, sentence: str) -> None:
        """Says one sentence to the person at the keyboard."""
        self._display.say(sentence)

    def move_schedule(self, step: TrainStep) -> None:
        """Puts a schedule that is new, or steps at other times, where it would be by now."""
        then, now = self._state.settings_then, self._state.settings
        moves = bool(then) and then.get("schedule") != now.get("schedule")
        moves = moves and not self.begins_phase  # whose schedule begins with it
        # What a module is trained with is this adapter.
        if moves and isinstance(self._adapter, TorchAdapter):
            done = step.steps_of_schedule
            self._adapter.begin_schedule_at("scheduler", self.epoch if done is None else done)

    def put_back(self) -> None:
        """Gives the objects once more what a checkpoint has, until the first step of a session."""
        self._adapter.restore_again(all_of_it=True)

    def wants_no_place_between(self) -> None:
        """Notes that only ``fit`` itself runs between two epochs: no error there is to be saved."""
        self._evaluation.rests = True

    def save_only_between(self, is_mid_update: Callable[[], bool]) -> None:
        """Takes what says that gradients wait which a checkpoint could not hold."""
        self._hold_back = is_mid_update

    def is_mid_update(self) -> bool:
        """Whether gradients wait that a checkpoint could not hold."""
        return self._hold_back()

    def finish_copying(self) -> None:
        """Waits until no snapshot under way needs the weights as they are."""
        self._checkpoints.finish_copying()

    def forget_batches(self) -> None:
        """Drops what is kept of batches, where those to come are cut otherwise."""
        self._state.forget_batches()

    def agreed_logs(self) -> dict[str, float]:
        """Returns the values of the epoch under way, by which schedules go."""
        return self.epoch_logs

    def agree_on_end(self) -> None:
        """Comes to the end of the call, which nobody else does."""

    def let_go(self) -> None:
        """Ends the call: signals are again whose they were."""
        self._interrupts.let_go()

    def log_outcome(self, values: Mapping[str, Any], *, samples: int) -> None:
        """Notes what a step gave: detached, and held by nobody else."""
        self._note_values(values, samples)

    def note_trained(self) -> None:
        """Notes that the steps of an epoch are done, which an error behind them does not undo."""
        if not self.is_over:
            self._evaluation.after_pass()

    def note(self, verdict: ResumeVerdict) -> None:
        """Takes up more of what decides how exactly a resume goes on."""
        self._verdict = self._verdict.adding(reasons=verdict.reasons, notices=verdict.notices)
        if self.has_trained and self.verdict != self.history.verdict:
            self.history.verdict = self.verdict
            self.say(str(self.verdict))

    def _compare_training(self, feed: Feed) -> None:
        # Nobody can tell whether callbacks have changed what data has, or it is other data.
        if isinstance(self._adapter, TorchAdapter) and holds_one_of(feed, self._adapter.filled()):
            self._data.expect(("callbacks may have changed it",))
        # Where a pass is under way, the pass itself compares.
        if not self.is_mid_epoch:
            self._compare_first(TRAINING, feed)

    def _look_at_first(self, name: str, kept: KeptBatch, feed: Feed, *, where: str) -> None:
        is_validation = name == VALIDATION
        start_in = self._start_of_validation if is_validation else self._start_of_pass
        self._data.compare_first(kept, feed, start_in(kept.epoch), where=where)

    def _with_first_kept(
        self, name: str, feed: Feed, epoch: int, batches: Iterator[Any]
    ) -> Iterator[Any]:
        """Returns the batches, of whose first one is kept what tells it from others."""
        for batch in batches:
            record = getattr(feed, "record", self._data.record)
            self._keep_first(name, KeptBatch(record(batch), epoch, feed.reasons()), feed)
            return itertools.chain((batch,), batches)
        return batches

    def _batches_left(self, cursor: Cursor, feed: Feed, start: Start) -> Iterator[Any]:
        batches = super()._batches_left(cursor, feed, start)
        if start.skip or TRAINING in self._state.first_batches:
            return batches
        return self._with_first_kept(TRAINING, feed, start.epoch, batches)

    def validated(self, feed: Feed, epoch: int) -> Iterator[Any]:
        """Returns the batches of a validation, and keeps what the first one was."""
        batches = iter(feed.batches(self._start_of_validation(epoch)))
        batches = self._with_first_kept(VALIDATION, feed, epoch, batches)
        for number, batch in enumerate(batches, 1):
            yield batch
            self._display.validating(number, feed.length)
            self.stop_in_evaluation()

    def _start_of_pass(self, epoch: int) -> Start:
        return Start(key=derive(self.seed, "pass", epoch, 0), epoch=epoch)

    def _start_of_validation(self, epoch: int) -> Start:
        return Start(key=derive(self.seed, "validation", epoch), epoch=epoch)
