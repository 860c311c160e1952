"""TrainingBar: where a run stands, how well it does, and what is already safe."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TextIO

from colabkit.notebook.environment import in_notebook
from colabkit.notebook.progress import RunProgress
from colabkit.notebook.screens import NoScreen, Screen, Standing, steps_screen
from colabkit.notebook.words import duration_words

_logger = logging.getLogger(__name__)

REFRESH_PERIOD_S = 0.5


class TrainingBar:
    """A progress bar over all steps of a run; looks at nothing between two refreshes.

    Args:
        total_steps: All steps of the run, or None when unknown.
        steps_per_epoch: Batches in an epoch, or None when unknown.
        epochs: Epochs of the run, or None when unknown.
        initial_step: The step this session begins at.
        saved: Gives the short word on the newest save, "" for none.
        progress: False shows nothing.
        stream: Where the bar goes; by default standard error, in a notebook standard output.
        clock: Seconds that only grow.

    Example:
        >>> with TrainingBar(total_steps=100, progress=False) as bar:
        ...     bar.update(1, 0, lambda: {"loss": "0.43"})
    """

    def __init__(
        self,
        *,
        total_steps: int | None,
        steps_per_epoch: int | None = None,
        epochs: int | None = None,
        initial_step: int = 0,
        saved: Callable[[], str] | None = None,
        progress: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._total_steps = total_steps
        self._extra_steps = 0
        self._initial_step = initial_step
        self._epochs = epochs
        self._saved = saved
        self._clock = clock
        self._began_s = clock()
        self._newest: tuple[int, int, Callable[[], Mapping[str, str]]] | None = None
        self._screen: Screen = NoScreen()
        self._next_s = clock() if progress else float("inf")
        if progress:
            self._screen = steps_screen(
                stream or (sys.stdout if in_notebook() else sys.stderr),
                total_steps=total_steps,
                initial_step=initial_step,
                clock=clock,
            )

    def due(self, now_s: float) -> bool:
        """Whether an update at ``now_s`` on the bar's clock would be drawn."""
        return now_s >= self._next_s

    def update(self, step: int, epoch: int, postfix: Callable[[], Mapping[str, str]]) -> None:
        """Notes where the run stands, and draws it at most twice a second.

        Args:
            step: Steps done in all.
            epoch: Epochs done before this one.
            postfix: Gives the loss and metrics as words; called only when drawn.
        """
        self._newest = (step, epoch, postfix)
        if self._clock() >= self._next_s:
            self._draw()

    def set_length(
        self, *, total_steps: int | None, steps_per_epoch: int | None, extra_steps: int = 0
    ) -> None:
        """Says how long the run and an epoch are, as far as that is known."""
        self._steps_per_epoch, self._total_steps = steps_per_epoch, total_steps
        self._extra_steps = extra_steps

    def close(self, *, interrupted: bool = False) -> None:
        """Draws the newest state and leaves the bar standing; does nothing the second time.

        Args:
            interrupted: True leaves the bar as last drawn, and asks nobody for values.
        """
        if self._newest is not None and not interrupted:
            self._draw()
        screen, self._screen = self._screen, NoScreen()
        self._next_s, self._newest = float("inf"), None
        try:
            screen.close()
        except (OSError, ValueError):
            _logger.debug("The progress bar's output is closed.", exc_info=True)

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(interrupted=kind is not None)

    def _draw(self) -> None:
        if self._newest is None or isinstance(self._screen, NoScreen):
            return
        step, epoch, postfix = self._newest
        parts = [f"{name} {words}" for name, words in postfix().items()]
        saved = self._saved() if self._saved is not None else ""
        self._next_s = self._clock() + REFRESH_PERIOD_S
        try:
            self._screen.draw(self._standing(step, epoch, [*parts, saved] if saved else parts))
        except (OSError, ValueError):
            # Training outlives the terminal or page that watched it.
            _logger.debug("The progress bar's output is closed.", exc_info=True)
            self._screen, self._next_s = NoScreen(), float("inf")

    def _standing(self, step: int, epoch: int, facts: Sequence[str]) -> Standing:
        progress = RunProgress(
            step=step,
            epoch=epoch,
            epochs=self._epochs,
            steps_per_epoch=self._steps_per_epoch,
            extra_steps=self._extra_steps,
        )
        sentence = self._sentence(progress, facts)
        return Standing(step, self._total_steps, progress.words(), sentence, " · ".join(facts))

    def _sentence(self, progress: RunProgress, facts: Sequence[str]) -> str:
        """Returns what a log says of a run, and what else there is to say."""
        elapsed_s = self._clock() - self._began_s
        rate = (progress.step - self._initial_step) / elapsed_s if elapsed_s > 0 else 0.0
        total = f" of {self._total_steps:,}" if self._total_steps else ""
        parts = [progress.in_words(), f"step {progress.step:,}{total}", f"{rate:.1f} steps/s"]
        steps_left = (self._total_steps or 0) - progress.step
        if rate and steps_left > 0:
            parts.append(f"{duration_words(steps_left / rate)} left")
        said = f": {', '.join(facts)}".replace(" · ", ", ") if facts else ""
        sentence = f"{', '.join(parts)}{said}."
        return f"{sentence[0].upper()}{sentence[1:]}"
