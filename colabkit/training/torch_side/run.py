"""A run whose loop body belongs to ``fit``, which has more to say than a loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colabkit.training.loop import Run
from colabkit.training.verdict import ResumeVerdict


class TorchRun(Run):
    """The same run, with a voice."""

    reads_one_source = True

    def say(self, sentence: str) -> None:
        """Says one sentence to the person at the keyboard."""
        self._display.say(sentence)

    def log_outcome(self, values: Mapping[str, Any], *, samples: int) -> None:
        """Notes what a step gave: detached, and held by nobody else."""
        self._note_values(values, samples)

    def note(self, verdict: ResumeVerdict) -> None:
        """Takes up more of what decides how exactly a resume goes on."""
        self._verdict = self._verdict.adding(reasons=verdict.reasons, notices=verdict.notices)
        if self.has_trained and self.verdict != self.history.verdict:
            self.history.verdict = self.verdict
            self.say(str(self.verdict))
