"""A kill in the middle of a checkpoint write, or at any moment, leaves a run that goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import colabkit
from tests.torch.cases import arguments
from tests.torch.dying import SystemCalls, dies_after
from tests.torch.killing import in_child
from tests.torch.test_exactness import finish, train, undisturbed

SOAK = bool(os.environ.get("COLABKIT_SOAK"))
ROUNDS = 20 if SOAK else 1
KILLS = 8
CALLS_MAX = 50  # about two checkpoints' worth
CASES = (
    "arrays_shuffled_with_dropout",
    "accumulation_that_does_not_divide",
    "validation_in_between",
    "iterable_dataset_with_state",
    "moving_average",
)


def newest_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint there, which must be whole."""
    found = colabkit.checkpoints(folder, verify=True) if folder.exists() else []
    # One whose removal was broken off may follow, emptied.
    assert all(not info.problem for info in found[:1])
    return max((info.step for info in found if not info.problem), default=0)


def left_over(folder: Path) -> set[str]:
    """Returns the files that no whole checkpoint is made of."""
    needed = {"lease.json", "history.csv"}
    for manifest in (folder / "checkpoints").iterdir():
        if text := manifest.read_text():
            needed |= {manifest.name, *json.loads(text)["manifest"]["shards"]}
    return {path.name for path in folder.rglob("*") if path.is_file()} - needed


@pytest.mark.soak
@pytest.mark.parametrize("round_number", range(ROUNDS))
@pytest.mark.parametrize("name", CASES)
def test_a_kill_at_any_system_call_leaves_whole_checkpoints(name, round_number, tmp_path):
    alone = undisturbed(name, tmp_path)
    chooser = random.Random(f"{name} {round_number}")
    deaths, reached = 0, 0
    while deaths < KILLS:
        deadly = SystemCalls(chooser.randrange(1, CALLS_MAX), after=chooser.random() < 0.5)

        def work(deadly: SystemCalls = deadly) -> None:
            deadly._owner = os.getpid()
            with deadly.watching():
                target = tmp_path / "never.json"
                train(name, tmp_path / "killed", [], target, save_every=1)

        ended = in_child(work, report=tmp_path / "killed.txt")
        newest = newest_step(tmp_path / "killed")
        assert newest >= reached, "a kill lost a checkpoint"
        reached = newest
        deaths += not ended
        if ended or deaths == KILLS:
            assert finish(name, tmp_path) == alone
            assert not left_over(tmp_path / "killed")
            shutil.rmtree(tmp_path / "killed")
            reached = 0


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
        run_quietly(name, folder, save_every=1)

    report, deaths = tmp_path / "killed.txt", 0
    while deaths < KILLS:
        died = dies_after(work, seconds=chooser.uniform(0.0, 0.7 * whole_s), report=report)
        newest_step(folder)
        deaths += died
        if not died or deaths == KILLS:
            assert finish(name, tmp_path) == alone
            shutil.rmtree(folder)
