"""Curves of a run over its epochs, with a mark where it was resumed."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from colabkit.notebook.charts import Chart, charts_svg
from colabkit.notebook.theme import LIGHT

_COLOURS = (LIGHT.accent, LIGHT.second)
_CHARTS_IN_ROW = 3


@dataclasses.dataclass(frozen=True, slots=True)
class SvgCurves:
    """Curves drawn as SVG, shown by a notebook as the last value of a cell."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return "<curves: the last value of a notebook cell is drawn>"


def charts_of(
    history: Mapping[str, Sequence[float]], *, resumed_at: Sequence[float] = ()
) -> list[Chart]:
    """Groups values by epoch into charts, each with its "val_" twin."""
    titles = dict.fromkeys(name.removeprefix("val_") for name in history)
    return [
        Chart(title, {name: _points(history[name]) for name in names}, marks=resumed_at)
        for title in titles
        # A rate that never changes is no curve.
        if (title != "lr" or len(set(history[title])) > 1)
        and (names := [name for name in (title, f"val_{title}") if name in history])
    ]


def plot_history(
    history: Mapping[str, Sequence[float]], *, resumed_at: Sequence[float] = ()
) -> Any:
    """Draws one chart per value, with matplotlib where it is installed, else as SVG.

    Args:
        history: Values by name, one per epoch.
        resumed_at: Where the run was resumed, in epochs done.

    Returns:
        A matplotlib ``Figure`` or an ``SvgCurves``; both are drawn by a notebook.
    """
    charts = charts_of(history, resumed_at=resumed_at)
    if not charts or importlib.util.find_spec("matplotlib") is None:
        return SvgCurves(charts_svg(charts))
    return _figure(charts)


def svg_curves(history: Mapping[str, Sequence[float]], *, resumed_at: Sequence[float] = ()) -> str:
    """Returns the same curves as an SVG that stands on its own."""
    return charts_svg(charts_of(history, resumed_at=resumed_at))


def _points(values: Sequence[float]) -> list[tuple[float, float]]:
    return [(n, float(y)) for n, y in enumerate(values, start=1) if math.isfinite(y)]


def _figure(charts: Sequence[Chart]) -> Any:
    base = importlib.import_module("matplotlib.figure").Figure
    # Not made by pyplot: a notebook would draw it twice, and a script would keep it forever.
    columns = min(_CHARTS_IN_ROW, len(charts))
    rows = math.ceil(len(charts) / columns)
    figure = type("HistoryFigure", (base,), {"_repr_png_": _png_of_figure})(
        figsize=(4.2 * columns, 3.2 * rows), layout="constrained"
    )
    for number, chart in enumerate(charts, start=1):
        _draw(chart, figure.add_subplot(rows, columns, number))
    return figure


def _draw(chart: Chart, axes: Any) -> None:
    for (name, points), colour in zip(chart.lines.items(), _COLOURS, strict=False):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=colour,
            label=name,
            marker="o" if len(points) == 1 else None,
        )
    for place, x in enumerate(chart.marks):
        label = None if place else "resumed"
        axes.axvline(x, color=LIGHT.note, linestyle=":", linewidth=1, label=label)
    axes.set_title(chart.title)
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)


def _png_of_figure(figure: Any) -> bytes:
    buffer = importlib.import_module("io").BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return bytes(buffer.getvalue())
