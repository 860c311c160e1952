"""What a run tells the person at the keyboard: sentences, and a panel or a progress bar."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence

from colabkit.checkpoint import LoadedCheckpoint, RunFolder, SaveStatus
from colabkit.notebook import (
    CellOutput,
    Pixels,
    Printed,
    Silent,
    Speaker,
    TrainingBar,
    TrainingPanel,
    bytes_words,
    duration_words,
    redraws,
    training_began,
    training_ended,
    training_goes_on,
    value_words,
)
from colabkit.runs.forecast import Forecast
from colabkit.runs.history import History
from colabkit.runs.panel_source import RunWatch
from colabkit.runs.position import Position
from colabkit.runs.save_words import bar_words, complaint_of, parting_words
from colabkit.runs.waiting import Pace
from colabkit.runtime import detect_platform, session_clock
from colabkit.storage import RemountOutcome, RemountResult


class Display:
    """Shows a run's progress: a panel in a notebook, else a bar, or nothing at all.

    Args:
        history: What the run reports.
        shown: False is silent.
        monitor: Name of the value that says which epoch is the best.
        pace: What tells how fast the session trains.
    """

    def __init__(
        self,
        history: History,
        *,
        shown: bool,
        monitor: str | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._history = history
        self._monitor, self._session_pace = monitor, pace or Pace()
        self._shown = shown
        self._speaker: Speaker = Printed() if shown else Silent()
        self._bar: TrainingBar | None = None
        self._panel: TrainingPanel | None = None
        self._watch: RunWatch | None = None
        self._output = CellOutput()
        self._said: tuple[str, ...] = ()
        self._status: SaveStatus | None = None
        self._epochs: int | None = None
        self._complaint = ""
        self._clock = session_clock(detect_platform())
        self._forecast = Forecast(self._clock)
        self._total: int | None = None
        self._steps: int | None = None
        self._extra = 0

    def say(self, sentence: str) -> None:
        if self._panel is not None:
            self._panel.note(sentence)
        else:
            self._speaker.say(sentence)

    def open(self, position: Position, folder: RunFolder, *, epochs: int | None) -> None:
        """Shows the panel or the bar."""
        training_began()
        self._epochs = epochs
        self._forecast.begin(position.step)
        if not self._shown or not redraws():
            self._bar = TrainingBar(
                total_steps=None,
                epochs=epochs,
                initial_step=position.step,
                saved=self._bar_words,
                progress=self._shown,
            )
            return
        self._watch = RunWatch(
            self._history,
            folder.mount,
            is_staged=bool(folder.staging_location),
            monitor=self._monitor,
            pace=self._session_pace,
        )
        goes_on = self._output.is_of_this_cell()
        self._panel = TrainingPanel(
            folder.location,
            self._watch.sources(),
            epochs=epochs,
            initial_step=position.step,
            notes=self._said if goes_on else (),
            canvas=self._output,
        )
        if len(phases := self._history.phases) > 1 and not goes_on:
            newest = phases[-1]
            self.say(f"In {newest.name}, since epoch {newest.epoch + 1}, step {newest.step:,}.")

    def length(self, steps: int | None, *, epoch: int, begun: int, most: int | None = None) -> None:
        """Says how long an epoch is, and with it the run.

        Args:
            steps: Batches of the epoch under way, None where nobody knows.
            epoch: Epochs done before it.
            begun: Steps done before it.
            most: Steps of the run at most.
        """
        if not self._epochs:
            return
        self._steps, self._extra = steps, begun - epoch * (steps or 0)
        total = steps and min(self._extra + steps * self._epochs, most or sys.maxsize)
        self._set_total(total)

    def _set_total(self, total: int | None) -> None:
        self._total, view = total, self._panel or self._bar
        if view is not None:
            view.set_length(total_steps=total, steps_per_epoch=self._steps, extra_steps=self._extra)

    def update(
        self, position: Position, values: Mapping[str, float], status: SaveStatus | None
    ) -> None:
        """Shows where the run stands."""
        self._status = status
        training_goes_on()
        self._complain(status)
        if words := self._forecast.words(position.step, self._total):
            self.say(words)
        if self._watch is not None:
            self._watch.follow(status)
        view = self._panel or self._bar
        if view is not None:
            view.update(
                position.step,
                max(0, position.epoch - (0 if position.is_mid_epoch else 1)),
                lambda: {name: value_words(value) for name, value in values.items()},
            )

    def validating(self, batches: int, total: int | None) -> None:
        """Shows that a validation goes on, so many batches done."""
        if self._panel is not None:
            of = f" of {total:,}" if total else ""
            self._panel.busy_with(f"validating, batch {batches:,}{of}")

    def picture(self, images: Pixels, caption: str) -> None:
        """Shows images [N, H, W, C] where there is a panel."""
        if self._panel is not None:
            self._panel.show(images, caption)

    def close(
        self, position: Position, values: Mapping[str, float], status: SaveStatus | None
    ) -> None:
        """Leaves the panel or the bar standing as the run stands now."""
        if self._epochs and position.epoch >= self._epochs:
            self._set_total(position.step)  # a loop may leave each of its epochs early
        self.update(position, values, status or self._status)
        if status is not None and (words := parting_words(status)):
            self.say(words)
        panel, self._panel = self._panel, None
        bar, self._bar = self._bar, None
        watch, self._watch = self._watch, None
        if bar is not None:
            bar.close()
        try:
            if panel is not None:
                self._said = panel.notes
                panel.close()
        finally:
            if watch is not None:
                watch.close()
            training_ended()

    def show_remount(self, result: RemountResult) -> None:
        """Says what became of a mount that was lost or old."""
        if result.outcome is RemountOutcome.REMOUNTED:
            self.say("Drive was lost and is mounted again; what waits here is being copied there.")
        elif result.outcome is RemountOutcome.RENEWED:
            self.say("Drive was mounted anew, as asked for after some hours.")
        elif result.outcome is RemountOutcome.KEPT:
            self.say(
                "Drive is to be mounted anew and has not uploaded everything yet"
                f" ({result.error.message if result.error else ''}) It stays as it is; the next"
                f" try is in {duration_words(result.next_try_s)}."
            )
        elif result.outcome is RemountOutcome.REFUSED:
            self.say(
                f"Drive could not be mounted again ({result.error}) Training goes on, and"
                " checkpoints are kept on this machine; the next try is in"
                f" {duration_words(result.next_try_s)}."
            )

    def interrupted(self) -> None:
        """Answers the first Ctrl-C."""
        self.say("Finishing this step and saving; interrupt again to stop at once without.")

    def phase_begins(
        self, title: str, position: Position, *, source: str, changes: Sequence[str]
    ) -> None:
        """Says that a phase begins, with what, and what is otherwise than in the one before."""
        what = f"; changed: {'; '.join(changes)}" if changes else ""
        self.say(
            f"{title[:1].upper()}{title[1:]} begins at epoch {position.epoch + 1},"
            f" step {position.step:,}, with {source}{what}."
        )

    def resumed(
        self,
        loaded: LoadedCheckpoint,
        position: Position,
        *,
        phase: str = "",
        is_finished: bool = False,
    ) -> None:
        """Says where the run goes on, or where it had come to its end."""
        age_s = (datetime.datetime.now(datetime.UTC) - loaded.info.saved_at).total_seconds()
        where = (
            f"Restored as it ended, after epoch {position.epoch}"
            if is_finished
            else f"Resumed at epoch {position.epoch + 1}"
        )
        self.say(
            f"{where}, step {position.step:,}{f' of {phase}' if phase else ''}"
            f" (saved {duration_words(age_s)} ago)."
        )

    def base_is_noted(self, nbytes: int) -> None:
        """Says how much of the model is not written."""
        if nbytes:
            self.say(
                f"{bytes_words(nbytes)} of frozen base weights are not saved, only noted by their"
                " hash: load the same base model where this goes on (save_base=True saves them)."
            )

    def _complain(self, status: SaveStatus | None) -> None:
        complaint = complaint_of(status) if status is not None else ""
        if complaint and complaint != self._complaint:
            self.say(f"{complaint} Training goes on.")
        self._complaint = complaint

    def _bar_words(self) -> str:
        words, left_s = bar_words(self._status), self._clock.left_s
        left = "" if left_s is None else f"machine about {duration_words(left_s)} more"
        return ", ".join(filter(None, (words, left)))
