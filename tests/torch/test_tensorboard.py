"""TensorBoard on a run folder: what it shows is the run's history, kills or not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import colabkit
from colabkit.runs import boundaries, event_log
from tests.torch.killing import in_child, kill_self

EPOCHS, BATCHES = 6, 10
X, Y = torch.randn(32 * BATCHES, 4), torch.randint(0, 3, (32 * BATCHES,))


def fit(folder: Path, *, die_at: int | None = None, **options: Any) -> colabkit.History:
    def bomb(event: Any) -> None:
        if event.name == "batch_end" and event.step == die_at:
            kill_self()

    options = {"epochs": EPOCHS, "save_every": 4, "tensorboard": True, **options}
    return colabkit.fit(
        torch.nn.Linear(4, 3),
        (X, Y),
        folder,
        validation_data=(X, Y),
        callbacks=[bomb],
        device="cpu",
        progress=False,
        **options,
    )


def shown(folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Returns by run and tag what ``%tensorboard --logdir folder`` shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

        reader = EventMultiplexer(size_guidance={"scalars": 0})
        reader.AddRunsFromDirectory(str(folder))
        reader.Reload()
        return {
            run: {
                tag: [(event.step, event.value) for event in reader.Scalars(run, tag)]
                for tag in tags["scalars"]
            }
            for run, tags in reader.Runs().items()
        }


def expected(history: colabkit.History) -> dict[str, list[tuple[int, float]]]:
    steps = {
        f"step/{name}": list(enumerate(values.astype(np.float32).tolist()))
        for name, values in history.steps.items()
    }
    names = [name for name in history.epochs[0] if name not in {"epoch", "step"}]
    epochs = {
        f"epoch/{name}": [(row["step"], float(np.float32(row[name]))) for row in history.epochs]
        for name in names
    }
    return steps | epochs


def without_times(tags: dict[str, Any]) -> dict[str, Any]:
    return {tag: values for tag, values in tags.items() if tag != "epoch/seconds"}


@pytest.fixture
def always_publishing(monkeypatch):
    """Looks at every step, and publishes whatever is committed then."""
    monkeypatch.setattr(event_log, "_LEAST_S", 0.0)
    monkeypatch.setattr(boundaries, "_LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("always_publishing")
def test_after_kills_every_step_and_epoch_is_shown_once(tmp_path):
    folder = tmp_path / "run"
    for die_at in (3, 17, 18, 41, 59):
        assert not in_child(lambda at=die_at: fit(folder, die_at=at), report=tmp_path / "report")
    history = fit(folder)
    runs = shown(folder)
    assert list(runs) == ["tensorboard"]
    assert runs["tensorboard"] == expected(history)
    assert len(runs["tensorboard"]["step/loss"]) == EPOCHS * BATCHES


@pytest.mark.usefixtures("always_publishing")
def test_what_a_killed_session_left_is_never_ahead_of_its_checkpoints(tmp_path):
    folder = tmp_path / "run"
    assert not in_child(lambda: fit(folder, die_at=37), report=tmp_path / "report")
    steps = [step for step, _ in shown(folder)["tensorboard"].get("step/loss", [])]
    newest = colabkit.checkpoints(folder)[0].step
    assert steps == list(range(len(steps)))
    assert len(steps) <= newest <= 37


def test_more_epochs_go_on_where_the_curves_ended(tmp_path):
    fit(tmp_path, epochs=2)
    history = fit(tmp_path, epochs=4)
    assert without_times(shown(tmp_path)["tensorboard"]) == without_times(expected(history))


def test_asked_for_after_the_end_it_tells_the_whole_run(tmp_path):
    fit(tmp_path, epochs=2, tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()
    history = fit(tmp_path, epochs=2)
    assert shown(tmp_path)["tensorboard"] == expected(history)


def test_a_run_of_your_own_is_shown_too(tmp_path):
    run = colabkit.Run(tmp_path, progress=False, tensorboard=True)
    for _ in run.epochs(2):
        for item in run.items(range(5)):
            run.log(loss=float(item))
    values = shown(tmp_path)["tensorboard"]["step/loss"]
    assert values == [(step, float(step % 5)) for step in range(10)]


def test_starting_anew_shows_both_attempts(tmp_path):
    fit(tmp_path, epochs=1)
    fit(tmp_path, epochs=2, resume=False)
    runs = shown(tmp_path)
    assert sorted(runs) == ["tensorboard", "tensorboard-attempt-2"]
    assert len(runs["tensorboard"]["step/loss"]) == BATCHES
    assert len(runs["tensorboard-attempt-2"]["step/loss"]) == 2 * BATCHES
