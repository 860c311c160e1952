"""A hand-written loop over a Run, killed at any step, ends with the same bits."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.torch.killing import in_child, kill_self, outcome
from tests.torch.loops import LOOPS

SWEEPS = 20 if os.environ.get("COLABKIT_SOAK") else 1
KILLS = 4


def finish(name: str, folder: Path) -> dict[str, Any]:
    target, report = folder.with_suffix(".json"), folder.with_suffix(".txt")

    def work() -> None:
        run = LOOPS[name](folder, None, lambda step: None)
        outcome(folder, run.history, target)

    assert in_child(work, report=report)
    return json.loads(target.read_text())


def kill(name: str, folder: Path, step: int, save_every: int) -> None:
    def at(reached: int) -> None:
        if reached == step:
            kill_self()

    def work() -> None:
        LOOPS[name](folder, save_every, at)

    assert not in_child(work, report=folder.with_suffix(".txt")), "it ended before the kill"


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names what two outcomes do not share."""
    named = []
    for part in one.keys() | other.keys():
        values = [each.get(part) for each in (one, other)]
        if all(isinstance(each, dict) for each in values):
            first, second = values
            keys = first.keys() | second.keys()
            named += [f"{part} {k}" for k in keys if first.get(k) != second.get(k)]
        elif values[0] != values[1]:
            named.append(f"{part}: {values}")
    return sorted(named)


@pytest.mark.soak
@pytest.mark.parametrize("sweep", range(SWEEPS))
@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_killed_at_random_steps_ends_with_the_same_bits(name, sweep, tmp_path):
    alone = finish(name, tmp_path / "alone")
    chooser = random.Random(f"{name} {sweep}")
    for step in sorted(chooser.sample(range(2, alone["step"]), KILLS)):
        kill(name, tmp_path / "killed", step, chooser.choice([1, 1, 2]))
    assert differing(finish(name, tmp_path / "killed"), alone) == []
