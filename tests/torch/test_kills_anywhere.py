"""A kill in the middle of a checkpoint write, or at any moment, leaves a run that goes on."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import colabkit
from tests.torch.cases import arguments
from tests.torch.dying import SystemCalls, dies_after
from tests.torch.killing import in_child
from tests.torch.test_exactness import finish, train, undisturbed

SOAK = bool(os.environ.get("COLABKIT_SOAK"))
ROUNDS = 20 if SOAK else 1
KILLS = 12
CASES = (
    "arrays_shuffled_with_dropout",
    "accumulation_that_does_not_divide",
    "validation_in_between",
    "iterable_dataset_with_state",
    "moving_average",
)


def whole(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints there; each must be whole."""
    if not folder.exists():
        return []
    found = colabkit.checkpoints(folder, verify=True)
    assert [info.problem for info in found] == [""] * len(found)
    return [info.step for info in found]


def count_calls(name: str, tmp_path: Path) -> int:
    """Returns by how many system calls a run that saves at each step changes files."""
    told = tmp_path / "calls"

    def work() -> None:
        calls = SystemCalls(None)
        with calls.watching():
            train(name, tmp_path / "counted", [], tmp_path / "counted.json", save_every=1)
        told.write_text(str(calls.count))

    assert in_child(work, report=tmp_path / "counted.txt")
    return int(told.read_text())


@pytest.mark.soak
@pytest.mark.parametrize("round_number", range(ROUNDS))
@pytest.mark.parametrize("name", CASES)
def test_a_kill_at_any_system_call_leaves_whole_checkpoints(name, round_number, tmp_path):
    alone = undisturbed(name, tmp_path)
    calls = count_calls(name, tmp_path)
    chooser = random.Random(f"{name} {round_number}")
    deaths, reached = 0, 0
    for _ in range(KILLS):
        deadly = SystemCalls(chooser.randrange(1, calls // 4), after=chooser.random() < 0.5)

        def work(deadly: SystemCalls = deadly) -> None:
            deadly._owner = os.getpid()
            with deadly.watching():
                target = tmp_path / "never.json"
                train(name, tmp_path / "killed", [], target, save_every=1)

        deaths += not in_child(work, report=tmp_path / "killed.txt")
        newest = max(whole(tmp_path / "killed"), default=0)
        assert newest >= reached, "a kill lost a checkpoint"
        reached = newest
    assert deaths >= KILLS // 3
    assert finish(name, tmp_path) == alone


def run_quietly(name: str, folder: Path, **options: Any) -> None:
    made = arguments(name, resumed=False) | options
    colabkit.fit(made.pop("model"), made.pop("data"), folder, **made)


@pytest.mark.soak
@pytest.mark.parametrize("round_number", range(ROUNDS))
@pytest.mark.parametrize("name", ["shuffle", "two_workers"])
def test_a_kill_at_any_moment_leaves_the_same_bits(name, round_number, tmp_path):
    alone = undisturbed(name, tmp_path)
    began_s = time.monotonic()
    assert in_child(
        lambda: run_quietly(name, tmp_path / "timed", save_every=1), report=tmp_path / "timed.txt"
    )
    whole_s = time.monotonic() - began_s
    chooser = random.Random(f"{name} {round_number}")
    folder = tmp_path / "killed"

    def work() -> None:
        torch.set_num_threads(1)
        run_quietly(name, folder, save_every=1)

    deaths = sum(
        dies_after(work, seconds=chooser.uniform(0.0, 0.7 * whole_s)) for _ in range(KILLS)
    )
    assert deaths >= KILLS // 3
    whole(folder)
    assert finish(name, tmp_path) == alone
