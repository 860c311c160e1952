"""History: what a run reported, over all its sessions."""

from __future__ import annotations

import csv
import datetime
import json
import math
import os

import numpy as np
import pytest

from colabkit.errors import ArgumentError, StorageError
from colabkit.runs.history import History, ResumeRecord
from colabkit.runs.verdict import ResumeVerdict

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
STEPS_PER_EPOCH = 4


def train(history: History, first: int, last: int) -> None:
    for step in range(first, last):
        history.append_step(step, {"loss": 1 / (step + 3)})
        if (step + 1) % STEPS_PER_EPOCH == 0:
            epoch = step // STEPS_PER_EPOCH
            values = {"loss": 1 / (epoch + 3), "val_loss": abs(epoch - 2) / 7, "lr": 0.1}
            history.append_epoch(epoch=epoch, step=step + 1, seconds=2.5 + step, values=values)


def trained(steps: int = 20) -> History:
    history = History(now=lambda: NOON)
    train(history, 0, steps)
    return history


def through_json(state: dict) -> dict:
    """Takes a state through what a checkpoint does to it: JSON and raw bytes."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return {"bytes": value.tobytes().hex()}
        msg = f"{type(value)} in the state"
        raise TypeError(msg)

    def array(value):
        return np.frombuffer(bytes.fromhex(value["bytes"])) if set(value) == {"bytes"} else value

    return json.loads(json.dumps(state, default=plain), object_hook=array)


def bits(history: History) -> tuple[object, dict[str, bytes]]:
    numbers = history.numbers()
    return repr(numbers["epochs"]), {n: a.tobytes() for n, a in numbers["steps"].items()}


def test_an_epoch_is_a_row():
    row = trained().epochs[1]
    assert row == {
        "epoch": 1, "step": 8, "seconds": 9.5, "loss": 0.25, "val_loss": 1 / 7, "lr": 0.1,
    }  # fmt: skip
    assert list(row)[:3] == ["epoch", "step", "seconds"]


def test_values_come_as_lists_by_name_like_in_keras():
    history = trained(8)
    history.append_epoch(epoch=2, step=12, seconds=1.0, values={"loss": 0.1, "f1": 0.5})
    assert history.history["loss"] == [1 / 3, 0.25, 0.1]
    assert history.history["f1"][2] == 0.5
    assert math.isnan(history.history["f1"][0])
    assert set(history.history) == {"loss", "val_loss", "lr", "f1"}


@pytest.mark.parametrize("killed_at", range(21))
def test_killed_at_any_step_it_ends_with_the_same_numbers(killed_at):
    state = through_json(trained(killed_at).state_dict())
    resumed = History(now=lambda: NOON + datetime.timedelta(days=1))
    resumed.load_state_dict(state)
    resumed.mark_resume(step=killed_at, epoch=killed_at // STEPS_PER_EPOCH)
    train(resumed, killed_at, 20)
    assert bits(resumed) == bits(trained())


def test_numbers_do_not_hold_the_clock():
    slow, fast = trained(4), History()
    for step in range(4):
        fast.append_step(step, {"loss": 1 / (step + 3)})
    values = slow.newest_epoch_values()
    fast.append_epoch(epoch=0, step=4, seconds=0.001, values=values)
    fast.mark_resume(step=0, epoch=0)
    assert bits(slow) == bits(fast)


def test_an_epoch_noted_again_takes_the_place_of_its_row():
    history = trained(8)
    history.append_epoch(epoch=1, step=8, seconds=1.0, values={"loss": 9.0})
    assert [row["loss"] for row in history.epochs] == [1 / 3, 9.0]
    assert len(history) == 2


def test_a_resume_is_recorded_with_its_grade():
    history = trained(6)
    history.mark_resume(step=6, epoch=1)
    history.verdict = ResumeVerdict(reasons=("another GPU",))
    expected = [ResumeRecord(step=6, epoch=1, when=NOON, grade="approximate")]
    assert history.resumes == expected
    again = History()
    again.load_state_dict(through_json(history.state_dict()))
    assert again.resumes == expected
    again.mark_resume(step=7, epoch=1)
    again.verdict = ResumeVerdict()
    assert [resume.grade for resume in again.resumes] == ["approximate", "exact"]


def test_best_is_the_first_of_the_best_epochs():
    history = trained()
    assert history.best()["epoch"] == 2
    assert history.best("loss")["epoch"] == 4
    assert history.best("loss", mode="max")["epoch"] == 0
    assert history.best("lr")["epoch"] == 0


def test_best_passes_over_nan_and_epochs_without_the_value():
    history = History()
    for epoch, accuracy in enumerate([math.nan, 0.2, 0.9, 0.5]):
        values = {"loss": 1.0, "accuracy": accuracy} if epoch != 3 else {"loss": 1.0}
        history.append_epoch(epoch=epoch, step=epoch, seconds=1.0, values=values)
    assert history.best("accuracy")["epoch"] == 2
    assert History().best() is None


def test_best_by_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="they report loss, val_loss, lr"):
        trained().best("val_acc")
    with pytest.raises(ArgumentError, match="mode is 'least'"):
        trained().best(mode="least")


@pytest.mark.parametrize("name", ["epoch", "step", "seconds"])
def test_a_value_may_not_hide_a_column(name):
    with pytest.raises(ArgumentError, match=f"named '{name}'"):
        History().append_epoch(epoch=0, step=1, seconds=1.0, values={name: 1.0})


def test_csv_keeps_every_digit_and_quotes_names(tmp_path):
    history = trained()
    history.append_epoch(epoch=5, step=24, seconds=1.0, values={'f1, "macro"': 0.1 + 0.2})
    history.to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3, 4, 5]
    assert float(rows[5]['f1, "macro"']) == 0.1 + 0.2
    assert rows[5]["loss"] == ""
    assert [float(row["loss"]) for row in rows[:5]] == trained().history["loss"]


def test_csv_replaces_the_old_file_and_leaves_nothing_aside(tmp_path):
    trained(4).to_csv(tmp_path / "history.csv")
    trained(8).to_csv(str(tmp_path / "history.csv"))
    assert os.listdir(tmp_path) == ["history.csv"]  # noqa: PTH208
    assert (tmp_path / "history.csv").read_text().count("\n") == 3


def test_csv_into_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(StorageError, match="could not be written") as caught:
        trained().to_csv(tmp_path / "no" / "history.csv")
    assert caught.value.path == str(tmp_path / "no" / "history.csv")


def test_it_says_in_one_line_what_it_holds():
    history = trained(8)
    history.mark_resume(step=8, epoch=2)
    assert repr(history) == (
        "<History: 2 epochs, 8 steps, loss=0.25, val_loss=0.1429, lr=0.1, resumed 1×>"
    )
    assert repr(History()) == "<History: 0 epochs, 0 steps>"


def test_a_notebook_shows_a_table_and_curves():
    history = trained(100)
    history.append_epoch(epoch=25, step=104, seconds=1.0, values={"<script>": 1.0})
    history.mark_resume(step=6, epoch=1)
    shown = history._repr_html_()
    assert "<svg" in shown
    assert "The newest 20 of 26 epochs." in shown
    assert "<script>" not in shown
    assert "<td>26</td><td>104</td>" in shown
    assert "resumed" in shown
    assert "<table" in History()._repr_html_()


def test_a_resume_in_mid_epoch_is_marked_between_the_epochs():
    history = trained(8)
    history.mark_resume(step=6, epoch=1)
    axes = history.plot().axes[0]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_label() == "resumed"] == [1.5]
