"""Publishes a run's values for TensorBoard, in files that are whole and never change."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from colabkit.checkpoint import RunFolder, SaveState, SaveStatus
from colabkit.errors import StorageError
from colabkit.runs.event_files import Floats, events, header
from colabkit.runs.history import History

_logger = logging.getLogger(__name__)
_LEAST_S, _MOST_S, _SHARE = 30.0, 300.0, 0.05
_PATIENCE_S = 60.0
_NAME = re.compile(r"events\.out\.tfevents\.(\d{12})-(\d{12})\.(\d{8})-(\d{8})\.colabkit")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Part:
    """One file: values of some steps and of some epochs.

    Attributes:
        first: The first step in it.
        end: The step after its last.
        first_epoch: Number of the first epoch in it, from 0.
        end_epoch: The epoch after its last.
    """

    first: int
    end: int
    first_epoch: int
    end_epoch: int

    @property
    def name(self) -> str:
        """The name of its file; names sort as steps do."""
        epochs = f"{self.first_epoch:08d}-{self.end_epoch:08d}"
        return f"events.out.tfevents.{self.first:012d}-{self.end:012d}.{epochs}.colabkit"

    def goes_on_from(self, before: Part) -> bool:
        """Whether it begins where another ended."""
        return (self.first, self.first_epoch) == (before.end, before.end_epoch)


_NOTHING = Part(0, 0, 0, 0)


def chain_of(names: Iterable[str], *, step: int, epochs: int) -> tuple[Part, list[str]]:
    """Sorts out the files of a run that stands at a step.

    Args:
        names: The files that are there; those of others are left alone.
        step: Steps done.
        epochs: Epochs done.

    Returns:
        The last of the parts that follow one upon the other without a gap, and the names of
        those to remove: they tell of steps that were lost, or tell them twice.
    """
    found = sorted(Part(*map(int, match.groups())) for n in names if (match := _NAME.fullmatch(n)))
    last, doomed = _NOTHING, []
    for part in found:
        if part.goes_on_from(last) and part.end <= step and part.end_epoch <= epochs:
            last = part
        else:
            doomed.append(part.name)
    return last, doomed


class Events(Protocol):
    """Takes a run's values to where others draw them, or does not."""

    def open(self, step: int) -> None:
        """Looks at what is there already."""

    def follow(self, status: SaveStatus | None) -> None:
        """Publishes what the checkpoints hold, now and then."""

    def finish(self, step: int) -> None:
        """Publishes all that was reported, and waits for it."""

    def close(self) -> None:
        """Ends the session."""


class EventsOfAll:
    """Publishes nothing, or by each of several.

    Args:
        members: Who publishes.
    """

    def __init__(self, members: Sequence[Events]) -> None:
        self.members = tuple(members)

    def open(self, step: int) -> None:
        for each in self.members:
            each.open(step)

    def follow(self, status: SaveStatus | None) -> None:
        for each in self.members:
            each.follow(status)

    def finish(self, step: int) -> None:
        for each in self.members:
            each.finish(step)

    def close(self) -> None:
        for each in self.members:
            each.close()


class EventLog:
    """Publishes values up to the newest checkpoint, so that a resume finds none from beyond.

    Every file is written whole, on a thread of its own, and never again: a file that is
    appended to would never be uploaded by Drive.

    Args:
        history: What the run reports.
        folder: The run folder.
        clock: Seconds that only grow.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        history: History,
        folder: RunFolder,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._folder = folder
        self._clock, self._now = clock, now
        self._last: Part | None = None
        self._thread: threading.Thread | None = None
        self._opened_s = self._next_s = clock()
        self._logged_at = now()

    def open(self, step: int) -> None:
        """Looks at what is there already, and removes what tells of steps that were lost."""
        self._join()
        self._opened_s = self._next_s = self._clock()
        self._logged_at = self._now()
        self._last = None
        where = self._where()
        try:
            names = self._folder.list_files(where)
            last, doomed = chain_of(names, step=step, epochs=len(self._history))
            self._folder.remove_files([f"{where}/{name}" for name in doomed])
        except StorageError:
            _logger.info("TensorBoard's files could not be looked at.", exc_info=True)
            return
        self._last = last

    def follow(self, status: SaveStatus | None) -> None:
        """Publishes what the checkpoints hold, every half minute to five minutes."""
        now_s = self._clock()
        if status is None or now_s < self._next_s or self._is_busy():
            return
        step = committed_step(status)
        if self._last is None or step is None or step <= self._last.end:
            return
        self._next_s = now_s + min(_MOST_S, max(_LEAST_S, _SHARE * (now_s - self._opened_s)))
        # An epoch that ends at the checkpoint's step may not be part of the checkpoint yet.
        epochs = sum(row["step"] < step for row in self._history.epochs)
        self._publish(self._last, step, epochs)

    def finish(self, step: int) -> None:
        """Publishes all that was reported, and waits for it."""
        self._join()
        if self._last is None:
            self.open(step)
        all_of_it = step, len(self._history)
        if not self._is_busy() and self._last is not None and self._logged_end() != all_of_it:
            self._publish(self._last, *all_of_it)
            self._join()
        if self._logged_end() != all_of_it:
            # Said once, at the end; while a run goes on it is tried again and again.
            _logger.warning("TensorBoard's files in %s are not complete.", self._folder.location)

    def close(self) -> None:
        """All is in files already."""

    def _publish(self, last: Part, step: int, epochs: int) -> None:
        part = Part(last.end, step, last.end_epoch, max(epochs, last.end_epoch))
        steps = {
            f"step/{name}": values[: part.end - part.first]
            for name, values in self._history.steps_since(part.first).items()
        }
        rows = self._history.epochs[part.first_epoch : part.end_epoch]
        self._thread = threading.Thread(
            target=self._write, args=(part, steps, rows), name="colabkit-events", daemon=True
        )
        self._thread.start()

    def _write(self, part: Part, steps: Mapping[str, Floats], rows: list[dict[str, float]]) -> None:
        began, ended = self._logged_at, self._now()
        data = file_bytes(part, steps, rows, began=began, ended=ended)
        try:
            self._folder.publish(f"{self._where()}/{part.name}", data)
        except StorageError:
            _logger.info("TensorBoard's files could not be written; tried again.", exc_info=True)
            return
        self._last, self._logged_at = part, ended

    def _where(self) -> str:
        attempt = self._folder.attempt
        return "tensorboard" if attempt == 1 else f"tensorboard-attempt-{attempt}"

    def _logged_end(self) -> tuple[int, int] | None:
        return None if self._last is None else (self._last.end, self._last.end_epoch)

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)


def file_bytes(
    part: Part,
    steps: Mapping[str, Floats],
    rows: list[dict[str, float]],
    *,
    began: float,
    ended: float,
) -> bytes:
    """Returns the file of a part.

    Args:
        part: Which steps and epochs.
        steps: By tag, a value for each step from the first on, NaN where there is none.
        rows: The epochs.
        began: When the first step was, in seconds since the epoch.
        ended: When the last was; the steps between are told as evenly spread.
    """
    parts = [header(began)]
    if steps:
        count = len(next(iter(steps.values())))
        times = np.linspace(began, ended, count)
        parts.append(events(times, part.first + np.arange(count), steps))
    if rows:
        names = dict.fromkeys(n for row in rows for n in row if n not in {"epoch", "step"})
        values = {
            f"epoch/{name}": np.array([row.get(name, np.nan) for row in rows]) for name in names
        }
        done = np.array([row["step"] for row in rows], np.int64)
        span = max(1, part.end - part.first)
        times = began + (ended - began) * np.clip((done - part.first) / span, 0, 1)
        parts.append(events(times, done, values))
    return b"".join(parts)


def committed_step(status: SaveStatus) -> int | None:
    """Returns the step of the newest checkpoint that is on the volume, None before the first."""
    if status.upload is not None:
        return status.upload.committed_step
    return None if status.state is SaveState.NONE else status.step
