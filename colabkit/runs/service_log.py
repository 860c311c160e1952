"""Tells a service of a run's values: each step once, over any number of sessions."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from colabkit.checkpoint import RunFolder, SaveStatus
from colabkit.runs.event_log import committed_step
from colabkit.runs.history import History
from colabkit.runs.logger_services import LoggerService

_logger = logging.getLogger(__name__)
_EVERY_S, _PATIENCE_S = 30.0, 60.0
# More would hold the interpreter, which trains: of faster loops an even choice is told.
_STEPS_A_SECOND, _STEPS_AT_LEAST = 30, 2000

Floats = npt.NDArray[np.float64]


class Place(NamedTuple):
    """How far a service has been told of a run: all before this step, and of so many epochs."""

    step: int
    epochs: int


_START = Place(0, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What the run folder notes of a service.

    Attributes:
        run_id: What the service calls the run, "" before anything was asked of it.
        sent: How far it has been told.
        claimed: How far it may have been told.
    """

    run_id: str = ""
    sent: Place = _START
    claimed: Place = _START

    @classmethod
    def of_bytes(cls, data: bytes) -> Told:
        """Reads what ``to_bytes`` wrote; what is damaged is as if nothing had been told."""
        try:
            state = json.loads(data)
            sent, claimed = (Place(*map(int, state[name])) for name in ("sent", "claimed"))
            return cls(str(state["run_id"]), sent, claimed)
        except (KeyError, TypeError, ValueError):
            return cls()

    def to_bytes(self) -> bytes:
        """Returns it as JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()

    def goes_on_from(self, end: int | None, ends_of_epochs: Sequence[int]) -> Place:
        """Returns from where on the service is to be told.

        Args:
            end: The step after the newest that it is known to hold, None where nobody knows.
            ends_of_epochs: The steps done at the end of each epoch.
        """
        if end is None:
            # What may have been sent is not sent again.
            return self.claimed
        if end == self.sent.step:
            return self.sent
        return Place(end, sum(done <= end for done in ends_of_epochs))


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What a service is to be told in one go.

    Attributes:
        first: The first step of ``steps``.
        end: Up to where it is to be told.
        steps: By name, a value for each step from the first on, NaN where there is none.
        rows: All epochs of the history.
    """

    first: int
    end: Place
    steps: Mapping[str, Floats]
    rows: list[dict[str, float]]

    def records(self, since: Place, most: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Yields values by step, in growing order; those of an epoch are with its last step.

        Args:
            since: How far has been told.
            most: Steps at most, evenly chosen, besides those that end an epoch.
        """
        end = max(self.end.step, since.step + 1)
        at: dict[int, dict[str, float]] = {}
        for row in self.rows[since.epochs : self.end.epochs]:
            step = min(max(int(row["step"]) - 1, since.step), end - 1)
            named = {f"epoch/{n}": v for n, v in row.items() if n not in {"epoch", "step"}}
            at.setdefault(step, {}).update(named)
        stride = max(1, -(-(self.end.step - since.step) // most))
        for step in sorted({*range(since.step, self.end.step, stride), *at}):
            place = step - self.first
            values = {f"step/{n}": float(v[place]) for n, v in self.steps.items() if place < len(v)}
            told = {n: v for n, v in (values | at.get(step, {})).items() if not math.isnan(v)}
            if told:
                yield step, told


class ServiceLog:
    """Tells of values up to the newest checkpoint, so that a resume tells of none again.

    Before anything is sent, the run folder notes how far it may go: where the machine goes while
    it is sent, the service is asked what it holds, and where it cannot say, what may have been
    sent is not sent again.

    Args:
        service: Keeps the run.
        history: What the run reports.
        folder: The run folder.
        number: Tells several services of one kind apart, from 1.
        say: Tells the user a sentence; called on the training's thread.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        service: LoggerService,
        history: History,
        folder: RunFolder,
        *,
        number: int = 1,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._history, self._folder = service, history, folder
        self._number, self._say, self._clock = number, say, clock
        self._next_s = self._sent_s = clock()
        self._told: Told | None = None
        self._is_met = self._has_complained = False
        # The step after the newest that this session's last, failed try has handed over.
        self._reached: int | None = None
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._url = ""

    def open(self, step: int) -> None:
        """Begins to look; the service is met by the thread that sends it the first values."""
        del step
        self._next_s = self._sent_s = self._clock()

    def follow(self, status: SaveStatus | None) -> None:
        """Tells of what the checkpoints hold, every half minute."""
        self._report()
        now_s = self._clock()
        if status is None or now_s < self._next_s or self._is_busy():
            return
        step = committed_step(status)
        # The newest step waits for its epoch, which may end with it.
        if step is None or step - 1 <= (self._told or Told()).sent.step:
            return
        self._next_s = now_s + _EVERY_S
        epochs = sum(row["step"] < step for row in self._history.epochs)
        self._tell(Place(step - 1, epochs))

    def finish(self, step: int) -> None:
        """Tells of all that was reported, and waits for it."""
        self._join()
        place = Place(step, len(self._history))
        if not self._is_busy() and (self._told is None or self._told.sent != place):
            self._tell(place)
            self._join()
        self._report()

    def close(self) -> None:
        """Ends the service's session."""
        self._join()
        if self._is_met and not self._is_busy():
            self._start(self._service.close)
            self._join()
            self._told, self._is_met, self._reached = None, False, None
        self._report()

    def _tell(self, place: Place) -> None:
        """Starts to tell of all up to a place; reads the history, which only this thread may."""
        now_s = self._clock()
        most = max(_STEPS_AT_LEAST, int(_STEPS_A_SECOND * (now_s - self._sent_s)))
        self._sent_s = now_s
        first = self._told.sent.step if self._told is not None else 0
        part = Part(first, place, self._history.steps_since(first), self._history.epochs)
        self._start(lambda: self._send(part, most))

    def _send(self, part: Part, most: int) -> None:
        told = self._told or self._noted()
        if told.sent == told.claimed == part.end:
            self._told = told
            return
        if self._told is None:
            told = self._meet(told, [int(row["step"]) for row in part.rows])
        # A run that went on from an older checkpoint tells of nothing a second time.
        if told.sent.step > part.end.step or told.sent == part.end:
            self._told = told
            return
        self._told, self._reached = None, told.sent.step
        self._note(dataclasses.replace(told, claimed=part.end))
        for step, values in part.records(told.sent, most):
            self._service.log(values, step)
            self._reached = step + 1
        self._service.flush()
        self._told = Told(told.run_id, part.end, part.end)
        self._note(self._told)

    def _meet(self, noted: Told, ends_of_epochs: Sequence[int]) -> Told:
        """Opens the service's run, and finds out how far it has been told."""
        self._is_met = True
        if not noted.run_id:
            # Known before the service knows it: a kill in between leaves no second run.
            noted = Told(uuid.uuid4().hex)
            self._note(noted)
        opened = self._service.open(noted.run_id, PurePath(self._folder.location).name)
        if opened.run_id != noted.run_id:
            noted = Told(opened.run_id)
            self._note(noted)
        self._url = opened.url
        end = self._service.end()
        place = noted.goes_on_from(self._reached if end is None else end, ends_of_epochs)
        return Told(opened.run_id, place, place)

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # whatever a service raises, training goes on
                _logger.info("%s was not told.", self._service.title, exc_info=True)
                self._failure = error

        self._thread = threading.Thread(target=guarded, name="colabkit-logger", daemon=True)
        self._thread.start()

    def _report(self) -> None:
        """Says what the thread has met with: where the curves are, and once what is wrong."""
        url, self._url = self._url, ""
        if url:
            self._say(f"{self._service.title} draws the curves at {url}.")
        failure, self._failure = self._failure, None
        if failure is not None and not self._has_complained:
            self._has_complained = True
            self._say(
                f"{self._service.title} was not told of this run's values"
                f" ({type(failure).__name__}: {failure}). Training goes on; it is tried again now"
                " and then, and when the cell is run again."
            )

    def _noted(self) -> Told:
        data = self._folder.read(self._where())
        return Told() if data is None else Told.of_bytes(data)

    def _note(self, told: Told) -> None:
        self._folder.publish(self._where(), told.to_bytes())

    def _where(self) -> str:
        attempt, name = self._folder.attempt, self._service.title
        number = "" if self._number == 1 else f"-{self._number}"
        return f"loggers/{name}{number}{'' if attempt == 1 else f'-attempt-{attempt}'}.json"

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
