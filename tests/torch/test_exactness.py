"""A killed run ends with bitwise the numbers of one left alone, for every way of training."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import colabkit
from tests.torch.cases import CASES, arguments
from tests.torch.killing import KillAtEpochEnd, KillAtStep, in_child, outcome

SWEEPS = 20 if os.environ.get("COLABKIT_SOAK") else 1
KILLS = 3


def train(name: str, folder: Path, killers: list[Any], target: Path, **options: Any) -> None:
    made = arguments(name, resumed=bool(options.pop("resumed", False)))
    callbacks = [*made.pop("callbacks", []), *killers]
    model, data = made.pop("model"), made.pop("data")
    history = colabkit.fit(model, data, folder, callbacks=callbacks, **{**made, **options})
    outcome(folder, history, target)


def undisturbed(name: str, tmp_path: Path) -> dict[str, Any]:
    target = tmp_path / "alone.json"
    report = tmp_path / "alone.txt"
    assert in_child(lambda: train(name, tmp_path / "alone", [], target), report=report)
    return json.loads(target.read_text())


def finish(name: str, tmp_path: Path, **options: Any) -> dict[str, Any]:
    target = tmp_path / "killed.json"
    report = tmp_path / "killed.txt"
    folder = tmp_path / "killed"
    assert in_child(lambda: train(name, folder, [], target, resumed=True, **options), report=report)
    return json.loads(target.read_text())


def kill(name: str, tmp_path: Path, killer: Any, **options: Any) -> None:
    target, report = tmp_path / "never.json", tmp_path / "killed.txt"
    folder = tmp_path / "killed"
    ended = in_child(lambda: train(name, folder, [killer], target, **options), report=report)
    assert not ended
    assert not target.exists()


@pytest.mark.soak
@pytest.mark.parametrize("sweep", range(SWEEPS))
@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_at_random_steps_ends_with_the_same_bits(name, sweep, tmp_path):
    alone = undisturbed(name, tmp_path)
    chooser = random.Random(f"{name} {sweep}")
    steps = sorted(chooser.sample(range(2, alone["step"]), KILLS))
    for place, step in enumerate(steps):
        every = chooser.choice([1, 2, 3])
        kill(name, tmp_path, KillAtStep(step), save_every=every, resumed=place > 0)
    assert finish(name, tmp_path) == alone


@pytest.mark.parametrize("name", ["shuffle", "two_workers", "validation_in_between", "onecycle"])
def test_a_run_killed_at_an_epochs_very_end_ends_with_the_same_bits(name, tmp_path):
    alone = undisturbed(name, tmp_path)
    kill(name, tmp_path, KillAtEpochEnd(0), save_every=1)
    kill(name, tmp_path, KillAtEpochEnd(1), save_every=1)
    assert finish(name, tmp_path) == alone


@pytest.mark.parametrize("name", ["shuffle", "arrays_shuffled_with_dropout"])
def test_two_kills_in_one_epoch_leave_the_same_bits(name, tmp_path):
    alone = undisturbed(name, tmp_path)
    kill(name, tmp_path, KillAtStep(8), save_every=1)
    kill(name, tmp_path, KillAtStep(10), save_every=1)
    assert finish(name, tmp_path) == alone


def test_how_often_a_run_saves_changes_nothing(tmp_path):
    alone = undisturbed("callback_that_draws", tmp_path)
    assert finish("callback_that_draws", tmp_path, save_every=1) == alone


def test_the_number_of_workers_changes_nothing(tmp_path):
    outcomes = []
    for name in ("own_generators", "own_generators_two_workers"):
        (tmp_path / name).mkdir()
        outcomes.append(undisturbed(name, tmp_path / name))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_exact(name, tmp_path):
    made = arguments(name, resumed=False)
    model, data = made.pop("model"), made.pop("data")
    verdict = colabkit.fit(model, data, tmp_path, **{**made, "epochs": 1}).verdict
    assert verdict.grade.value == "exact", verdict
    assert len(verdict.notices) == CASES[name].notices
