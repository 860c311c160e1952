"""What a progress bar is drawn on: tqdm's text or widget, plain lines in a log, or nothing."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TextIO

from tqdm.std import tqdm

from colabkit.notebook.environment import Place, place_of
from colabkit.notebook.progress import Progress
from colabkit.notebook.words import duration_words

LOG_PERIOD_S = 10.0
_BAR_FORMAT = "{desc} |{bar:10}| {percentage:3.0f}%, {remaining} left, {rate_fmt}{postfix}"
_OPEN_END_FORMAT = "{desc}, {n_fmt} steps in {elapsed}, {rate_fmt}{postfix}"


class TextBar(tqdm):  # type: ignore[type-arg]
    """A tqdm bar without its monitor thread and without a lock between processes."""

    monitor_interval = 0


TextBar.set_lock(threading.RLock())


class Screen(Protocol):
    """Draws where a run stands."""

    def draw(self, progress: Progress, facts: Sequence[str]) -> None:
        """Shows the newest state, and what else there is to say."""

    def set_total(self, total_steps: int | None) -> None:
        """Says how many steps there are in all, once that is known."""

    def close(self) -> None:
        """Leaves the last state standing and lets go of everything."""


class TqdmScreen:
    """A tqdm bar, on a terminal or in a notebook."""

    def __init__(
        self,
        stream: TextIO,
        *,
        bar_type: type[Any],
        total_steps: int | None,
        initial_step: int,
    ) -> None:
        self._bar = bar_type(
            file=stream,
            total=total_steps,
            initial=initial_step,
            desc="starting",
            unit=" step",
            mininterval=0,
            miniters=1,
            dynamic_ncols=True,
            bar_format=_format_for(total_steps),
        )

    def draw(self, progress: Progress, facts: Sequence[str]) -> None:
        """Redraws the bar."""
        self._bar.set_description_str(progress.words(), refresh=False)
        self._bar.set_postfix_str(" · ".join(facts), refresh=False)
        if progress.step == self._bar.n:
            self._bar.refresh()
        else:
            self._bar.update(progress.step - self._bar.n)

    def set_total(self, total_steps: int | None) -> None:
        """Says how many steps there are in all, once that is known."""
        self._bar.total = total_steps
        self._bar.bar_format = _format_for(total_steps)
        if hasattr(self._bar, "container") and total_steps:
            progress = self._bar.container.children[1]
            progress.max, progress.value, progress.bar_style = total_steps, self._bar.n, ""
            progress.layout.width = None

    def close(self) -> None:
        """Leaves the bar standing."""
        self._bar.close()


class LineScreen:
    """One sentence now and then, for output that cannot redraw.

    Args:
        stream: Where the sentences go.
        total_steps: All steps of the run, or None when unknown.
        initial_step: The step this session began at.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        total_steps: int | None,
        initial_step: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._total_steps = total_steps
        self._initial_step = initial_step
        self._clock = clock
        self._began_s = clock()
        self._next_s = self._began_s + LOG_PERIOD_S
        self._unwritten = ""

    def draw(self, progress: Progress, facts: Sequence[str]) -> None:
        """Writes a sentence when the last one is 10 s old."""
        now_s = self._clock()
        elapsed_s = now_s - self._began_s
        rate = (progress.step - self._initial_step) / elapsed_s if elapsed_s > 0 else 0.0
        total = f" of {self._total_steps:,}" if self._total_steps else ""
        parts = [progress.in_words(), f"step {progress.step:,}{total}", f"{rate:.1f} steps/s"]
        steps_left = (self._total_steps or 0) - progress.step
        if rate and steps_left > 0:
            parts.append(f"{duration_words(steps_left / rate)} left")
        said = f": {', '.join(facts)}".replace(" · ", ", ") if facts else ""
        sentence = f"{', '.join(parts)}{said}."
        self._unwritten = f"{sentence[0].upper()}{sentence[1:]}"
        if now_s >= self._next_s:
            self._next_s = now_s + LOG_PERIOD_S
            self._write()

    def set_total(self, total_steps: int | None) -> None:
        """Says how many steps there are in all, once that is known."""
        self._total_steps = total_steps

    def close(self) -> None:
        """Writes the last state if no line said it yet."""
        self._write()

    def _write(self) -> None:
        if self._unwritten:
            self._stream.write(self._unwritten + "\n")
            self._stream.flush()
            self._unwritten = ""


class NoScreen:
    """Draws nothing: for ``progress=False``, and after the output has gone away."""

    def draw(self, progress: Progress, facts: Sequence[str]) -> None: ...

    def set_total(self, total_steps: int | None) -> None: ...

    def close(self) -> None: ...


def screen_for(
    stream: TextIO, *, total_steps: int | None, initial_step: int, clock: Callable[[], float]
) -> Screen:
    """Returns the screen that fits what ``stream`` ends in."""
    place = place_of(stream)
    if place is Place.LOG:
        return LineScreen(stream, total_steps=total_steps, initial_step=initial_step, clock=clock)
    return TqdmScreen(
        stream, bar_type=bar_type_for(place), total_steps=total_steps, initial_step=initial_step
    )


def bar_type_for(place: Place) -> type[Any]:
    """Returns the kind of tqdm bar that a place shows."""
    if place is not Place.WIDGETS:
        return TextBar
    widget_bar = importlib.import_module("tqdm.notebook").tqdm_notebook
    bar_type: type[Any] = type("WidgetBar", (widget_bar,), {"monitor_interval": 0})
    bar_type.set_lock(threading.RLock())
    return bar_type


def _format_for(total_steps: int | None) -> str:
    return _BAR_FORMAT if total_steps else _OPEN_END_FORMAT
