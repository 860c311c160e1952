"""A run whose loop body belongs to ``fit``: it knows its data, and compares it at a resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.errors import CheckpointMismatchError
from colabkit.frameworks.base import Feed
from colabkit.frameworks.batch_records import KeptBatch
from colabkit.frameworks.differences import differences
from colabkit.runs.fingerprint import mismatch_error
from colabkit.runs.options import RunOptions
from colabkit.runs.run import Run
from colabkit.runs.same_data import WAYS_ON

TRAINING, VALIDATION = "training", "validation"


class FitRun(Run):
    """What the runs of all frameworks have, where ``fit`` is asked for a number of epochs."""

    is_users_loop = False

    def __init__(
        self,
        ckpt_dir: str | Path,
        options: RunOptions,
        objects: Mapping[str, Any],
        *,
        epochs: int,
        call: Mapping[str, Any],
    ) -> None:
        self._epochs_asked, self._call_settings = epochs, call
        self._begin(ckpt_dir, options, objects)

    def reconsider_end(self, callbacks: Sequence[Any]) -> None:
        """Takes back an end that a callback has brought about which is not passed any more."""
        by = "" if self._state.stop is None else self._state.stop.by
        if by and by not in {type(each).__name__ for each in callbacks}:
            self.go_on(f"{by} is none of the callbacks now")

    def check_data(self, feeds: Sequence[Any]) -> bool:
        """Compares the data with what the run was trained and validated on.

        A training that is over is no other case: the next fold of the data must not be taken for
        trained. Where the session goes on with the model that it has trained, other data is a
        phase of its own.

        Args:
            feeds: The training data, and the validation data or none.

        Returns:
            Whether a phase begins with other data.

        Raises:
            CheckpointMismatchError: It is other data.
        """
        try:
            self._compare_training(feeds[0])
            for validation in feeds[1:]:
                self._compare_first(VALIDATION, validation)
        except CheckpointMismatchError:
            is_more = (self._epochs_asked or 0) > self.epoch
            if not is_more or not self.turns_to_other_data():
                raise
            return True
        return False

    def _compare_training(self, feed: Any) -> None:
        raise NotImplementedError

    def _compare_first(self, name: str, feed: Any) -> None:
        """Compares the first batch of a pass with what is kept of it."""
        state = self._state.first_batches.get(name)
        kept = KeptBatch.of_state(state)
        if state is None or kept is None:
            return
        changed = differences(state["data"], dict(feed.describe()))
        if "samples" in changed and not self._data.accepts:
            if not self._data.may_change:
                said = {f"{name} {part}": pair for part, pair in changed.items()}
                raise mismatch_error(said, self._checkpoints.location, hint=WAYS_ON)
            then, now = changed["samples"]
            self._data.note_change(f"it had {then} {name} samples, and has {now}")
        if changed:
            # Batches of another size are other batches.
            del self._state.first_batches[name]
            return
        self._look_at_first(name, kept, feed, where=f"the first {name} batch")

    def _look_at_first(self, name: str, kept: KeptBatch, feed: Any, *, where: str) -> None:
        raise NotImplementedError

    def _keep_first(self, name: str, kept: KeptBatch, feed: Feed) -> None:
        """Keeps what the first batch of a pass was, to tell the data of a later session by."""
        self._state.first_batches[name] = {**kept.state_dict(), "data": dict(feed.describe())}
