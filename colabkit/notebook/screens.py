"""What a progress bar is drawn on: tqdm's text or widget, plain lines in a log, or nothing."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from colabkit.notebook.environment import OutputKind, output_kind_of

LOG_PERIOD_S = 10.0
_STEPS_FORMAT = "{desc} |{bar:10}| {percentage:3.0f}%, {remaining} left, {rate_fmt}{postfix}"
_TRANSFER_FORMAT = "{desc} |{bar:10}|"
_OPEN_END_FORMAT = "{desc}, {n_fmt} steps in {elapsed}, {rate_fmt}{postfix}"


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where something stands.

    Attributes:
        done: How much is done.
        total: How much there is, None when unknown.
        words: What stands in front of the bar.
        sentence: What a log says of it.
        postfix: What stands behind the bar.
    """

    done: int
    total: int | None
    words: str
    sentence: str
    postfix: str = ""


class Screen(Protocol):
    """Draws where something stands."""

    def draw(self, standing: Standing) -> None:
        """Shows the newest state."""

    def close(self) -> None:
        """Lets go of everything."""


class TqdmScreen:
    """A tqdm bar, on a terminal or in a notebook.

    Args:
        stream: Where it is drawn.
        bar_type: The kind of bar that is shown there.
        formats: tqdm's formats of a bar whose total is known, and of one whose is not.
        options: More of tqdm's own arguments.
    """

    def __init__(
        self, stream: TextIO, bar_type: type[Any], formats: tuple[str, str], **options: Any
    ) -> None:
        self._formats = formats
        self._bar = bar_type(
            file=stream, mininterval=0, miniters=1, dynamic_ncols=True,
            bar_format=formats[0 if options.get("total") else 1], **options,
        )  # fmt: skip

    def draw(self, standing: Standing) -> None:
        """Redraws the bar."""
        if standing.total != self._bar.total:
            self._set_total(standing.total)
        self._bar.set_description_str(standing.words, refresh=False)
        self._bar.set_postfix_str(standing.postfix, refresh=False)
        if standing.done > self._bar.n:
            self._bar.update(standing.done - self._bar.n)
        else:
            self._bar.n = standing.done
            self._bar.refresh()

    def _set_total(self, total: int | None) -> None:
        self._bar.total = total
        self._bar.bar_format = self._formats[0 if total else 1]
        if hasattr(self._bar, "container") and total:
            progress = self._bar.container.children[1]
            progress.max, progress.value, progress.bar_style = total, self._bar.n, ""
            progress.layout.width = None

    def close(self) -> None:
        """Leaves the bar standing, or takes it away."""
        self._bar.close()


class LineScreen:
    """One sentence now and then, for output that cannot redraw.

    Args:
        stream: Where the sentences go.
        clock: Seconds that only grow.
        says_end: Whether the last state is written at the end, if no sentence said it yet.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float], *, says_end: bool) -> None:
        self._stream, self._clock, self._says_end = stream, clock, says_end
        self._next_s = clock() + LOG_PERIOD_S
        self._unwritten = ""

    def draw(self, standing: Standing) -> None:
        """Writes a sentence when the last one is 10 s old."""
        now_s = self._clock()
        self._unwritten = standing.sentence
        if now_s >= self._next_s:
            self._next_s = now_s + LOG_PERIOD_S
            self._write()

    def close(self) -> None:
        """Writes the last state where that is wanted."""
        if self._says_end:
            self._write()

    def _write(self) -> None:
        if self._unwritten:
            self._stream.write(self._unwritten + "\n")
            self._stream.flush()
            self._unwritten = ""


class NoScreen:
    """Draws nothing: for ``progress=False``, and after the output has gone away."""

    def draw(self, standing: Standing) -> None: ...

    def close(self) -> None: ...


def steps_screen(
    stream: TextIO, *, total_steps: int | None, initial_step: int, clock: Callable[[], float]
) -> Screen:
    """Returns what shows the steps of a run in what ``stream`` ends in; its end stays."""
    place = output_kind_of(stream)
    if place is OutputKind.LOG:
        return LineScreen(stream, clock, says_end=True)
    return TqdmScreen(
        stream, bar_type_for(place), (_STEPS_FORMAT, _OPEN_END_FORMAT),
        total=total_steps, initial=initial_step, desc="starting", unit=" step",
    )  # fmt: skip


def transfer_screen(stream: TextIO, clock: Callable[[], float]) -> Screen:
    """Returns what shows a transfer in what ``stream`` ends in, and leaves nothing."""
    place = output_kind_of(stream)
    if place is OutputKind.LOG:
        return LineScreen(stream, clock, says_end=False)
    return TqdmScreen(
        stream, bar_type_for(place), (_TRANSFER_FORMAT, _TRANSFER_FORMAT), total=None, leave=False
    )


def bar_type_for(place: OutputKind) -> type[Any]:
    """Returns the kind of tqdm bar that a place shows."""
    if place is not OutputKind.WIDGETS:
        return _quiet(importlib.import_module("tqdm.std").tqdm)
    return _quiet(importlib.import_module("tqdm.notebook").tqdm_notebook)


@functools.cache
def _quiet(bar_type: type[Any]) -> type[Any]:
    """Returns a kind of bar without its monitor thread and without a lock between processes."""
    quiet: type[Any] = type("QuietBar", (bar_type,), {"monitor_interval": 0})
    quiet.set_lock(threading.RLock())
    return quiet
