"""What a panel shows of a run: its curves, its saves, and the machine it runs on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from colabkit.checkpoint import SaveStatus
from colabkit.notebook import (
    Chart,
    EpochRows,
    PanelSources,
    Row,
    Stage,
    ThinnedLine,
    Tone,
    duration_words,
)
from colabkit.runs.history import History
from colabkit.runs.save_words import SaveTrail
from colabkit.runs.waiting import Pace
from colabkit.runtime import UsageReader, detect_platform, session_clock
from colabkit.storage import DriveMount, MountState

_POINTS, _EPOCHS_SHOWN = 64, 5
_LOOK_AFTER_S, _WORTH_A_WORD, _WORTH_A_TIP = 10.0, 0.05, 0.25


class BestEpoch:
    """Finds the best epoch of a history that grows, looking only when it has grown.

    Args:
        history: Grows while it is watched.
        monitor: Name of the value that decides; None is "val_loss", else "loss".
    """

    def __init__(self, history: History, monitor: str | None) -> None:
        self._history, self._asked = history, monitor
        self._known: tuple[int, dict[str, float] | None] = (0, None)
        self.monitor = monitor or "loss"

    def row(self) -> dict[str, float] | None:
        """Returns the row of the best epoch, None where there is none."""
        count = len(self._history)
        if count != self._known[0]:
            if self._asked is None and "val_loss" in self._history:
                self.monitor = "val_loss"
            has_some = self.monitor in self._history
            self._known = count, self._history.best(self.monitor) if has_some else None
        return self._known[1]

    def newest_rows(self) -> EpochRows:
        """Returns the newest few epochs, after the best one where that is older."""
        rows, best = self._history.newest_epochs(_EPOCHS_SHOWN), self.row()
        if best is not None and all(row["epoch"] != best["epoch"] for row in rows):
            rows = [best, *rows[1:]]
        place = next(
            (n for n, row in enumerate(rows) if best and row["epoch"] == best["epoch"]), None
        )
        shown = [_as_shown(row) for row in rows]
        return EpochRows(shown, place if len(self._history) > 1 else None)


def _as_shown(row: Mapping[str, float]) -> dict[str, object]:
    values = {
        name: value for name, value in row.items() if name not in {"epoch", "step", "seconds"}
    }
    return {"epoch": int(row["epoch"]) + 1, **values, "took": duration_words(row["seconds"])}


class RunCurves:
    """Curves of a history over its steps, brought up to date at little cost.

    Args:
        history: Grows while it is watched.
        best: Which epoch is marked.
    """

    def __init__(self, history: History, best: BestEpoch | None = None) -> None:
        self._history = history
        self._best = best or BestEpoch(history, None)
        self._taken = 0
        self._lines: dict[str, ThinnedLine] = {}

    def charts(self) -> list[Chart]:
        """Returns a chart for each value, the loss first and each with its validation twin."""
        new = self._history.steps_since(self._taken)
        for name, values in new.items():
            self._lines.setdefault(name, ThinnedLine(most=_POINTS)).extend(self._taken, values)
        self._taken += max(map(len, new.values()), default=0)
        by_epoch = self._lines_by_epoch()
        lines = {name: line.points() for name, line in self._lines.items()}
        lines |= {name: points for name, points in by_epoch.items() if name not in lines}
        titles = sorted(
            dict.fromkeys(name.removeprefix("val_") for name in lines),
            key=lambda title: (title != "loss", title == "lr"),
        )
        marks = [resume.step for resume in self._history.resumes]
        best, monitor = self._best.row(), self._best.monitor
        return [
            Chart(
                title,
                {name: lines[name] for name in (title, f"val_{title}") if name in lines},
                unit="step",
                marks=marks,
                best=(best["step"], best[monitor])
                if best is not None and title == monitor.removeprefix("val_")
                else None,
            )
            for title in titles
        ]

    def _lines_by_epoch(self) -> dict[str, list[tuple[float, float]]]:
        lines: dict[str, list[tuple[float, float]]] = {}
        rows = self._history.epochs
        # Evenly from all of them, and the newest.
        for row in rows[(len(rows) - 1) % (stride := -(-len(rows) // _POINTS) or 1) :: stride]:
            for name, value in row.items():
                if name not in {"epoch", "step", "seconds"} and math.isfinite(value):
                    lines.setdefault(name, []).append((row["step"], value))
        if len({value for _, value in lines.get("lr", ())}) == 1:
            del lines["lr"]
        return lines


class RunWatch:
    """Gives a panel all that it shows, while a run is under way.

    Args:
        history: What the run reports.
        mount: The mount that the run folder lies on, None elsewhere.
        is_staged: Whether checkpoints wait on this machine's disk on their way there.
        monitor: Name of the value that says which epoch is the best.
        pace: What tells how fast the session trains.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        history: History,
        mount: DriveMount | None,
        *,
        is_staged: bool = False,
        monitor: str | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mount = mount
        self._is_staged = is_staged or mount is not None
        self._best = BestEpoch(history, monitor)
        self._pace = pace or Pace()
        self._samples_before = self._pace.samples() or 0.0
        self._waited_before_s = self._pace.waiting.seconds
        self._now_s, self._began_s = clock, clock()
        self._trail = SaveTrail()
        self._status: SaveStatus | None = None
        self._curves = RunCurves(history, self._best)
        self._clock = session_clock(detect_platform())
        self._usage = UsageReader()

    def sources(self) -> PanelSources:
        """Returns where a panel gets what it shows."""
        return PanelSources(
            stages=self._stages,
            charts=self._curves.charts,
            rows=self._rows,
            epochs=self._best.newest_rows,
            machine_left_s=lambda: self._clock.left_s,
            samples=lambda: (self._pace.samples() or 0.0) - self._samples_before,
            what_may_happen="the machine went" if self._is_staged else "this process ended",
        )

    def follow(self, status: SaveStatus | None) -> None:
        """Takes what the saver says now."""
        self._status = status
        if status is not None:
            self._trail.follow(status)

    def close(self) -> None:
        """Stops looking at the machine."""
        self._usage.close()

    def _stages(self) -> list[Stage]:
        volume = "run folder" if self._mount is None else "Drive"
        return self._trail.stages(self._status, volume=volume)

    def _rows(self) -> list[Row]:
        usage = self._usage.newest
        rows = []
        if usage is not None:
            rows = [Row("GPU", gpu.describe()) for gpu in usage.gpus]
            rows.append(Row("Machine", usage.describe()))
        waited_s = self._pace.waiting.seconds - self._waited_before_s
        if (data := waiting_row(waited_s, self._now_s() - self._began_s)) is not None:
            rows.append(data)
        if self._mount is not None:
            rows.append(_drive_row(self._mount))
        return [*rows, Row("Session", self._clock.describe())]


def waiting_row(waited_s: float, elapsed_s: float) -> Row | None:
    """Returns how much of its time a run waits for its data, None where that is not worth a word.

    Args:
        waited_s: Seconds it has waited.
        elapsed_s: Seconds it has run.
    """
    if elapsed_s < _LOOK_AFTER_S or waited_s < _WORTH_A_WORD * elapsed_s:
        return None
    words = f"{100 * waited_s / elapsed_s:.0f}% of the time is spent waiting for it"
    if waited_s < _WORTH_A_TIP * elapsed_s:
        return Row("Data", words)
    advice = "Let a DataLoader fetch ahead: num_workers=2, persistent_workers=True."
    return Row("Data", words, Tone.NOTE, advice)


def _drive_row(mount: DriveMount) -> Row:
    if mount.state is not MountState.MOUNTED:
        lost = "lost; checkpoints are kept on this machine until it is back"
        return Row("Drive", lost, Tone.BAD)
    if mount.mounted_s is None:
        return Row("Drive", "mounted", Tone.GOOD)
    age = duration_words(time.monotonic() - mount.mounted_s)
    return Row("Drive", f"mounted {age} ago at {mount.mountpoint}", Tone.GOOD)
