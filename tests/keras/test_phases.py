"""Keras notebooks of several phases on one run folder, killed anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.keras.lives import Nursery, needs_keras, outcome

pytestmark = needs_keras

# By name: where each life is killed, one after the other.
ON_TENSORFLOW: dict[str, list[int | str]] = {
    "transfer_learning": [5, "between", 13, 14, 19],
    "all_but_the_last_then_all": [3, "between", 13, 19],
    "averages_the_best_and_three_rates": [7, "between 0", 13, "between 1", 27],
    "one_epoch_a_call": [5, "between 0", 9, 14],
}
ON_TORCH: dict[str, list[int | str]] = {"transfer_learning": [5, "between", 13, 19]}


def check_killed(nursery: Nursery, folder: Path, name: str, kills: list[int | str]) -> None:
    assert nursery.live(folder, {"notebook": name, "run": "alone"})
    killed = {"notebook": name, "run": "killed"}
    for kill_at in kills:
        assert not nursery.live(folder, {**killed, "kill_at": kill_at})
    assert nursery.live(folder, killed)
    assert outcome(folder, "killed") == outcome(folder, "alone")


@pytest.mark.parametrize("name", ON_TENSORFLOW)
def test_a_notebook_on_tensorflow_ends_with_the_same_bits(name, on_tensorflow, tmp_path):
    check_killed(on_tensorflow, tmp_path, name, ON_TENSORFLOW[name])


@pytest.mark.parametrize("name", ON_TORCH)
def test_a_notebook_on_pytorch_ends_with_the_same_bits(name, on_torch, tmp_path):
    check_killed(on_torch, tmp_path, name, ON_TORCH[name])
