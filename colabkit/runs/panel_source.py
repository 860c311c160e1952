"""What a panel shows of a run: its curves, its saves, and the machine it runs on."""

from __future__ import annotations

import math
import time

from colabkit.checkpoint import SaveStatus
from colabkit.notebook import Chart, PanelSources, Row, Stage, ThinnedLine, Tone, duration_words
from colabkit.runs.history import History
from colabkit.runs.save_words import SaveTrail
from colabkit.runtime import UsageReader, detect_platform, session_clock
from colabkit.storage import DriveMount, MountState


class RunCurves:
    """Curves of a history over its steps, brought up to date at little cost.

    Args:
        history: Grows while it is watched.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._taken = 0
        self._lines: dict[str, ThinnedLine] = {}

    def charts(self) -> list[Chart]:
        """Returns a chart for each value, the loss first and each with its validation twin."""
        new = self._history.steps_since(self._taken)
        for name, values in new.items():
            self._lines.setdefault(name, ThinnedLine()).extend(self._taken, values)
        self._taken += max(map(len, new.values()), default=0)
        by_epoch = self._lines_by_epoch()
        lines = {name: line.points() for name, line in self._lines.items()}
        lines |= {name: points for name, points in by_epoch.items() if name not in lines}
        titles = sorted(
            dict.fromkeys(name.removeprefix("val_") for name in lines),
            key=lambda title: (title != "loss", title == "lr"),
        )
        marks = [resume.step for resume in self._history.resumes]
        return [
            Chart(
                title,
                {name: lines[name] for name in (title, f"val_{title}") if name in lines},
                unit="step",
                marks=marks,
            )
            for title in titles
        ]

    def _lines_by_epoch(self) -> dict[str, list[tuple[float, float]]]:
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in self._history.epochs[-ThinnedLine.MOST :]:
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
    """

    def __init__(self, history: History, mount: DriveMount | None) -> None:
        self._mount = mount
        self._trail = SaveTrail()
        self._status: SaveStatus | None = None
        self._curves = RunCurves(history)
        self._clock = session_clock(detect_platform())
        self._usage = UsageReader()

    def sources(self) -> PanelSources:
        """Returns where a panel gets what it shows."""
        return PanelSources(stages=self._stages, charts=self._curves.charts, rows=self._rows)

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
        if self._mount is not None:
            rows.append(_drive_row(self._mount))
        return [*rows, Row("Session", self._clock.describe())]


def _drive_row(mount: DriveMount) -> Row:
    if mount.state is not MountState.MOUNTED:
        lost = "lost; checkpoints are kept on this machine until it is back"
        return Row("Drive", lost, Tone.BAD)
    if mount.mounted_s is None:
        return Row("Drive", "mounted", Tone.GOOD)
    age = duration_words(time.monotonic() - mount.mounted_s)
    return Row("Drive", f"mounted {age} ago at {mount.mountpoint}", Tone.GOOD)
