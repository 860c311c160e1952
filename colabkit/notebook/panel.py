"""TrainingPanel: what a notebook shows of a run, drawn in place."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from colabkit.notebook.cards import Row
from colabkit.notebook.charts import Chart
from colabkit.notebook.image_grid import Pixels
from colabkit.notebook.page_notice import WORTH_A_NOTICE_S, notice_script
from colabkit.notebook.panel_bounds import BoundedPanel
from colabkit.notebook.panel_html import EpochRows, PanelState, Phase, Stage
from colabkit.notebook.progress import RunProgress

REFRESH_PERIOD_S = 0.5
_COST_SHARE = 200.0
_RATE_DRAWINGS = 40
_NOTES_KEPT = 20


class Canvas(Protocol):
    """A place in a notebook that can be drawn anew."""

    def begin(self, bundle: Mapping[str, str]) -> None:
        """Draws for the first time."""

    def update(self, bundle: Mapping[str, str]) -> None:
        """Draws anew, in the same place."""


class CellOutput:
    """One place in the output of the cell that runs, however often it is drawn.

    A cell that trains again and again gets a few places; then the last one is drawn over.
    """

    PLACES_MAX = 8
    _cell_of_places: ClassVar[object] = None
    _places: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self._handle: Any = None
        self._cell: object = None

    def is_of_this_cell(self) -> bool:
        """Whether the cell that runs has been drawn on already."""
        return self._handle is not None and self._cell == _running_cell()

    def update(self, bundle: Mapping[str, str]) -> None:
        """Puts HTML and text in the place of what was there."""
        if self._handle is not None:
            self._handle.update(dict(bundle), raw=True)

    def begin(self, bundle: Mapping[str, str]) -> None:
        """Makes the place in the cell that runs, unless it has one already."""
        if self.is_of_this_cell():
            self.update(bundle)
            return
        self._cell = _running_cell()
        if self._cell != CellOutput._cell_of_places:
            CellOutput._cell_of_places = self._cell
            CellOutput._places.clear()
        if len(CellOutput._places) < self.PLACES_MAX:
            show = importlib.import_module("IPython.display").display
            self._handle = show(dict(bundle), raw=True, display_id=True)
            CellOutput._places.append(self._handle)
        else:
            self._handle = CellOutput._places[-1]
            self.update(bundle)


def _running_cell() -> object:
    return getattr(importlib.import_module("IPython").get_ipython(), "execution_count", None)


@dataclasses.dataclass(frozen=True, slots=True)
class PanelSources:
    """Where a panel gets what it shows; asked only when it is drawn.

    Attributes:
        stages: Where the checkpoints are, the safest place last.
        charts: The curves so far.
        rows: The machine.
        epochs: The newest epochs.
        machine_left_s: How long the machine is likely to last.
        samples: Samples trained in this session, None where nobody counts them.
        what_may_happen: What would take along what is not safe.
    """

    stages: Callable[[], Sequence[Stage]] = tuple
    charts: Callable[[], Sequence[Chart]] = tuple
    rows: Callable[[], Sequence[Row]] = tuple
    epochs: Callable[[], EpochRows] = EpochRows
    machine_left_s: Callable[[], float | None] = lambda: None
    samples: Callable[[], float | None] = lambda: None
    what_may_happen: str = "the machine went"


def _local_now() -> datetime.datetime:
    return datetime.datetime.now().astimezone()


class TrainingPanel:
    """Progress, curves, saves and machine of a run, in one place of a cell's output.

    It is drawn at most twice a second, and more rarely where that would take more than half
    a percent of the time.

    Args:
        title: Which run it is: the run folder.
        sources: Where it gets what it shows.
        epochs: Epochs of the run, or None when unknown.
        initial_step: The step this session begins at.
        notes: Sentences to show from the start.
        canvas: What it is drawn on; the running cell's output by default.
        clock: Seconds that only grow.
        now: The time of day.

    Example:
        >>> panel = TrainingPanel("runs/cats", PanelSources(), epochs=20)  # doctest: +SKIP
        >>> panel.update(1, 0, lambda: {"loss": "0.43"})  # doctest: +SKIP
    """

    def __init__(
        self,
        title: str,
        sources: PanelSources,
        *,
        epochs: int | None = None,
        initial_step: int = 0,
        notes: Iterable[str] = (),
        canvas: Canvas | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = _local_now,
    ) -> None:
        self._title = title
        self._sources = sources
        self._canvas = canvas if canvas is not None else CellOutput()
        self._put = self._canvas.begin
        self._clock, self._now = clock, now
        self._progress = RunProgress(step=initial_step, epochs=epochs)
        self._first_step, self._doing = initial_step, ""
        self._drawing = BoundedPanel()
        self._values: Callable[[], Mapping[str, str]] = dict
        self._notes: collections.deque[str] = collections.deque(notes, maxlen=_NOTES_KEPT)
        self._began_s = self._next_s = clock()
        self._pace: collections.deque[tuple[float, int]] = collections.deque(maxlen=_RATE_DRAWINGS)
        self._pace.append((self._began_s, initial_step))

    def due(self, now_s: float) -> bool:
        """Whether an update at ``now_s`` on the panel's clock would be drawn."""
        return now_s >= self._next_s

    def update(self, step: int, epoch: int, postfix: Callable[[], Mapping[str, str]]) -> None:
        """Notes where the run stands, and draws it when that is due.

        Args:
            step: Steps done in all.
            epoch: Epochs done before this one.
            postfix: Gives the loss and metrics as words; called only when drawn.
        """
        self._progress = dataclasses.replace(self._progress, step=step, epoch=epoch)
        self._values, self._doing = postfix, ""
        if self._clock() >= self._next_s:
            self._draw(Phase.TRAINING)

    def busy_with(self, doing: str) -> None:
        """Shows what a run does besides training, and draws it when that is due."""
        self._doing = doing
        if self._clock() >= self._next_s:
            self._draw(Phase.TRAINING)

    def set_length(
        self, *, total_steps: int | None, steps_per_epoch: int | None, extra_steps: int = 0
    ) -> None:
        """Says how long the run and an epoch are, as far as that is known; see RunProgress."""
        self._progress = dataclasses.replace(
            self._progress,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            extra_steps=extra_steps,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The newest sentences, in order."""
        return tuple(self._notes)

    def note(self, sentence: str) -> None:
        """Shows a sentence from the next drawing on; the newest few stay."""
        self._notes.append(sentence)

    def show(self, images: Pixels, caption: str) -> None:
        """Shows images [N, H, W, C] from the next drawing on, as many as have room."""
        self._drawing.show(images, caption)

    def close(self) -> None:
        """Draws the newest state, to stand for good; does nothing the second time."""
        if self._next_s == float("inf"):
            return
        self._draw(_last_phase(self._progress))
        self._next_s = float("inf")

    def _draw(self, phase: Phase) -> None:
        began_s = self._clock()
        self._pace.append((began_s, self._progress.step))
        elapsed_s, samples = began_s - self._began_s, self._sources.samples()
        state = PanelState(
            title=self._title,
            progress=self._progress,
            phase=phase,
            steps_per_s=self._rate(whole=phase is not Phase.TRAINING),
            overall_steps_per_s=self._rate(whole=True),
            samples_per_s=samples / elapsed_s if samples and elapsed_s > 0 else None,
            doing=self._doing if phase is Phase.TRAINING else "",
            elapsed_s=elapsed_s,
            values=self._values(),
            stages=self._sources.stages(),
            charts=self._sources.charts(),
            epochs=self._sources.epochs(),
            rows=self._sources.rows(),
            machine_left_s=self._sources.machine_left_s(),
            what_may_happen=self._sources.what_may_happen,
            notes=tuple(self._notes),
            drawn_at=(now := self._now()),
        )
        bundle = self._drawing.drawn(state)
        if phase is not Phase.TRAINING and elapsed_s >= WORTH_A_NOTICE_S:
            words = f"{self._title}: {phase.value}"
            bundle["text/html"] += notice_script(words, sent_s=now.timestamp())
        draw, self._put = self._put, self._canvas.update
        draw(bundle)
        now_s = self._clock()
        self._next_s = now_s + max(REFRESH_PERIOD_S, _COST_SHARE * (now_s - began_s))

    def _rate(self, *, whole: bool) -> float:
        """Returns steps per second: lately, or over the whole session."""
        if whole:
            then_s, then = self._began_s, self._first_step
        else:
            then_s, then = self._pace[0]
        now_s, now = self._pace[-1]
        return (now - then) / (now_s - then_s) if now_s > then_s else 0.0


def _last_phase(progress: RunProgress) -> Phase:
    if progress.share is None:
        return Phase.ENDED
    return Phase.FINISHED if progress.share >= 1 else Phase.STOPPED
