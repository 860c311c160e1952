"""Watched: a training that another library runs, shown as our own, and told when to leave."""

from __future__ import annotations

import importlib.util
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colabkit.notebook import PanelSources, Row, TrainingPanel, redraws, say, value_words
from colabkit.runs.history import History
from colabkit.runs.panel_source import RunCurves
from colabkit.runtime import SessionClock, detect_platform, session_clock

_LOOK_EVERY_S, _SAVE_EVERY_S = 1.0, 60.0
_WANDB_ID, _WANDB_RESUME = "WANDB_RUN_ID", "WANDB_RESUME"
_WANDB_FILE = "wandb-run-id.txt"


class Watched:
    """Follows a trainer from its callbacks; cheap enough to be asked at every step.

    Args:
        folder: Where the trainer writes; what ``keep`` gave is mounted again in passing.
        leave_s: How long before this machine is likely to go the training should end, in seconds.
        session: How long the machine has, an estimate.
        clock: Seconds that only grow.

    Attributes:
        history: The values that were told.
    """

    def __init__(
        self,
        folder: Any,
        *,
        leave_s: float = 600.0,
        session: SessionClock | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.history = History()
        self._folder, self._leave_s, self._clock = folder, leave_s, clock
        self._session = session or session_clock(detect_platform())
        left_s = self._session.left_s
        # A machine older than its kind usually gets may last: what begins there is not ended.
        self._leaves = left_s is not None and left_s > leave_s
        self._is_ending = False
        self._last_step, self._next_save_s = 0, 0.0
        self._next_s = clock()
        self._panel: TrainingPanel | None = None
        self._last_epoch: float = math.inf
        self._run_id = _go_on_in_wandb(Path(os.fspath(folder)))

    def begin(self, *, step: int, total_steps: int | None, epochs: int | None) -> None:
        """Shows a panel in a notebook; elsewhere trainers have a bar of their own."""
        if not redraws():
            return
        sources = PanelSources(charts=RunCurves(self.history).charts, rows=self._rows)
        title = os.fspath(self._folder)
        self._panel = TrainingPanel(title, sources, epochs=epochs, initial_step=step)
        self._last_epoch = max(epochs - 1, 0) if epochs else math.inf
        per_epoch = total_steps // epochs if total_steps and epochs else None
        self._panel.set_length(total_steps=total_steps, steps_per_epoch=per_epoch)

    def due(self) -> bool:
        """Whether a second has passed since it last was: what costs time is asked for then."""
        now_s = self._clock()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + _LOOK_EVERY_S
        if hasattr(self._folder, "remount"):
            self._folder.remount()
        left_s = self._session.left_s
        if self._leaves and not self._is_ending and left_s is not None and left_s <= self._leave_s:
            self._is_ending = True
            say("This machine is likely to go soon: what is trained is saved now.")
        return True

    def wants_save(self) -> bool:
        """Whether the machine is likely to go soon and the last such save is a minute ago."""
        is_due = self._is_ending and self._clock() >= self._next_save_s
        if is_due:
            self._next_save_s = self._clock() + _SAVE_EVERY_S
        return is_due

    @property
    def is_ending(self) -> bool:
        """Whether the machine is likely to go so soon that the training should end."""
        return self._is_ending

    def update(self, step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Takes the newest values.

        Args:
            step: Steps done in all.
            epoch: Epochs done, the one under way in part.
            values: By name; what is no number is left out.
        """
        told = {name: float(value) for name, value in values.items() if _is_number(value)}
        if step > 0 and step > self._last_step:
            self.history.append_step(step - 1, told)
            self._last_step = step
        if self._panel is not None:
            words = {name: value_words(value) for name, value in told.items()}
            # At the end of the last epoch none is under way, and that one is shown.
            self._panel.update(step, int(min(epoch, self._last_epoch)), lambda: words)

    def end(self) -> None:
        """Leaves the panel standing; waits for what is kept where the machine is going."""
        panel, self._panel = self._panel, None
        if panel is not None:
            panel.close()
        if self._run_id and os.environ.get(_WANDB_ID) == self._run_id:
            del os.environ[_WANDB_ID], os.environ[_WANDB_RESUME]
        if self._is_ending and hasattr(self._folder, "flush"):
            self._folder.flush()

    def _rows(self) -> list[Row]:
        return [Row("Session", self._session.describe())]


def _is_number(value: Any) -> bool:
    is_scalar = getattr(value, "ndim", 0) == 0 and hasattr(value, "__float__")
    return is_scalar and not isinstance(value, str | bool)


def _go_on_in_wandb(folder: Path) -> str:
    """Has W&B go on in the run that the folder names; returns its id, "" where that is not ours."""
    if _WANDB_ID in os.environ or importlib.util.find_spec("wandb") is None:
        return ""
    file = folder / _WANDB_FILE
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex[:8])
    run_id = file.read_text().strip()
    os.environ[_WANDB_ID] = run_id
    os.environ.setdefault(_WANDB_RESUME, "allow")
    return run_id
