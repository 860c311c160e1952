"""What a run tells the person at the keyboard: sentences and one progress bar."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from colabkit.checkpoint import LoadedCheckpoint, SaveState, SaveStatus
from colabkit.notebook import (
    Printed,
    Silent,
    Speaker,
    TrainingBar,
    duration_words,
    saved_words,
    value_words,
)
from colabkit.training.position import Position

_PLACES = {
    SaveState.SPOOLED: "on this machine only",
    SaveState.COMMITTED: "in the run folder",
    SaveState.CONFIRMED: "uploaded",
}


class Display:
    """Shows a run's progress, or nothing at all.

    Args:
        shown: False is silent.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._speaker: Speaker = Printed() if shown else Silent()
        self._bar: TrainingBar | None = None
        self._status: SaveStatus | None = None
        self._epochs: int | None = None
        self._complaint = ""

    def say(self, sentence: str) -> None:
        """Says one sentence."""
        self._speaker.say(sentence)

    def open(self, position: Position, *, epochs: int | None) -> None:
        """Shows the bar."""
        self._epochs = epochs
        self._bar = TrainingBar(
            total_steps=None,
            epochs=epochs,
            initial_step=position.step,
            saved=self._saved_words,
            progress=self._shown,
        )

    def length(self, batches: int | None) -> None:
        """Says how many batches an epoch has, once that is known."""
        if self._bar is not None and batches and self._epochs:
            self._bar.set_length(total_steps=batches * self._epochs, steps_per_epoch=batches)

    def update(
        self, position: Position, values: Mapping[str, float], status: SaveStatus | None
    ) -> None:
        """Shows where the run stands."""
        self._status = status
        self._complain(status)
        if self._bar is not None:
            self._bar.update(
                position.step,
                max(0, position.epoch - (0 if position.is_mid_epoch else 1)),
                lambda: {name: value_words(value) for name, value in values.items()},
            )

    def close(self) -> None:
        """Leaves the bar standing."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def interrupted(self) -> None:
        """Answers the first Ctrl-C."""
        self.say("Finishing this step and saving; interrupt again to stop at once without.")

    def resumed(self, loaded: LoadedCheckpoint, position: Position) -> None:
        """Says where the run goes on."""
        age_s = (datetime.datetime.now(datetime.UTC) - loaded.info.saved_at).total_seconds()
        self.say(
            f"Resumed at epoch {position.epoch + 1}, step {position.step:,}"
            f" (saved {duration_words(age_s)} ago)."
        )

    def _complain(self, status: SaveStatus | None) -> None:
        complaint = str(status.error) if status is not None and status.error else ""
        if complaint and complaint != self._complaint:
            self.say(f"The last checkpoint could not be saved: {complaint} Training goes on.")
        self._complaint = complaint

    def _saved_words(self) -> str:
        status = self._status
        if status is None or status.state not in _PLACES:
            return ""
        return saved_words(step=status.step, age_s=status.age_s, place=_PLACES[status.state])
