"""Line charts as SVG: inside the theme, or on their own with a white ground."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Mapping, Sequence

from colabkit.notebook.theme import LIGHT, colour
from colabkit.notebook.words import value_words

WIDTH, HEIGHT = 280, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 272, 26, 136
_LEGEND = 124
_COLOURS = ("accent", "second")
_NAME_LENGTH = 22
_THOUSAND, _MILLION = 1e3, 1e6

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """One value, and its validation twin where there is one.

    Attributes:
        title: Name of the value.
        lines: Points by name, ordered by x; all of them finite.
        unit: What is counted along x: "epoch" or "step".
        marks: Where the run was resumed, in the same unit.
    """

    title: str
    lines: Mapping[str, Points]
    unit: str = "epoch"
    marks: Sequence[float] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Axis:
    """Places values between two ends."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.begin + share * (self.end - self.begin), 1)


def charts_html(charts: Sequence[Chart]) -> str:
    """Returns charts side by side, for use inside the theme."""
    drawn = "".join(
        f'<svg role="img" aria-label="{html.escape(chart.title, quote=True)}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-size="11">'
        f"{chart_body(chart, colour)}</svg>"
        for chart in charts
    )
    return f'<div class="ck-charts">{drawn}</div>' if drawn else ""


CHARTS_CSS = (
    ".colabkit .ck-charts{display:flex;flex-wrap:wrap;gap:8px 12px;margin-top:8px}"
    ".colabkit .ck-charts svg{flex:1 1 248px;min-width:0;max-width:340px;height:auto;"
    "font-family:inherit}"
)


def charts_svg(charts: Sequence[Chart], *, columns: int = 3) -> str:
    """Returns charts as one SVG that stands on its own."""
    across = min(columns, max(1, len(charts)))
    width, height = across * WIDTH, max(1, math.ceil(len(charts) / columns)) * HEIGHT
    drawn = "".join(
        f'<g transform="translate({place % columns * WIDTH},{place // columns * HEIGHT})">'
        f"{chart_body(chart, lambda name: str(getattr(LIGHT, name)))}</g>"
        for place, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="{LIGHT.back}"/>{drawn}</svg>'
    )


def chart_body(chart: Chart, paint: Callable[[str], str]) -> str:
    """Returns what is inside a chart's frame of 280 × 180.

    Args:
        chart: What to draw.
        paint: Gives the colour for a name of the palette.
    """
    points = [point for line in chart.lines.values() for point in line]
    low, high = min((y for _, y in points), default=0.0), max((y for _, y in points), default=1.0)
    levels = ticks(low, high)
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    across = _Axis(0.0, max((x for x, _ in points), default=1.0), _LEFT, _RIGHT)
    down = _Axis(low, high, _BOTTOM, _TOP)
    parts = [_text(_LEFT, 16, chart.title, paint("text"), weight="600")]
    parts += _grid(across, down, levels, chart.unit, paint)
    parts += [_mark(across(x), paint("note")) for x in chart.marks if 0 <= x <= across.high]
    for number, (name, line) in enumerate(chart.lines.items()):
        shade = paint(_COLOURS[number % len(_COLOURS)])
        parts.append(_line(line, across, down, shade))
        words = f"{name} {value_words(line[-1][1])}" if line else name
        parts.append(_text(_LEFT - 16 + _LEGEND * number, HEIGHT - 10, words, shade))
    # Who reads a page without its drawings reads the words one by one.
    return " ".join(parts)


def _grid(
    across: _Axis, down: _Axis, levels: Sequence[float], unit: str, paint: Callable[[str], str]
) -> list[str]:
    lines = [f"M{_LEFT},{down(y)}H{_RIGHT}" for y in levels]
    parts = [f'<path d="{"".join(lines)}M{_LEFT},{_BOTTOM}H{_RIGHT}" stroke="{paint("edge")}"/>']
    muted = paint("muted")
    parts += [_text(_LEFT - 6, down(y) + 4, _short(y), muted, anchor="end") for y in levels]
    whole = [x for x in ticks(0.0, across.high) if x == int(x) and x < across.high * 0.7]
    parts += [_text(across(x), _BOTTOM + 14, _short(x), muted, anchor="middle") for x in whole]
    end = f"{unit} {_short(across.high)}"
    return [*parts, _text(_RIGHT, _BOTTOM + 14, end, muted, anchor="end")]


def _line(line: Points, across: _Axis, down: _Axis, shade: str) -> str:
    corners = " ".join(f"{across(x)},{down(y)}" for x, y in line)
    parts = [f'<polyline points="{corners}" fill="none" stroke="{shade}" stroke-width="1.6"/>']
    if line:
        x, y = line[-1]
        parts.append(f'<circle cx="{across(x)}" cy="{down(y)}" r="2.6" fill="{shade}"/>')
    return "".join(parts)


def _mark(x: float, shade: str) -> str:
    return (
        f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_BOTTOM}" stroke="{shade}"'
        ' stroke-dasharray="2 3"><title>resumed</title></line>'
    )


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """Returns a few round values from ``low`` to ``high``.

    Example:
        >>> ticks(0.0, 0.87)
        [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if rough <= 1.25 * m * power), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _short(value: float) -> str:
    size = abs(value)
    if size >= _MILLION:
        return f"{value / _MILLION:.4g}M" if size < _MILLION * _THOUSAND else f"{value:.2g}"
    return f"{value / _THOUSAND:.4g}k" if size >= 10 * _THOUSAND else f"{value:.4g}"


def _text(
    x: float, y: float, words: str, shade: str, *, anchor: str = "start", weight: str = ""
) -> str:
    shown = words if len(words) <= _NAME_LENGTH else f"{words[: _NAME_LENGTH - 1]}…"
    whole = "" if shown == words else f"<title>{html.escape(words)}</title>"
    bold = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{bold} fill="{shade}">'
        f"{html.escape(shown)}{whole}</text>"
    )
