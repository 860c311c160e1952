"""A run whose steps Keras takes: told of each from within ``model.fit``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colabkit.training.feed import Feed, Start
from colabkit.training.fingerprint import mismatch_error
from colabkit.training.keras_side.side import KerasSide
from colabkit.training.loop import Run
from colabkit.training.passing import has_other_data
from colabkit.training.phases import differing
from colabkit.training.position import Cursor
from colabkit.training.seeding import derive
from colabkit.training.state import Stop

_OTHER_DATA = (
    "Another part of the data, a fold, needs another folder. To train on with the same model on"
    " other data, pass more epochs, which count over both. data_changed='accept' goes on."
)


class KerasRun(Run):
    """The same run as a loop of one's own, entered from callbacks instead of a ``for``."""

    _side: KerasSide
    _cursor: Cursor | None = None
    draws_at_steps = False
    is_users_loop = False

    def __init__(
        self, ckpt_dir: str | Path, *, epochs: int, data_mark: str, **options: Any
    ) -> None:
        self._epochs_asked = epochs
        self._data_mark = data_mark
        super().__init__(ckpt_dir, **options)

    def check_data(self, feed: Feed) -> None:
        """Begins a phase where the session goes on with its model on other data.

        Raises:
            CheckpointMismatchError: The session goes on with another model on other data, as for
                the next fold, and this one must not be taken for trained.
        """
        then = dict(self._state.known_data.get(0, {}))
        location, wants_more = self._keeper.location, (self._epochs_asked or 0) > self.epoch
        changed = differing(then, dict(feed.describe())).keys() - {"batch_size", "batches"}
        is_other = bool(self.step) and has_other_data(location, self._data_mark)
        if (changed or is_other) and wants_more and self.turns_to_other_data():
            return
        if is_other and not self._data.accepts:
            raise mismatch_error(
                {"data": ("that of the call before", "other samples")}, location, hint=_OTHER_DATA
            )

    def training(self, epochs: int) -> contextlib.AbstractContextManager[bool]:
        """Opens the run folder for a training up to ``epochs`` in all."""
        self._epochs_total = epochs
        return self._session()

    @property
    def batch(self) -> int:
        """Number of the batch under way within the epoch, from 0."""
        return self._position.batches_done

    def note(self, reasons: tuple[str, ...]) -> None:
        """Takes up more reasons why a resume is not exact."""
        self._verdict = self._verdict.adding(reasons=reasons)

    def restore_metrics(self) -> None:
        """Puts the running epoch's metrics back, which Keras has just reset."""
        self._side.state.restore_metrics()

    def start(self) -> Start:
        """Returns where the data of the epoch under way begins."""
        position = self._position
        return Start(self._pass_key(), position.epoch, position.batches_done)

    def begin_epoch(self, feed: Feed) -> None:
        """Opens the epoch's pass over the data."""
        self._epoch_began_s = time.monotonic()
        self._side.seed(derive(self.seed, "epoch", self.epoch))
        # One that is still open got no batch, and is begun once more.
        cursor = self._cursor or self._position.enter(feed)
        assert cursor is not None, "an epoch of Keras has one pass over the data"  # noqa: S101
        self._cursor = cursor
        self._check_same_data(cursor, feed)
        if not self.has_trained:
            self._announce(feed)

    def begin_step(self) -> None:
        """Puts the streams where the step's number names, if anyone draws from them."""
        if self.draws_at_steps:
            self._side.seed(derive(self.seed, "step", self.step))

    def end_steps(self, count: int, values: Mapping[str, Any]) -> None:
        """Counts the steps of one execution, and saves when it is due."""
        position, cursor = self._position, self._cursor
        assert cursor is not None, "a step lies within an epoch"  # noqa: S101
        self._log.add(position.step + count - 1, position.epoch, values, 1.0)
        cursor.batches_done += count
        position.step += count - 1
        self._boundary()

    def end_epoch(self, values: Mapping[str, float], *, stops: bool, finished: bool) -> None:
        """Closes the epoch; when it was the last, everything is saved."""
        if self._cursor is not None:
            self._position.leave(self._cursor)
            self._cursor = None
        if stops and not self.should_stop:
            self._state.stop = Stop("a callback ended it", self._epochs_total)
        self.log_epoch(**values)
        self._end_epoch()
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

    def save(self) -> None:
        """Saves what is trained, and waits until it is on disk."""
        self._save_and_wait()

    def save_anew(self) -> None:
        """Saves once more at the same step: what ended the training changed the weights."""
        self._keeper.forget_place()
        self._save_and_wait()

    def _pass_key(self) -> int:
        return derive(self.seed, "pass", self.epoch, 0)
