"""fit and Run tell a logger of each step once, kills or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import colabkit
from colabkit.errors import ArgumentError
from colabkit.runs import boundaries, service_log
from tests.torch.killing import in_child, kill_self

EPOCHS, BATCHES = 4, 10
X, Y = torch.randn(32 * BATCHES, 4), torch.randint(0, 3, (32 * BATCHES,))


class Lines:
    """Writes what it is told into a file, a line at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def log(self, values: dict[str, float], step: int) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([step, values]) + "\n")


def told(path: Path) -> list[tuple[int, dict[str, float]]]:
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()]


def fit(folder: Path, *, die_at: int | None = None, **options: Any) -> colabkit.History:
    def bomb(event: Any) -> None:
        if event.name == "batch_end" and event.step == die_at:
            kill_self()

    logger = Lines(folder / "told")
    options = {"epochs": EPOCHS, "save_every": 4, "logger": logger, **options}
    return colabkit.fit(
        torch.nn.Linear(4, 3),
        (X, Y),
        folder / "run",
        validation_data=(X, Y),
        callbacks=[bomb],
        device="cpu",
        progress=False,
        **options,
    )


def expected(history: colabkit.History) -> list[tuple[int, dict[str, float]]]:
    rows = [
        {f"step/{name}": float(values[step]) for name, values in history.steps.items()}
        for step in range(EPOCHS * BATCHES)
    ]
    for row in history.epochs:
        named = {f"epoch/{n}": value for n, value in row.items() if n not in {"epoch", "step"}}
        rows[int(row["step"]) - 1] |= named
    return list(enumerate(rows))


@pytest.fixture
def always_telling(monkeypatch):
    monkeypatch.setattr(service_log, "_EVERY_S", 0.0)
    monkeypatch.setattr(boundaries, "_LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("always_telling")
def test_after_kills_no_step_is_told_twice(tmp_path):
    for die_at in (3, 17, 18, 39):
        assert not in_child(lambda at=die_at: fit(tmp_path, die_at=at), report=tmp_path / "report")
    history = fit(tmp_path)
    lines, rows = told(tmp_path / "told"), dict(expected(history))
    steps = [step for step, _ in lines]
    assert steps == sorted(set(steps))
    assert steps[-1] == EPOCHS * BATCHES - 1
    for step, values in lines:
        assert values.pop("epoch/seconds", 0) >= 0
        assert values == {n: v for n, v in rows[step].items() if n != "epoch/seconds"}


def test_asked_for_after_the_end_it_tells_the_whole_run_once(tmp_path):
    fit(tmp_path, logger=None)
    for _ in range(2):
        history = fit(tmp_path)
        assert told(tmp_path / "told") == expected(history)


def test_a_loop_of_your_own_is_told_too(tmp_path):
    run = colabkit.Run(tmp_path / "run", progress=False, logger=Lines(tmp_path / "told"))
    for _ in run.epochs(2):
        for item in run.items(range(5)):
            run.log(loss=float(item))
        run.log_epoch(score=1.0)
    lines = told(tmp_path / "told")
    assert [step for step, _ in lines] == list(range(10))
    assert [values["epoch/score"] for step, values in lines if step in {4, 9}] == [1.0, 1.0]


def test_what_is_no_logger_is_named_before_the_first_step(tmp_path):
    with pytest.raises(ArgumentError, match="logger"):
        colabkit.Run(tmp_path, progress=False, logger="weights and biases")
