"""A training that another library runs: its values, its W&B run, and when it should leave."""

from __future__ import annotations

import os
import sys
import types

import pytest

from colabkit.runs import Watched
from colabkit.runtime import SessionClock


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Kept:
    def __init__(self, path) -> None:
        self.path, self.flushed, self.remounts = path, 0, 0

    def __fspath__(self) -> str:
        return str(self.path)

    def flush(self) -> None:
        self.flushed += 1

    def remount(self) -> None:
        self.remounts += 1


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    for name in ("WANDB_RUN_ID", "WANDB_RESUME"):
        # Set first, so that what a test leaves is put back as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "wandb", None)


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)


def watched(folder, clock, *, lasts_s: float | None = 3600.0, leave_s: float = 600.0) -> Watched:
    session = SessionClock(0.0, lasts_s, clock=clock)
    return Watched(folder, leave_s=leave_s, session=session, clock=clock)


def test_it_should_leave_in_time_and_all_is_safe_then(tmp_path, clock, capsys):
    kept = Kept(tmp_path)
    run = watched(kept, clock)
    seen = []
    for clock.now_s in range(0, 3600, 100):
        run.due()
        seen.append(run.is_ending)
    assert seen == [now_s >= 3000 for now_s in range(0, 3600, 100)]
    assert capsys.readouterr().out.count("likely to go soon") == 1
    assert kept.remounts == len(seen)
    run.end()
    assert kept.flushed == 1


@pytest.mark.parametrize(("lasts_s", "began_s"), [(None, 0), (3600, 4000), (3600, 3200)])
def test_a_machine_without_an_end_or_past_it_ends_nothing(lasts_s, began_s, tmp_path, clock):
    clock.now_s = began_s
    kept = Kept(tmp_path)
    run = watched(kept, clock, lasts_s=lasts_s)
    for clock.now_s in range(began_s, began_s + 9000, 100):
        run.due()
    assert not run.is_ending
    run.end()
    assert not kept.flushed


def test_once_it_should_leave_it_should_save_each_minute(tmp_path, clock):
    run, saves = watched(tmp_path, clock), []
    for clock.now_s in range(2900, 3300, 20):
        run.due()
        if run.wants_save():
            saves.append(clock.now_s)
    assert saves == [3000, 3060, 3120, 3180, 3240]


def test_it_looks_once_a_second(tmp_path, clock):
    run = watched(tmp_path, clock)
    looked = []
    for tenth in range(31):
        clock.now_s = tenth / 10
        looked.append(run.due())
    assert sum(looked) == 4


def test_values_are_those_that_are_numbers(tmp_path, clock):
    run = watched(tmp_path, clock)
    run.update(3, 0.1, {"loss": 0.5, "name": "x", "is_best": True})
    run.update(3, 0.1, {"loss": 9.0})
    run.update(5, 0.2, {"loss": 0.25})
    steps = run.history.steps
    assert list(steps) == ["loss"]
    assert [steps["loss"][place] for place in (2, 4)] == [0.5, 0.25]


def test_one_wandb_run_goes_on_over_sessions_and_no_other_run_is_taken_for_it(
    tmp_path, clock, wandb
):
    first = watched(tmp_path / "run", clock)
    run_id = os.environ["WANDB_RUN_ID"]
    assert os.environ["WANDB_RESUME"] == "allow"
    first.end()
    assert "WANDB_RUN_ID" not in os.environ
    watched(tmp_path / "other", clock).end()
    again = watched(tmp_path / "run", clock)
    assert os.environ["WANDB_RUN_ID"] == run_id
    again.end()


def test_a_wandb_run_of_the_users_own_is_left_alone(tmp_path, clock, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    watched(tmp_path, clock).end()
    assert os.environ["WANDB_RUN_ID"] == "mine"
    assert not list(tmp_path.iterdir())


def test_without_wandb_nothing_is_written(tmp_path, clock):
    watched(tmp_path, clock).end()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("step", "epochs_done", "shown"), [(20, 1.5, 1), (40, 3, 2), (39, 2.9, 2)])
def test_the_end_of_the_last_epoch_is_shown_as_that_one(
    step, epochs_done, shown, tmp_path, clock, monkeypatch
):
    told = []

    class Panel:
        def __init__(self, *_, **__) -> None:
            pass

        def set_length(self, **_) -> None:
            pass

        def update(self, step, epoch, _) -> None:
            told.append((step, epoch))

    monkeypatch.setattr("colabkit.runs.watched.redraws", lambda: True)
    monkeypatch.setattr("colabkit.runs.watched.TrainingPanel", Panel)
    run = watched(tmp_path, clock)
    run.begin(step=0, total_steps=40, epochs=3)
    run.update(step, epochs_done, {"loss": 1.0})
    assert told == [(step, shown)]
