"""What a run tells the person at the keyboard: sentences and one progress bar."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from colabkit.checkpoint import CarryStatus, LoadedCheckpoint, SaveState, SaveStatus
from colabkit.errors import DriveLostError
from colabkit.notebook import (
    Printed,
    Silent,
    Speaker,
    TrainingBar,
    duration_words,
    saved_words,
    value_words,
)
from colabkit.runtime import detect_platform, session_clock
from colabkit.storage import Mended, Mending
from colabkit.training.position import Position

_UPLOAD_PATIENCE_S = 600.0
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
        self._clock = session_clock(detect_platform())

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

    def mended(self, mending: Mending | None) -> None:
        """Says what became of a mount that was lost, if there was one."""
        if mending is None:
            return
        if mending.outcome is Mended.REMOUNTED:
            self.say("Drive was lost and is mounted again; what waits here is being copied there.")
        elif mending.outcome is Mended.RENEWED:
            self.say("Drive was mounted anew, as asked for after some hours.")
        elif mending.outcome is Mended.REFUSED:
            self.say(
                f"Drive could not be mounted again ({mending.error}) Training goes on, and"
                " checkpoints are kept on this machine; the next try is in"
                f" {duration_words(mending.next_try_s)}."
            )

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
        complaint = _complaint(status) if status is not None else ""
        if complaint and complaint != self._complaint:
            self.say(f"{complaint} Training goes on.")
        self._complaint = complaint

    def _saved_words(self) -> str:
        status, left_s = self._status, self._clock.left_s
        parts = []
        if status is not None and status.state in _PLACES:
            place = _PLACES[status.state]
            parts.append(saved_words(step=status.step, age_s=status.age_s, place=place))
            if status.carry is not None:
                parts.append(_carried_words(status.carry))
        if left_s is not None:
            parts.append(f"machine about {duration_words(left_s)} more")
        return ", ".join(parts)


def _carried_words(carry: CarryStatus) -> str:
    """Returns how far the volume is behind this machine."""
    if carry.committed_step is None:
        return "nothing on the volume yet"
    if carry.confirmed_step == carry.committed_step:
        return f"step {carry.committed_step:,} uploaded"
    known = "" if carry.confirmed_step is None else f", step {carry.confirmed_step:,} uploaded"
    return f"step {carry.committed_step:,} on the volume{known}"


def _complaint(status: SaveStatus) -> str:
    carry = status.carry
    if status.error is not None:
        return f"The last checkpoint could not be saved: {status.error}"
    if carry is None:
        return ""
    if carry.error is not None and not isinstance(carry.error, DriveLostError):
        return f"Checkpoints stay on this machine for now: {carry.error}"
    if carry.unconfirmed_s > _UPLOAD_PATIENCE_S:
        return (
            f"Drive has not uploaded the checkpoint of step {carry.committed_step} for"
            f" {duration_words(_UPLOAD_PATIENCE_S)}; look whether your Drive or its trash is full."
        )
    return ""
