"""What a run knows of itself besides the user's objects; all of it goes into checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colabkit.checkpoint import SaveFacts, Section
from colabkit.training.fingerprint import differences, mismatch_error
from colabkit.training.monitor import Monitor
from colabkit.training.position import Cursor, Position
from colabkit.training.records import History
from colabkit.training.steplog import StepLog


class RunState:
    """Place in the data, history, running means, best value, and whether to stop."""

    def __init__(self, *, position: Position, history: History, log: StepLog, monitor: Monitor):
        self.position = position
        self.history = history
        self.log = log
        self.monitor = monitor
        self.known_data: dict[int, dict[str, Any]] = {}
        self.epoch_values: dict[str, float] = {}
        self.should_stop = False

    def epoch_logs(self) -> dict[str, float]:
        """Returns the means of the epoch under way, and what was noted for the epoch."""
        self.log.drain()
        return {**self.log.means(), **self.epoch_values}

    def end_epoch(self, *, seconds: float) -> bool:
        """Closes the epoch under way; returns whether it was the best so far."""
        logs = self.epoch_logs()
        position = self.position
        self.history.append_epoch(
            epoch=position.epoch, step=position.step, seconds=seconds, values=logs
        )
        position.begin_epoch(position.epoch + 1)
        self.log.begin_epoch()
        self.epoch_values = {}
        return self.monitor.improved(logs)

    def check_same_data(
        self, cursor: Cursor, now: Mapping[str, Any], location: str, *, in_every_epoch: bool
    ) -> None:
        """Raises CheckpointMismatchError when a pass goes on over other data than it began with.

        Args:
            cursor: The pass.
            now: What its data says of itself.
            location: The run folder.
            in_every_epoch: Whether a pass that begins must be over the data of the one before.
        """
        if not cursor.outermost:
            return
        # A loop of one's own may make its data anew in each epoch: played games, growing pools.
        goes_on = in_every_epoch or cursor.batches_done > 0
        then = self.known_data.get(cursor.call, now) if goes_on else now
        if changed := differences({"data": then}, {"data": dict(now)}):
            raise mismatch_error(changed, location)
        self.known_data[cursor.call] = dict(now)

    def facts(self, *, is_best: bool, fingerprint: Mapping[str, Any]) -> SaveFacts:
        """Returns what a checkpoint of this moment is, the place in each feed noted."""
        position = self.position
        for cursor in position.open:
            cursor.feed_state = cursor.feed.state() if cursor.feed is not None else None
        return SaveFacts(
            step=position.step,
            epoch=position.epoch,
            batch=position.batches_done,
            metrics=self.history.newest_epoch_values(),
            is_best=is_best,
            fingerprint=fingerprint,
        )

    def section(self) -> Section:
        """Returns the part of a checkpoint that is the run's own."""
        return Section("run", self.state_dict(), weights=False)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything as plain values and arrays."""
        self.log.drain()
        return {
            "position": self.position.state_dict(),
            "history": self.history.state_dict(),
            "log": self.log.state_dict(),
            "monitor": self.monitor.state_dict(),
            "known_data": {call: dict(data) for call, data in self.known_data.items()},
            "epoch_values": dict(self.epoch_values),
            "should_stop": self.should_stop,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.position.load_state_dict(state["position"])
        self.history.load_state_dict(state["history"])
        self.log.load_state_dict(state["log"])
        self.monitor.load_state_dict(state["monitor"])
        self.known_data = {call: dict(data) for call, data in state["known_data"].items()}
        self.epoch_values = dict(state["epoch_values"])
        self.should_stop = state["should_stop"]
