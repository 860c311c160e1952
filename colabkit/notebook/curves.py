"""Curves of a run over its epochs, with a mark where it was resumed."""

from __future__ import annotations

import dataclasses
import html
import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from colabkit.notebook.words import value_words

_COLOURS = ("#3567b8", "#d1602f")
_WIDTH, _HEIGHT, _MARGIN = 320, 200, 44
_PANELS_IN_ROW = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """One value, and its validation twin where there is one.

    Attributes:
        title: Name of the value.
        lines: Points (epoch from 1, value) by name; values that are not finite are left out.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclasses.dataclass(frozen=True, slots=True)
class SvgCurves:
    """Curves drawn as SVG, shown by a notebook as the last value of a cell."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return "<curves: the last value of a notebook cell is drawn>"


def panels_of(history: Mapping[str, Sequence[float]]) -> list[Panel]:
    """Groups values by epoch into panels, each with its "val_" twin."""
    titles = dict.fromkeys(name.removeprefix("val_") for name in history)
    return [
        Panel(title, {name: _points(history[name]) for name in names})
        for title in titles
        if (names := [name for name in (title, f"val_{title}") if name in history])
    ]


def plot_history(
    history: Mapping[str, Sequence[float]], *, resumed_at: Sequence[float] = ()
) -> Any:
    """Draws one panel per value, with matplotlib where it is installed, else as SVG.

    Args:
        history: Values by name, one per epoch.
        resumed_at: Where the run was resumed, in epochs done.

    Returns:
        A matplotlib ``Figure`` or an ``SvgCurves``; both are drawn by a notebook.
    """
    panels = panels_of(history)
    if not panels or importlib.util.find_spec("matplotlib") is None:
        return SvgCurves(_svg(panels, resumed_at))
    return _figure(panels, resumed_at)


def svg_curves(history: Mapping[str, Sequence[float]], *, resumed_at: Sequence[float] = ()) -> str:
    """Returns the same curves as inline SVG."""
    return _svg(panels_of(history), resumed_at)


def _points(values: Sequence[float]) -> list[tuple[float, float]]:
    return [(n, float(y)) for n, y in enumerate(values, start=1) if math.isfinite(y)]


def _figure(panels: Sequence[Panel], resumed_at: Sequence[float]) -> Any:
    base = importlib.import_module("matplotlib.figure").Figure
    # Not made by pyplot: a notebook would draw it twice, and a script would keep it forever.
    columns = min(_PANELS_IN_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = type("HistoryFigure", (base,), {"_repr_png_": _png_of_figure})(
        figsize=(4.2 * columns, 3.2 * rows), layout="constrained"
    )
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        for (name, points), colour in zip(panel.lines.items(), _COLOURS, strict=False):
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=colour,
                label=name,
                marker="o" if len(points) == 1 else None,
            )
        for place, x in enumerate(resumed_at):
            axes.axvline(
                x, color="0.6", linestyle=":", linewidth=1, label=None if place else "resumed"
            )
        axes.set_title(panel.title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    return figure


def _png_of_figure(figure: Any) -> bytes:
    buffer = importlib.import_module("io").BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return bytes(buffer.getvalue())


def _svg(panels: Sequence[Panel], resumed_at: Sequence[float]) -> str:
    width = min(_PANELS_IN_ROW, max(1, len(panels))) * _WIDTH
    height = max(1, math.ceil(len(panels) / _PANELS_IN_ROW)) * _HEIGHT
    drawn = "".join(
        f'<g transform="translate({place % _PANELS_IN_ROW * _WIDTH},'
        f'{place // _PANELS_IN_ROW * _HEIGHT})">{_svg_panel(panel, resumed_at)}</g>'
        for place, panel in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{drawn}</svg>'
    )


def _svg_panel(panel: Panel, resumed_at: Sequence[float]) -> str:
    points = [point for line in panel.lines.values() for point in line] or [(1.0, 0.0)]
    last = max(2.0, *(x for x, _ in points))
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + x / last * (_WIDTH - 2 * _MARGIN)
        return round(across, 1), round(_HEIGHT - _MARGIN - (y - low) / span * 116, 1)

    bottom, top = _HEIGHT - _MARGIN, _HEIGHT - _MARGIN - 116
    parts = [_text(_WIDTH / 2, 16, panel.title, anchor="middle")]
    for x in resumed_at:
        across = place(x, low)[0]
        parts.append(
            f'<line x1="{across}" x2="{across}" y1="{top}" y2="{bottom}" stroke="#999"'
            ' stroke-dasharray="2 3"><title>resumed</title></line>'
        )
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number]
        corners = " ".join("{},{}".format(*place(x, y)) for x, y in line)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}"/>')
        if line:
            across, down = place(*line[-1])
            parts.append(f'<circle cx="{across}" cy="{down}" r="2" fill="{colour}"/>')
        parts.append(_text(_MARGIN + 110 * number, _HEIGHT - 6, name, colour=colour))
    parts += [
        f'<path d="M{_MARGIN},{top}V{bottom}H{_WIDTH - _MARGIN}" fill="none" stroke="#333"/>',
        _text(_MARGIN - 4, top + 4, value_words(high), anchor="end"),
        _text(_MARGIN - 4, bottom + 4, value_words(low), anchor="end"),
        _text(_WIDTH - _MARGIN, bottom + 14, f"epoch {last:g}", anchor="middle"),
    ]
    return "".join(parts)


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#333") -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>'
    )
