"""Services that draw a run's curves: one run over all sessions, and each step told once."""

from __future__ import annotations

import math
import sys
import types
from typing import Any

import pytest

from colabkit.checkpoint import RunFolder, SaveState, SaveStatus
from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.runs.history import History
from colabkit.runs.logger_services import OpenedRun, OwnLogger, service_for
from colabkit.runs.loggers import events_for
from colabkit.runs.service_log import Place, ServiceLog, Told

STEPS, A_THIRD = 30, 10


class Killed(BaseException):
    """The machine goes."""


class Memory:
    """What a service's server holds: by run, (step, values) in the order of arrival."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.calls_left = math.inf

    def take(self, run: str, step: int, values: dict[str, float]) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise Killed
        self.runs[run].append((step, values))

    def steps(self) -> list[int]:
        (told,) = self.runs.values()
        return [step for step, _ in told]


def wandb(memory: Memory) -> Any:
    """Returns what of W&B is called, which refuses whatever it does not know."""

    class Run:
        offline = False

        def __init__(self, id: str) -> None:  # noqa: A002 - W&B's name
            self.id = id
            self.resumed = id in memory.runs
            told = memory.runs.setdefault(id, [])
            self.step = told[-1][0] + 1 if told else 0
            self.url = f"https://wandb.example/{id}"

        def log(self, data: dict[str, float], step: int) -> None:
            assert step >= self.step, "W&B drops what comes with a smaller step"
            memory.take(self.id, step, data)
            self.step = step

        def finish(self) -> None:
            package.run = None

    class Settings:
        def __init__(self, *, console: str, silent: bool) -> None:
            assert (console, silent) == ("off", True)

    def init(*, id: str, name: str, resume: str, settings: Settings) -> Run:  # noqa: A002
        assert (name, resume) == ("cats", "allow")
        assert isinstance(settings, Settings)
        package.run = Run(id)
        return package.run

    def login(*, prompt: bool, verify: bool) -> bool:
        assert (prompt, verify) == (False, False)
        return package.has_key

    package = types.SimpleNamespace(
        Settings=Settings, init=init, login=login, run=None, has_key=True
    )
    return package


class MlflowException(Exception):  # noqa: N818 - MLflow's name
    error_code = "RESOURCE_DOES_NOT_EXIST"


class Metric:
    def __init__(self, key: str, value: float, timestamp: int, step: int) -> None:
        assert timestamp > 10**12
        self.key, self.value, self.step = key, value, step


class MlflowStore:
    """What MLflow's client calls, which refuses whatever it does not know."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def get_run(self, run_id: str) -> Any:
        if run_id not in self._memory.runs:
            raise MlflowException
        names = {name: 0.0 for _, values in self._memory.runs[run_id] for name in values}
        info = types.SimpleNamespace(run_id=run_id, lifecycle_stage="active")
        return types.SimpleNamespace(info=info, data=types.SimpleNamespace(metrics=names))

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        told = self._memory.runs[run_id]
        return [Metric(key, v[key], 10**13, step) for step, v in told if key in v]

    def log_batch(self, run_id: str, *, metrics: list[Metric]) -> None:
        assert 0 < len(metrics) <= 1000
        by_step: dict[int, dict[str, float]] = {}
        for each in metrics:
            by_step.setdefault(each.step, {})[each.key] = each.value
        for step, values in by_step.items():
            self._memory.take(run_id, step, values)

    def update_run(self, run_id: str, *, status: str) -> None:
        assert (run_id in self._memory.runs, status) == (True, "RUNNING")

    def set_terminated(self, run_id: str, *, status: str) -> None:
        assert (run_id in self._memory.runs, status) == (True, "FINISHED")


def mlflow(memory: Memory) -> Any:
    """Returns what of MLflow is called, which refuses whatever it does not know."""

    class ActiveRun:
        def __init__(self, run_id: str) -> None:
            self.info = types.SimpleNamespace(run_id=run_id)

        def __enter__(self) -> ActiveRun:
            return self

        def __exit__(self, *error: object) -> None: ...

    def start_run(*, run_name: str, nested: bool) -> ActiveRun:
        assert (run_name, nested) == ("cats", True)
        made = f"made-{len(memory.runs)}"
        memory.runs[made] = []
        return ActiveRun(made)

    return types.SimpleNamespace(
        MlflowClient=lambda: MlflowStore(memory),
        entities=types.SimpleNamespace(Metric=Metric),
        exceptions=types.SimpleNamespace(MlflowException=MlflowException),
        start_run=start_run,
    )


def trackio(memory: Memory) -> Any:
    """Returns what of Trackio is called, which refuses whatever it does not know."""

    class Run:
        def __init__(self, name: str) -> None:
            self.name = name
            told = memory.runs.setdefault(name, [])
            self._next_step = told[-1][0] + 1 if told else 0

        def log(self, metrics: dict[str, float], step: int) -> None:
            memory.take(self.name, step, metrics)

        def finish(self) -> None: ...

    def init(*, project: str, name: str, resume: str, embed: bool) -> Run:
        assert (project, resume, embed) == ("colabkit", "allow", False)
        assert name.startswith("cats-")
        return Run(name)

    return types.SimpleNamespace(init=init)


class Own:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        memory.runs.setdefault("own", [])

    def log(self, values: dict[str, float], step: int) -> None:
        self._memory.take("own", step, values)


KINDS = {"wandb": wandb, "mlflow": mlflow, "trackio": trackio}


@pytest.fixture(params=["wandb", "mlflow", "trackio", "own"])
def made(request, monkeypatch):
    """Returns a memory, and what makes the service of a new session that tells it."""
    memory, name = Memory(), request.param
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def begin() -> Any:
        if name == "own":
            return OwnLogger(Own(memory))
        monkeypatch.setitem(sys.modules, name, KINDS[name](memory))
        return service_for(name)

    return memory, begin


def grown(end: int) -> History:
    history = History()
    for step in range(end):
        history.append_step(step, {"loss": step / 2, "rare": 1.0 if step % 3 == 0 else math.nan})
        if (step + 1) % A_THIRD == 0:
            values = {"val_loss": float(step)}
            history.append_epoch(epoch=step // A_THIRD, step=step + 1, seconds=1.0, values=values)
    return history


def log_of(tmp_path: Any, service: Any, history: History, said: list[str] | None = None) -> Any:
    clock = iter(range(0, 10**9, 31))
    folder = RunFolder(tmp_path / "cats")
    say = [].append if said is None else said.append
    return ServiceLog(service, history, folder, say=say, clock=lambda: float(next(clock)))


def expected() -> list[tuple[int, dict[str, float]]]:
    told = []
    for step in range(STEPS):
        values = {"step/loss": step / 2} | ({"step/rare": 1.0} if step % 3 == 0 else {})
        if (step + 1) % A_THIRD == 0:
            values |= {"epoch/seconds": 1.0, "epoch/val_loss": float(step)}
        told.append((step, values))
    return told


def follow(log: Any, step: int) -> None:
    log.follow(SaveStatus(SaveState.COMMITTED, step=step))
    log._join()


def test_sessions_are_one_run_that_tells_each_step_once(made, tmp_path):
    memory, begin = made
    for stands_at, committed in [(12, 9), (17, 14), (25, 20), (30, 30)]:
        log = log_of(tmp_path, begin(), grown(stands_at))
        log.open(stands_at)
        follow(log, committed)
    log.finish(STEPS)
    log.close()
    (told,) = memory.runs.values()
    assert told == expected()
    again = log_of(tmp_path, begin(), grown(STEPS))
    again.finish(STEPS)
    again.close()
    assert memory.steps() == list(range(STEPS))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("calls", [0, 1, 4, 11])
def test_a_kill_while_it_is_told_doubles_nothing(made, calls, tmp_path):
    memory, begin = made
    log = log_of(tmp_path, begin(), grown(8))
    follow(log, 8)
    memory.calls_left = calls
    killed = log_of(tmp_path, begin(), grown(20))
    follow(killed, 20)
    memory.calls_left = math.inf
    log = log_of(tmp_path, begin(), grown(STEPS))
    log.finish(STEPS)
    steps = memory.steps()
    assert steps == sorted(set(steps))
    assert set(range(20, STEPS)) <= set(steps)
    # Who can say what arrived is told the rest as well.
    assert steps == list(range(STEPS)) or "own" in memory.runs


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_kill_while_it_is_opened_leaves_one_run(tmp_path):
    ids: list[str] = []

    class Opening(OwnLogger):
        def open(self, run_id: str, name: str) -> OpenedRun:
            ids.append(run_id)
            if len(ids) == 1:
                raise Killed
            return super().open(run_id, name)

    memory = Memory()
    for _ in range(2):
        log_of(tmp_path, Opening(Own(memory)), grown(STEPS)).finish(STEPS)
    assert ids[0] == ids[1] != ""
    assert memory.steps() == list(range(STEPS))


def test_a_resume_from_an_older_checkpoint_tells_nothing_again(made, tmp_path):
    memory, begin = made
    log_of(tmp_path, begin(), grown(20)).finish(20)
    back = log_of(tmp_path, begin(), grown(10))
    follow(back, 10)
    log_of(tmp_path, begin(), grown(STEPS)).finish(STEPS)
    assert memory.steps() == list(range(STEPS))


def test_a_run_started_anew_is_a_run_of_its_own(made, tmp_path):
    memory, begin = made
    log_of(tmp_path, begin(), grown(5)).finish(5)
    log = log_of(tmp_path, begin(), grown(3))
    log._folder._attempt = 2
    log.finish(3)
    told = [[step for step, _ in run] for run in memory.runs.values()]
    assert told in ([[0, 1, 2, 3, 4], [0, 1, 2]], [[0, 1, 2, 3, 4, 0, 1, 2]])


def test_what_a_service_raises_is_said_once_and_told_later(tmp_path):
    memory, said = Memory(), []
    own, is_down = Own(memory), [True]
    reached = own.log

    def log(values: dict[str, float], step: int) -> None:
        if is_down[0] and step == 4:
            message = "no network"
            raise OSError(message)
        reached(values, step)

    own.log = log
    told = log_of(tmp_path, OwnLogger(own), grown(STEPS), said)
    for step in (10, 20, 30):
        follow(told, step)
    is_down[0] = False
    told.finish(STEPS)
    told.close()
    assert memory.steps() == list(range(STEPS))
    assert len(said) == 1
    assert said[0].startswith("Own was not told of this run's values (OSError: no network).")


def test_nobody_is_asked_for_a_key_while_training_runs(tmp_path, monkeypatch):
    memory, said = Memory(), []
    package = wandb(memory)
    package.has_key = False
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", package)
    log = log_of(tmp_path, service_for("wandb"), grown(STEPS), said)
    log.finish(STEPS)
    assert "wandb.login() first" in said[0]
    package.has_key = True
    log = log_of(tmp_path, service_for("wandb"), grown(STEPS), said)
    log.finish(STEPS)
    assert memory.steps() == list(range(STEPS))
    assert said[1] == f"wandb draws the curves at https://wandb.example/{next(iter(memory.runs))}."


def test_of_a_fast_loop_an_even_choice_is_told_and_every_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("colabkit.runs.service_log._STEPS_AT_LEAST", 10)
    monkeypatch.setattr("colabkit.runs.service_log._STEPS_A_SECOND", 0)
    memory = Memory()
    log_of(tmp_path, OwnLogger(Own(memory)), grown(STEPS)).finish(STEPS)
    assert memory.steps() == sorted({*range(0, STEPS, 3), 9, 19, 29})


def test_two_of_a_kind_are_told_apart(tmp_path):
    memories = Memory(), Memory()
    folder = RunFolder(tmp_path)
    loggers = [Own(memory) for memory in memories]
    events = events_for(False, loggers, grown(3), folder, say=print)
    events.finish(3)
    events.close()
    assert [memory.steps() for memory in memories] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("logger", ["weights", 5, Own, object(), ["wandb ", None]])
def test_what_is_no_logger_is_named(logger, tmp_path):
    with pytest.raises(ArgumentError, match="logger is"):
        events_for(False, logger, History(), RunFolder(tmp_path), say=print)


def test_a_package_that_is_missing_is_named_before_the_first_step(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackageError, match="wandb is not installed"):
        service_for("wandb")


def test_what_is_noted_is_read_back_and_damage_is_nothing():
    told = Told("abc", Place(3, 1), Place(5, 2))
    assert Told.of_bytes(told.to_bytes()) == told
    assert Told.of_bytes(told.to_bytes()[:-4]) == Told()
