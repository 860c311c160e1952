"""History: what a run reported, by epoch and by step, over all its sessions."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import html
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colabkit.errors import ArgumentError, StorageError
from colabkit.notebook import (
    CHARTS_CSS,
    charts_html,
    charts_of,
    html_table,
    plot_history,
    themed,
)
from colabkit.runs.history_series import StepSeries
from colabkit.runs.monitor import better_mode
from colabkit.runs.verdict import ResumeVerdict
from colabkit.storage import write_whole

_PLACE = ("epoch", "step", "seconds")  # the names that checks.py keeps free
_ROWS_SHOWN = 20


@dataclasses.dataclass(frozen=True, slots=True)
class ResumeRecord:
    """One time that the run went on from a checkpoint.

    Attributes:
        step: Steps done at the checkpoint.
        epoch: Epochs done at the checkpoint.
        when: The moment of the resume, UTC.
        grade: "exact" or "approximate"; "" before the first batch is looked at.
    """

    step: int
    epoch: int
    when: datetime.datetime
    grade: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class PhaseRecord:
    """One phase of a run: what a call of its own has trained.

    Attributes:
        name: The user's name for it, or "phase 2".
        step: Steps done before it.
        epoch: Epochs done before it.
    """

    name: str
    step: int
    epoch: int


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class History:
    """The values of a run by epoch and by step; resumes leave neither gaps nor doubles.

    Attributes:
        resumes: A ``ResumeRecord`` for each time the run went on from a checkpoint.
        params: "verbose", "epochs" and "steps" of an epoch, as Keras has it, after ``fit``.
        phases: A ``PhaseRecord`` for each phase, in their order.

    Args:
        now: Gives the time of day, UTC.

    Example:
        >>> history = History()
        >>> history.append_step(0, {"loss": 0.5})
        >>> history.append_epoch(epoch=0, step=1, seconds=2.0, values={"loss": 0.5})
        >>> history.history
        {'loss': [0.5]}
    """

    def __init__(self, *, now: Callable[[], datetime.datetime] = _utc_now) -> None:
        self.resumes: list[ResumeRecord] = []
        self.params: dict[str, Any] = {}
        self.phases: list[PhaseRecord] = []
        self._now = now
        self._verdict: ResumeVerdict | None = None
        self._series = StepSeries()
        self._rows: list[dict[str, float]] = []
        self._seconds: list[float] = []

    # What a user reads.

    @property
    def epochs(self) -> list[dict[str, float]]:
        """A row per epoch: "epoch" (from 0), "step" (steps done), "seconds", and its values."""
        return [
            {"epoch": row["epoch"], "step": row["step"], "seconds": seconds, **row}
            for row, seconds in zip(self._rows, self._seconds, strict=True)
        ]

    def newest_epochs(self, count: int) -> list[dict[str, float]]:
        """Returns the newest few rows of ``epochs``, without a copy of those before."""
        pairs = zip(self._rows[-count:], self._seconds[-count:], strict=True)
        return [
            {"epoch": row["epoch"], "step": row["step"], "seconds": seconds, **row}
            for row, seconds in pairs
        ]

    @property
    def epoch(self) -> list[int]:
        """The number of each epoch, from 0."""
        return [int(row["epoch"]) for row in self._rows]

    @property
    def steps(self) -> dict[str, npt.NDArray[np.float64]]:
        """The values of each step: by name, [steps] float64, NaN where none was logged."""
        return self._series.arrays()

    def steps_since(self, first: int) -> dict[str, npt.NDArray[np.float64]]:
        """Returns ``steps`` from step ``first`` on, without a copy of those before."""
        return self._series.since(first)

    @property
    def history(self) -> dict[str, list[float]]:
        """The values of each epoch: by name, a list over epochs, NaN where there is none."""
        return {name: [row.get(name, math.nan) for row in self._rows] for name in self._names()}

    @property
    def verdict(self) -> ResumeVerdict | None:
        """How exactly the run resumes; None before the first batch is looked at."""
        return self._verdict

    @verdict.setter
    def verdict(self, verdict: ResumeVerdict) -> None:
        self._verdict = verdict
        if self.resumes and not self.resumes[-1].grade:
            self.resumes[-1] = dataclasses.replace(self.resumes[-1], grade=verdict.grade.value)

    def best(self, monitor: str = "val_loss", *, mode: str = "auto") -> dict[str, float] | None:
        """Returns the row of the best epoch, the first one when several are equal.

        Args:
            monitor: Name of the value that decides.
            mode: "min", "max", or "auto" by the name.

        Returns:
            The row, or None before the first epoch or when no epoch has a number there.

        Raises:
            ArgumentError: No epoch reports ``monitor``, or ``mode`` is unknown.

        Example:
            >>> history.best("val_accuracy")["epoch"]  # doctest: +SKIP
        """
        if mode not in {"auto", "min", "max"}:
            raise ArgumentError.of("mode", mode, 'Pass "min", "max" or "auto".')
        if self._rows and monitor not in self._names():
            message = f"No epoch reports {monitor!r}; they report {', '.join(self._names())}."
            raise ArgumentError(message, argument="monitor", hint="Pass one of these names.")
        rows = [row for row in self.epochs if not math.isnan(row.get(monitor, math.nan))]
        if not rows:
            return None
        choose = max if (better_mode(monitor) if mode == "auto" else mode) == "max" else min
        return choose(rows, key=lambda row: row[monitor])

    def plot(self) -> Any:
        """Draws the values by epoch, with a dotted line where the run was resumed.

        Returns:
            A matplotlib ``Figure``, or an SVG drawing where matplotlib is not installed.
        """
        return plot_history(self.history, resumed_at=self._resumed_at())

    def numbers(self) -> dict[str, Any]:
        """Returns what is the same in every exact run: "epochs" and "steps", without times."""
        return {"epochs": [dict(row) for row in self._rows], "steps": self.steps}

    def csv_text(self) -> str:
        """Returns the rows of ``epochs`` as CSV, every digit kept."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [*_PLACE, *self._names()], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.epochs)
        return text.getvalue()

    def to_csv(self, path: str | Path) -> None:
        """Writes a row per epoch to a CSV file; the file is whole at every instant.

        Raises:
            StorageError: The file cannot be written.
        """
        path = Path(path)
        try:
            write_whole(path, self.csv_text().encode())
        except OSError as error:
            message = f"The history could not be written to {path}: {error}."
            hint = "Look whether the folder exists and has room."
            raise StorageError(message, path=path, operation="write", hint=hint) from error

    def __getitem__(self, name: str) -> list[float]:
        """Returns the values of one name, one for each epoch: ``history["loss"]``.

        Raises:
            ArgumentError: No epoch reports it.
        """
        if name in self:
            return self.history[name]
        known = ", ".join(self._names()) or "nothing yet"
        message = f"No epoch reports {name!r}; they report {known}."
        raise ArgumentError(message, argument="name", hint="Take one of these names.")

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    # Its length counts epochs, and its names are no epochs.
    __iter__ = None

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        facts = [f"{len(self._rows)} epochs", f"{self._series.end} steps"]
        facts += [f"{name}={value:.4g}" for name, value in self.newest_epoch_values().items()]
        if len(self.phases) > 1:
            facts.append(f"{len(self.phases)} phases")
        if self.resumes:
            facts.append(f"resumed {len(self.resumes)}×")
        return f"<History: {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        rows = [{**row, "epoch": row["epoch"] + 1} for row in self.epochs[-_ROWS_SHOWN:]]
        title = repr(self).strip("<>")
        charts = charts_html(charts_of(self.history, resumed_at=self._resumed_at()))
        count = len(self._rows)
        caption = [f"The newest {len(rows)} of {count} epochs."] if len(rows) < count else []
        if len(self.phases) > 1:
            begun = (f"{each.name} from epoch {each.epoch + 1}" for each in self.phases)
            caption.insert(0, f"Phases: {', '.join(begun)}.")
        return themed(
            f'<div class="ck-title">{html.escape(title)}</div>{charts}'
            f'<div class="ck-muted">{html.escape(" ".join(caption))}</div>'
            f"{html_table(rows, columns=[*_PLACE, *self._names()])}",
            rules=CHARTS_CSS,
        )

    # What the loop writes.

    def append_step(self, step: int, values: Mapping[str, float]) -> None:
        """Notes values of one step; ``step`` is the number of steps done before it."""
        self._series.append(step, values)

    def append_epoch(
        self, *, epoch: int, step: int, seconds: float, values: Mapping[str, float]
    ) -> None:
        """Notes an epoch's values; the same epoch noted again takes the place of the old row.

        Args:
            epoch: Epochs done before this one.
            step: Steps done in all.
            seconds: How long the epoch took.
            values: Loss, metrics and learning rate by name.

        Raises:
            ArgumentError: A value is named like one of the row's own columns.
        """
        for name in _PLACE:
            if name in values:
                message = f"A value is named {name!r}, as a column of the history already is."
                raise ArgumentError(message, argument=name, hint="Log it under another name.")
        while self._rows and self._rows[-1]["epoch"] >= epoch:
            self._rows.pop()
            self._seconds.pop()
        floats = {name: float(value) for name, value in values.items()}
        self._rows.append({"epoch": epoch, "step": step, **floats})
        self._seconds.append(float(seconds))

    def mark_resume(self, *, step: int, epoch: int) -> None:
        """Notes that the run went on from a checkpoint; its grade follows with the verdict."""
        self.resumes.append(ResumeRecord(step=step, epoch=epoch, when=self._now()))

    def newest_bounds(self) -> tuple[int, int]:
        """Returns the steps done before the newest epoch and after it, 0 before the first."""
        before, after = [0, 0, *(int(row["step"]) for row in self._rows)][-2:]
        return before, after

    def newest_epoch_values(self) -> dict[str, float]:
        """Returns the values of the newest epoch, empty before the first."""
        row = self._rows[-1] if self._rows else {}
        return {name: value for name, value in row.items() if name not in _PLACE}

    def state_dict(self) -> dict[str, Any]:
        """Returns the history as plain values and arrays, what depends on the clock apart."""
        resumes = [
            {"step": r.step, "epoch": r.epoch, "when": r.when.isoformat(), "grade": r.grade}
            for r in self.resumes
        ]
        return {
            "epochs": [dict(row) for row in self._rows],
            "steps": self._series.state_dict(),
            "clock": {"seconds": list(self._seconds), "resumes": resumes},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave; what came later is forgotten."""
        self._series.load_state_dict(state["steps"])
        self._rows = [dict(row) for row in state["epochs"]]
        self._seconds = list(state["clock"]["seconds"])
        self.resumes = [
            ResumeRecord(
                step=resume["step"],
                epoch=resume["epoch"],
                when=datetime.datetime.fromisoformat(resume["when"]),
                grade=resume["grade"],
            )
            for resume in state["clock"]["resumes"]
        ]

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self._rows for name in row if name not in _PLACE))

    def _resumed_at(self) -> list[float]:
        steps = [0.0, *(row["step"] for row in self._rows)]
        epochs = [0.0, *(row["epoch"] + 1 for row in self._rows)]
        return [float(np.interp(resume.step, steps, epochs)) for resume in self.resumes]
