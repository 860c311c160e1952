"""Keras notebooks of several phases on one run folder, killed anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.keras.lives import WarmProcess, needs_keras, outcome

pytestmark = needs_keras

# By name: where each life is killed, one after the other.
ON_TENSORFLOW: dict[str, list[int | str]] = {
    "transfer_learning": [5, "between", 13, 14, 19],
    "all_but_the_last_then_all": [3, "between", 13, 19],
    "as_a_detector_is_trained": [5, "after 3", 13, 19],
    "the_same_sources_in_every_phase": [6, "after 1", 14, 19, 23],
    "shown_in_the_first_phase": [3, 11, 13],
    "averages_the_best_and_three_rates": [7, "between 0", 13, "between 1", 27],
    "one_epoch_a_call": [5, "between 0", 9, 14],
    "one_epoch_a_call_and_lower_rates": [8, 15, "between 3"],
}
ON_TORCH: dict[str, list[int | str]] = {"transfer_learning": [5, "between", 13, 19]}


def check_killed(warm: WarmProcess, folder: Path, name: str, kills: list[int | str]) -> None:
    assert warm.live(folder, {"notebook": name, "run": "alone"})
    killed = {"notebook": name, "run": "killed"}
    for kill_at in kills:
        assert not warm.live(folder, {**killed, "kill_at": kill_at})
    assert warm.live(folder, killed)
    assert outcome(folder, "killed") == outcome(folder, "alone")


@pytest.mark.parametrize("name", ON_TENSORFLOW)
def test_a_notebook_on_tensorflow_ends_with_the_same_bits(name, on_tensorflow, tmp_path):
    check_killed(on_tensorflow, tmp_path, name, ON_TENSORFLOW[name])


@pytest.mark.parametrize("name", ON_TORCH)
def test_a_notebook_on_pytorch_ends_with_the_same_bits(name, on_torch, tmp_path):
    check_killed(on_torch, tmp_path, name, ON_TORCH[name])


@pytest.mark.in_nursery("on_tensorflow")
def test_another_fold_needs_another_folder_and_the_same_model_goes_on_with_other_data(tmp_path):
    from tests.keras.cases import arrays, network  # only in the process that the test runs in

    x, y = arrays()
    given = {"batch_size": 8, "progress": False}
    model = network()
    colabkit.fit(model, (x[:36], y[:36]), tmp_path, epochs=1, **given)
    for fold in (network(), model):
        with pytest.raises(CheckpointMismatchError, match="a fold, needs another folder"):
            colabkit.fit(fold, (x[8:], y[8:]), tmp_path, epochs=1, **given)
    history = colabkit.fit(model, (x[8:], y[8:]), tmp_path, epochs=2, **given)
    assert [(each.name, each.epoch) for each in history.phases] == [("phase 1", 0), ("phase 2", 1)]
