"""Lives of a short run: trainings in child processes, left alone or killed at a step."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from colabkit.errors import ArgumentError, ColabKitError
from colabkit.fitting.fit_call import fit
from colabkit.frameworks.detect import KERAS, framework_of

REPORT = "error.txt"


class KillAt:
    """Ends the process without a word at one step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        del logs
        # Each save is waited for, so that the kill is followed by a resume, not a new start.
        run.flush()
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What is trained.

    Attributes:
        model: The model, or a function that returns it or a dict of the arguments of ``fit``.
        data: The data, unless that function makes it.
        arguments: Other arguments of ``fit``.
        seed: Of the run, and of what the function makes.
    """

    model: Any
    data: Any
    arguments: Mapping[str, Any]
    seed: int

    def train(self, folder: Path, kill_at: int | None) -> None:
        """Trains, and dies at a step where one is given."""
        given = {"data": self.data, **self.arguments, **self._made()}
        model, data = given.pop("model"), given.pop("data")
        callbacks = [*given.pop("callbacks", ()), *([KillAt(kill_at)] if kill_at else [])]
        fixed: dict[str, Any] = {"seed": self.seed, "progress": False, "callbacks": callbacks}
        if framework_of([model]) is not KERAS:
            fixed["device"] = "cpu"
        if kill_at:
            fixed["save_every"] = 1
        fit(model, data, folder, **{**given, **fixed})

    def _made(self) -> dict[str, Any]:
        if not is_function(self.model):
            return {"model": self.model}
        seed_all(self.seed)
        made = self.model()
        return dict(made) if isinstance(made, Mapping) else {"model": made}


class Lives(Protocol):
    """Child processes that train."""

    def live(self, folder: Path, kill_at: int | None = None) -> None:
        """Trains in one, which dies at a step where one is given.

        Raises:
            ArgumentError: The training fails by itself.
        """
        ...

    def close(self) -> None:
        """Leaves no process behind."""
        ...


class ForkedLives:
    """Children of this process, which share its objects.

    Args:
        trial: What they train.
        scratch: A folder for what they report.
    """

    def __init__(self, trial: Trial, scratch: Path) -> None:
        self._trial = trial
        self._scratch = scratch

    def live(self, folder: Path, kill_at: int | None = None) -> None:
        train = functools.partial(self._trial.train, folder, kill_at)
        status = forked(train, self._scratch)
        check_ended(status, self._scratch, is_killed=kill_at is not None)

    def close(self) -> None:
        """Every child was waited for."""


def is_function(value: Any) -> bool:
    """Whether a value is code that makes something, and no model."""
    return inspect.isroutine(value) or isinstance(value, functools.partial)


def forked(work: Callable[[], None], scratch: Path) -> int:
    """Runs in a forked child; returns how it ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _work_and_exit(work, scratch / REPORT)
    _, status = os.waitpid(child, 0)
    return status


def check_ended(
    status: int, scratch: Path, *, is_killed: bool = False, hint: str = "Make fit run first."
) -> None:
    """Raises ArgumentError for an error; a death by SIGKILL may be what was wanted."""
    was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not status or (was_killed and is_killed):
        return
    if was_killed:
        message = "The run was killed, and not by verify_resume: its memory may have run out."
        raise ArgumentError(message, argument="data", hint="Take a smaller model or less data.")
    report = scratch / REPORT
    said = report.read_text() if report.exists() else f"exit status {status}"
    message = f"The run fails by itself, without any kill: {said.strip()}"
    raise ArgumentError(message, argument="data", hint=hint)


def _work_and_exit(work: Callable[[], None], report: Path) -> None:
    if (torch := sys.modules.get("torch")) is not None:
        # A forked child has none of its parent's worker threads.
        torch.set_num_threads(1)
    code = 1
    try:
        work()
        code = 0
    except ColabKitError as error:
        report.write_text(str(error))
    except BaseException:
        report.write_text(traceback.format_exc(limit=-3))
        raise
    finally:
        os._exit(code)


def seed_all(seed: int) -> None:
    """Has every life make the same: weights that nobody seeded, say."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # users draw from the global stream
    if (keras := sys.modules.get("keras")) is not None:
        keras.utils.set_random_seed(seed & 0xFFFFFFFF)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
