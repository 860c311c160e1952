"""The curves that a panel draws of a history."""

from __future__ import annotations

import math
import time

import numpy as np

from colabkit.notebook import Row
from colabkit.runs.history import History
from colabkit.runs.panel_source import BestEpoch, RunCurves, waiting_row
from colabkit.runs.waiting import Waiting


def grown(history: History, first: int, end: int) -> None:
    for step in range(first, end):
        history.append_step(step, {"loss": 1.0 / (step + 1), "accuracy": step / end})


def test_a_history_that_grows_is_drawn_whole():
    history = History()
    curves = RunCurves(history)
    for first in range(0, 40_000, 5_000):
        grown(history, first, first + 5_000)
        charts = curves.charts()
    whole = RunCurves(history).charts()
    assert [chart.title for chart in charts] == ["loss", "accuracy"]
    assert np.allclose(charts[0].lines["loss"], whole[0].lines["loss"])
    assert charts[0].lines["loss"][-1][0] == 40_000
    assert len(charts[0].lines["loss"]) <= 240


def test_validation_stands_at_the_end_of_its_epoch_beside_the_steps():
    history = History()
    grown(history, 0, 30)
    for epoch in range(3):
        values = {"loss": 0.5, "val_loss": 0.6, "val_f1": math.nan, "lr": 0.1}
        history.append_epoch(epoch=epoch, step=10 * (epoch + 1), seconds=1.0, values=values)
    history.mark_resume(step=15, epoch=1)
    loss, accuracy = RunCurves(history).charts()
    assert loss.lines["val_loss"] == [(10, 0.6), (20, 0.6), (30, 0.6)]
    assert len(loss.lines["loss"]) == 30
    assert loss.best == (10, 0.6)
    assert accuracy.best is None
    assert loss.marks == [15]
    assert accuracy.title == "accuracy"


def test_a_learning_rate_is_drawn_last_and_only_when_it_changes():
    history = History()
    for epoch in range(3):
        values = {"lr": 0.1 / (epoch + 1), "val_f1": 0.5}
        history.append_epoch(epoch=epoch, step=epoch + 1, seconds=1.0, values=values)
    assert [chart.title for chart in RunCurves(history).charts()] == ["f1", "lr"]


def test_nothing_reported_is_no_chart():
    assert RunCurves(History()).charts() == []


def of_epochs(values: list[float], monitor: str | None = None) -> BestEpoch:
    history = History()
    best = BestEpoch(history, monitor)
    for epoch, value in enumerate(values):
        told = {"loss": -value, "val_loss": value}
        history.append_epoch(epoch=epoch, step=epoch + 1, seconds=65.0, values=told)
        best.row()
    return best


def test_the_newest_five_epochs_are_shown_and_the_best_wherever_it_lies():
    shown = of_epochs([9, 8, 1, 7, 6, 5, 4, 3]).newest_rows()
    assert [row["epoch"] for row in shown.rows] == [3, 5, 6, 7, 8]
    assert shown.best == 0
    assert shown.rows[-1] == {"epoch": 8, "loss": -3, "val_loss": 3, "took": "1 min"}
    shown = of_epochs([9, 8, 1, 7, 6], monitor="loss").newest_rows()
    assert [row["epoch"] for row in shown.rows] == [1, 2, 3, 4, 5]
    assert shown.best == 0
    assert of_epochs([math.nan]).newest_rows().best is None
    assert of_epochs([]).newest_rows().rows == []


def test_a_line_by_epoch_is_of_all_epochs_and_ends_at_the_newest():
    history = History()
    for epoch in range(1000):
        history.append_epoch(epoch=epoch, step=epoch + 1, seconds=1.0, values={"val_f1": epoch})
    (chart,) = RunCurves(history).charts()
    steps = [x for x, _ in chart.lines["val_f1"]]
    assert len(steps) <= 64
    assert steps[0] < 20
    assert steps[-1] == 1000


def test_waiting_for_data_is_said_where_it_is_worth_a_word():
    assert waiting_row(4.9, 9.0) is None
    assert waiting_row(1.0, 100.0) is None
    assert waiting_row(10.0, 100.0) == Row("Data", "10% of the time is spent waiting for it")
    row = waiting_row(31.0, 100.0)
    assert row is not None
    assert "num_workers=2" in row.advice


def test_what_gives_batches_is_timed_and_closed_as_if_it_were_read_itself():
    closed = []

    def batches():
        try:
            for number in range(3):
                time.sleep(0.002)
                yield number
        finally:
            closed.append(True)

    waiting = Waiting()
    assert list(waiting.over(batches())) == [0, 1, 2]
    assert waiting.seconds >= 0.006
    left = waiting.over(batches())
    next(left)
    left.close()
    assert closed == [True, True]
