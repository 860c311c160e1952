"""A run whose loop body belongs to ``fit``, which has more to say than a loop of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colabkit.errors import CheckpointMismatchError
from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_records import KeptBatch
from colabkit.frameworks.differences import differences
from colabkit.frameworks.seeding import derive
from colabkit.runs.fingerprint import mismatch_error
from colabkit.runs.options import RunOptions
from colabkit.runs.position import Cursor
from colabkit.runs.run import Run
from colabkit.runs.verdict import ResumeVerdict

_TRAINING, _VALIDATION = "training", "validation"


class TorchRun(Run):
    """The same run, with a voice."""

    is_users_loop = False

    def __init__(
        self,
        ckpt_dir: str | Path,
        options: RunOptions,
        objects: Mapping[str, Any],
        *,
        epochs: int,
        settings: Mapping[str, Any],
        has_own_optimizers: bool,
    ) -> None:
        self._epochs_asked = epochs
        self._fit_settings = settings
        self._has_own_optimizers = has_own_optimizers
        self._hold_back: Callable[[], bool] = lambda: False
        self._begin(ckpt_dir, options, objects)

    def say(self, sentence: str) -> None:
        """Says one sentence to the person at the keyboard."""
        self._display.say(sentence)

    def save_only_between(self, is_mid_update: Callable[[], bool]) -> None:
        """Takes what says that gradients wait which a checkpoint could not hold."""
        self._hold_back = is_mid_update

    def is_mid_update(self) -> bool:
        """Whether gradients wait that a checkpoint could not hold."""
        return self._hold_back()

    def forget_batches(self) -> None:
        """Drops what is kept of batches, where those to come are cut otherwise."""
        self._state.forget_batches()

    def agreed_logs(self) -> dict[str, float]:
        """Returns the values of the epoch under way, by which schedules go."""
        return self.epoch_logs

    def log_outcome(self, values: Mapping[str, Any], *, samples: int) -> None:
        """Notes what a step gave: detached, and held by nobody else."""
        self._note_values(values, samples)

    def note(self, verdict: ResumeVerdict) -> None:
        """Takes up more of what decides how exactly a resume goes on."""
        self._verdict = self._verdict.adding(reasons=verdict.reasons, notices=verdict.notices)
        if self.has_trained and self.verdict != self.history.verdict:
            self.history.verdict = self.verdict
            self.say(str(self.verdict))

    def check_data(self, feed: Feed, validation: Feed | None) -> None:
        """Compares the data with what the run was trained and validated on.

        Where a pass is under way, the pass itself does. A training that is over is no other case:
        the next fold of the data must not be taken for trained. Where the session goes on with the
        model that it has trained, other data is a phase of its own.

        Raises:
            CheckpointMismatchError: It is other data.
        """
        try:
            self._compare_data(feed, validation)
        except CheckpointMismatchError:
            is_more = (self._epochs_asked or 0) > self.epoch
            if not is_more or not self.turns_to_other_data():
                raise

    def _compare_data(self, feed: Feed, validation: Feed | None) -> None:
        if not self.is_mid_epoch:
            self._check_first(_TRAINING, feed, lambda epoch: self._start_of("pass", epoch, 0))
        if validation is not None:
            self._check_first(_VALIDATION, validation, self._start_of_validation)

    def _check_first(self, name: str, feed: Feed, start_in: Callable[[int], Start]) -> None:
        state = self._state.first_batches.get(name)
        kept = KeptBatch.of_state(state)
        if state is None or kept is None:
            return
        changed = differences(state["data"], dict(feed.describe()))
        if "samples" in changed and not self._data.accepts:
            raise mismatch_error(
                {f"{name} {n}": c for n, c in changed.items()}, self._checkpoints.location
            )
        if changed:
            # Batches of another size are other batches.
            del self._state.first_batches[name]
            return
        where = f"the first {name} batch"
        self._data.compare_first(kept, feed, start_in(kept.epoch), where=where)

    def _keep_first(
        self, name: str, feed: Feed, epoch: int, batches: Iterator[Any]
    ) -> Iterator[Any]:
        """Returns the batches, of whose first one is kept what tells it from others."""
        for batch in batches:
            record = getattr(feed, "record", self._data.record)
            kept = KeptBatch(record(batch), epoch, feed.reasons())
            self._state.first_batches[name] = {**kept.state_dict(), "data": dict(feed.describe())}
            return itertools.chain((batch,), batches)
        return batches

    def _batches_left(self, cursor: Cursor, feed: Feed, start: Start) -> Iterator[Any]:
        batches = super()._batches_left(cursor, feed, start)
        if start.skip or _TRAINING in self._state.first_batches:
            return batches
        return self._keep_first(_TRAINING, feed, start.epoch, batches)

    def validated(self, feed: Feed, epoch: int) -> Iterator[Any]:
        """Returns the batches of a validation, and keeps what the first one was."""
        batches = iter(feed.batches(self._start_of_validation(epoch)))
        for number, batch in enumerate(self._keep_first(_VALIDATION, feed, epoch, batches), 1):
            yield batch
            self._display.validating(number, feed.length)

    def _start_of_validation(self, epoch: int) -> Start:
        return self._start_of("validation", epoch)

    def _start_of(self, what: str, epoch: int, *call: int) -> Start:
        return Start(key=derive(self.seed, what, epoch, *call), epoch=epoch)
