"""Services that draw a run's curves elsewhere: each imported when asked for, and all alike."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from colabkit.errors import ArgumentError, MissingPackageError

# What the values of steps and of epochs are called, after TensorBoard's.
PREFIXES = ("step/", "epoch/")
# What MLflow takes in one request.
_METRICS_MAX = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run of a service.

    Attributes:
        run_id: What a later session finds it by.
        url: Where a person sees it, "" where that is not known.
    """

    run_id: str
    url: str = ""


class LoggerService(Protocol):
    """Keeps one run of a service; all is called on one thread at a time, never the training's."""

    title: str

    def open(self, run_id: str, name: str) -> OpenedRun:
        """Goes on with the run of this id, or begins one, which may have an id of its own."""

    def end(self) -> int | None:
        """Returns the step after the newest that the service holds; None where it cannot tell."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Takes the values of a step; steps grow."""

    def flush(self) -> None:
        """Sends what it has taken."""

    def close(self) -> None:
        """Ends the session of the run, which another may go on with."""


class OwnLogger:
    """An object of the user's with ``log(values, step=...)``, such as a run made by hand.

    Args:
        logger: The object; it is the user's to open and to close.
    """

    def __init__(self, logger: Any) -> None:
        self.title = type(logger).__name__
        self._log = logger.log

    def open(self, run_id: str, name: str) -> OpenedRun:
        del name
        return OpenedRun(run_id)

    def end(self) -> int | None:
        return None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._log(dict(values), step=step)

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Wandb:
    """A run of Weights & Biases; project, entity and mode as its environment variables say.

    Source:
        docs.wandb.ai, "Resume a run": with ``resume="allow"`` and its id, a run goes on from its
        newest step, and what comes with a smaller one is dropped. Offline, each session is a
        folder of its own, and ``wandb sync --append`` joins those whose steps do not overlap.
    """

    title = "wandb"

    def __init__(self, package: Any) -> None:
        self._wandb = package
        self._run: Any = None

    def open(self, run_id: str, name: str) -> OpenedRun:
        self.close()
        wandb = self._wandb
        if wandb.run is not None:
            message = "a run of your own is open: pass logger=wandb.run, or wandb.finish() it first"
            raise RuntimeError(message)
        if os.environ.get("WANDB_MODE", "online") in {"online", "run"} and not _knows_who(wandb):
            message = 'nobody is logged in here: wandb.login() first, or set WANDB_MODE="offline"'
            raise RuntimeError(message)
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(id=run_id, name=name, resume="allow", settings=settings)
        return OpenedRun(run_id, "" if self._run.offline else self._run.url or "")

    def end(self) -> int | None:
        if self._run.offline:
            return None
        return int(self._run.step) if self._run.resumed else 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def flush(self) -> None: ...

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


def _knows_who(wandb: Any) -> bool:
    """Whether W&B has a key, asked so that nobody is kept waiting at a prompt."""
    if "prompt" in inspect.signature(wandb.login).parameters:
        return bool(wandb.login(prompt=False, verify=False))
    return bool(wandb.api.api_key)


class Mlflow:
    """A run of MLflow, at the tracking URI and in the experiment that its variables name.

    Source:
        mlflow.org, "log_batch": at most 1,000 metrics a request, and values are never replaced:
        the same step logged again is there twice.
    """

    title = "mlflow"

    def __init__(self, package: Any) -> None:
        self._mlflow = package
        self._client: Any = None
        self._id = ""
        self._waiting: list[Any] = []

    def open(self, run_id: str, name: str) -> OpenedRun:
        self._waiting.clear()
        self._client = self._mlflow.MlflowClient()
        self._id = run_id if self._is_there(run_id) else self._begun(name)
        self._client.update_run(self._id, status="RUNNING")
        return OpenedRun(self._id)

    def _is_there(self, run_id: str) -> bool:
        try:
            found = self._client.get_run(run_id)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(found.info.lifecycle_stage == "active")

    def _begun(self, name: str) -> str:
        # The one call that knows the experiment; nothing of the user's becomes the active run.
        with self._mlflow.start_run(run_name=name, nested=True) as run:
            return str(run.info.run_id)

    def end(self) -> int | None:
        names = self._client.get_run(self._id).data.metrics
        history = self._client.get_metric_history
        told = [each.step for n in names if n.startswith(PREFIXES) for each in history(self._id, n)]
        return max(told, default=-1) + 1

    def log(self, values: Mapping[str, float], step: int) -> None:
        if len(self._waiting) + len(values) > _METRICS_MAX:
            self.flush()
        metric, now_ms = self._mlflow.entities.Metric, int(time.time() * 1000)
        self._waiting += [metric(name, value, now_ms, step) for name, value in values.items()]

    def flush(self) -> None:
        if self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting)
            self._waiting = []

    def close(self) -> None:
        if self._client is not None and self._id:
            self._client.set_terminated(self._id, status="FINISHED")


class Trackio:
    """A run of Trackio, on this machine or in the Space that TRACKIO_SPACE_ID names."""

    title = "trackio"

    def __init__(self, package: Any) -> None:
        self._trackio = package
        self._run: Any = None

    def open(self, run_id: str, name: str) -> OpenedRun:
        self.close()
        project = os.environ.get("TRACKIO_PROJECT", "colabkit")
        self._run = self._trackio.init(
            project=project, name=f"{name}-{run_id[:6]}", resume="allow", embed=False
        )
        return OpenedRun(run_id)

    def end(self) -> int | None:
        # It says so nowhere else; what it was sent last may have gone with the machine.
        return getattr(self._run, "_next_step", None)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def flush(self) -> None: ...

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


_KINDS: dict[str, Callable[[Any], LoggerService]] = {
    "mlflow": Mlflow,
    "trackio": Trackio,
    "wandb": Wandb,
}
TENSORBOARD = "tensorboard"
_HINT = 'Pass "wandb", "mlflow", "trackio", "tensorboard", or an object with log(values, step=...).'


def service_for(logger: Any) -> LoggerService:
    """Returns the service that a name or an object stands for.

    Raises:
        ArgumentError: It is none.
        MissingPackageError: Its package is not installed.
    """
    if isinstance(logger, str):
        if logger.lower() not in _KINDS:
            raise ArgumentError.of("logger", logger, _HINT)
        return _KINDS[logger.lower()](_package(logger.lower()))
    if isinstance(logger, type) or not callable(getattr(logger, "log", None)):
        raise ArgumentError.of("logger", logger, _HINT)
    return OwnLogger(logger)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        message = f"logger is {name!r}, and the package {name} is not installed."
        raise MissingPackageError(message, package=name, hint=f"pip install {name}") from error
