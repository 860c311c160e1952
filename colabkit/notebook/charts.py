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
_MANY, _SMOOTHED_FROM, _MARKS_MAX = 20, 32, 12
_LOG_FROM, _FAR_OFF = 30.0, 4.0

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """One value, and its validation twin where there is one.

    Attributes:
        title: Name of the value.
        lines: Points by name, ordered by x; all of them finite.
        unit: What is counted along x: "epoch" or "step".
        marks: Where the run was resumed, in the same unit.
        best: The point of the best epoch, None for none.
    """

    title: str
    lines: Mapping[str, Points]
    unit: str = "epoch"
    marks: Sequence[float] = ()
    best: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Axis:
    """Places values between two ends."""

    low: float
    high: float
    begin: float
    end: float

    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / ((high - low) or 1.0)
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
    across = _Axis(0.0, max((x for x, _ in points), default=1.0), _LEFT, _RIGHT)
    down, remark = _down(points, end=across.high)
    parts = [_text(_LEFT, 16, chart.title, paint("text"), weight="600")]
    if remark:
        parts.append(_text(_RIGHT, 16, remark, paint("muted"), anchor="end"))
    parts += _grid(across, down, _levels(down, points), chart.unit, paint)
    for number, (name, line) in enumerate(chart.lines.items()):
        shade = paint(_COLOURS[number % len(_COLOURS)])
        is_behind = len(line) >= _SMOOTHED_FROM
        parts.append(_line(_entering(line, down), across, down, shade, is_behind=is_behind))
        if is_behind:
            parts.append(_line(_entering(_smoothed(line), down), across, down, shade))
        if len(chart.lines) > 1 or name != chart.title:
            words = f"{name} {value_words(line[-1][1])}" if line else name
            parts.append(_text(_LEFT - 16 + _LEGEND * number, HEIGHT - 10, words, shade))
    # Above the lines, on a ground of their own.
    parts += _marks([across(x) for x in chart.marks if 0 <= x <= across.high], paint)
    if chart.best is not None:
        x, y = across(chart.best[0]), down(chart.best[1])
        parts.append(
            f'<circle cx="{x}" cy="{y}" r="4.5" fill="none" stroke="{paint("good")}"'
            ' stroke-width="2"><title>best epoch</title></circle>'
        )
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


def _down(points: Points, *, end: float) -> tuple[_Axis, str]:
    """Returns the axis of the values, and its remark where it is no plain one.

    A beginning that is far off would press all the rest into a line at the bottom.
    """
    low, high = min((y for _, y in points), default=0.0), max((y for _, y in points), default=1.0)
    if low == high:
        return _Axis(low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2, _BOTTOM, _TOP), ""
    newer = [y for x, y in points if x >= end / 2]
    if len(points) >= _MANY and newer:
        if low > 0 and high >= _LOG_FROM * low:
            return _Axis(low, high, _BOTTOM, _TOP, is_log=True), "logarithmic"
        span = max(newer) - min(newer)
        if 0 < span < (high - low) / _FAR_OFF:
            low, high = max(low, min(newer) - span / 4), min(high, max(newer) + span / 4)
            return _Axis(low, high, _BOTTOM, _TOP), "of the newest half"
    return _Axis(low, high, _BOTTOM, _TOP), ""


def _entering(line: Points, axis: _Axis) -> Points:
    """Returns a line from where it comes into the axis on, and from its last point at least."""
    first = next((n for n, (_, y) in enumerate(line) if axis.low <= y <= axis.high), len(line) - 1)
    return line[max(0, first) :]


def _levels(axis: _Axis, points: Points) -> list[float]:
    """Returns the values that have a line of the grid."""
    if not axis.is_log:
        ys = [y for _, y in points]
        return ticks(axis.low, axis.high) if not ys or min(ys) < max(ys) else ys[:1]
    first, last = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
    every = max(1, math.ceil((last - first + 1) / 5))
    return [10.0**power for power in range(first, last + 1, every)]


def _smoothed(line: Points) -> Points:
    """Returns the running means of a line, of fewer points."""
    end, half = len(line) - 1, max(2, len(line) // 16)
    smooth = []
    for place in [*range(0, end, max(1, half // 2)), end]:
        # As far to one side as to the other, or it would lag behind at the ends.
        reach = min(half, place, end - place)
        near = line[place - reach : place + reach + 1]
        smooth.append((line[place][0], sum(y for _, y in near) / len(near)))
    return smooth


def _line(line: Points, across: _Axis, down: _Axis, shade: str, *, is_behind: bool = False) -> str:
    corners = " ".join(f"{across(x):g},{down(y):g}" for x, y in line)
    look = 'stroke-width="1" opacity=".4"' if is_behind else 'stroke-width="1.6"'
    parts = [f'<polyline points="{corners}" fill="none" stroke="{shade}" {look}/>']
    if line and not is_behind:
        x, y = line[-1]
        parts.append(f'<circle cx="{across(x)}" cy="{down(y)}" r="2.6" fill="{shade}"/>')
    return "".join(parts)


def _marks(places: Sequence[float], paint: Callable[[str], str]) -> list[str]:
    """Returns a dotted line for each resume, the newest with its word."""
    shade = paint("note")
    drawn = [
        f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_BOTTOM}" stroke="{shade}"'
        ' stroke-dasharray="2 3"><title>resumed</title></line>'
        for x in places[-_MARKS_MAX:]
    ]
    if not places:
        return drawn
    words = "resumed" if len(places) == 1 else f"resumed {len(places)}×"
    is_right = places[-1] > (_LEFT + _RIGHT) / 2
    x, anchor = (places[-1] - 3, "end") if is_right else (places[-1] + 3, "start")
    word = _text(x, _TOP + 8, words, shade, anchor=anchor)
    ground = f'<g stroke="{paint("back")}" stroke-width="3" paint-order="stroke">{word}</g>'
    return [*drawn, ground]


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
    if size >= 10 * _THOUSAND:
        return f"{value / _THOUSAND:.4g}k"
    return f"{value:,.0f}" if size >= _THOUSAND else f"{value:.4g}"


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
