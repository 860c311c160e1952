"""The curves that a panel draws of a history."""

from __future__ import annotations

import math

import numpy as np

from colabkit.runs.history import History
from colabkit.runs.panel_source import RunCurves


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
