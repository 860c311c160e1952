"""Curves over epochs, with and without matplotlib."""

from __future__ import annotations

import math
import sys
import xml.etree.ElementTree as ET

import pytest

from colabkit.notebook import plot_history, svg_curves
from colabkit.notebook.curves import SvgCurves, charts_of

HISTORY = {
    "loss": [0.9, 0.5, math.nan, 0.3],
    "val_loss": [1.0, 0.6, 0.5, 0.5],
    "accuracy": [0.1, 0.2, 0.3, 0.4],
    "val_f1": [0.1, 0.1, 0.1, 0.1],
}


def test_a_value_and_its_validation_twin_share_a_chart():
    charts = charts_of(HISTORY)
    assert [chart.title for chart in charts] == ["loss", "accuracy", "f1"]
    assert list(charts[0].lines) == ["loss", "val_loss"]
    assert list(charts[2].lines) == ["val_f1"]
    assert charts[0].lines["loss"] == [(1, 0.9), (2, 0.5), (4, 0.3)]


def test_matplotlib_draws_a_chart_each_and_marks_resumes():
    had_pyplot = "matplotlib.pyplot" in sys.modules
    figure = plot_history(HISTORY, resumed_at=[1.5, 2.0])
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "f1"]
    marks = [line.get_xdata()[0] for line in figure.axes[1].lines[1:]]
    assert marks == [1.5, 2.0]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["loss", "val_loss", "resumed"]
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_without_matplotlib_it_is_svg(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    drawn = plot_history(HISTORY, resumed_at=[1.5])
    assert isinstance(drawn, SvgCurves)
    assert drawn._repr_svg_() == svg_curves(HISTORY, resumed_at=[1.5])
    assert "curves" in repr(drawn)


@pytest.mark.parametrize(
    "history",
    [
        {},
        {"loss": []},
        {"loss": [math.nan, math.inf]},
        {"loss": [1.0]},
        {"loss": [2.0, 2.0]},
        {"<&>": [1.0, 2.0]},
        HISTORY,
    ],
)
def test_svg_is_well_formed_and_inside_its_frame(history):
    root = ET.fromstring(svg_curves(history, resumed_at=[0.5]))
    for polyline in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for corner in polyline.attrib["points"].split():
            x, y = map(float, corner.split(","))
            assert 0 <= x <= 280
            assert 0 <= y <= 180


def test_many_values_stand_in_rows_of_three():
    history = {f"metric {n}": [1.0, 2.0] for n in range(7)}
    root = ET.fromstring(svg_curves(history))
    assert (root.attrib["width"], root.attrib["height"]) == ("840", "540")
    assert plot_history(history).get_size_inches()[1] == pytest.approx(9.6)
