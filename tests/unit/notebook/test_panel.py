"""The panel that a notebook shows of a run."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import html.parser
import itertools
import math
import re

import nbformat
import numpy as np
import pytest

from colabkit.notebook import (
    PanelSources,
    Row,
    Stage,
    ThinnedLine,
    Tone,
    TrainingPanel,
    panel_bounds,
)
from colabkit.notebook.charts import Chart, ticks
from colabkit.notebook.image_grid import small_png
from colabkit.notebook.outlook import Conclusion, ending
from colabkit.notebook.page_notice import notice_script
from colabkit.notebook.panel import REFRESH_PERIOD_S
from colabkit.notebook.panel_html import EpochRows, PanelState, Phase, panel_html, panel_text
from colabkit.notebook.progress import RunProgress

HOSTILE = "<img src=x onerror=alert(1)>\"'&"
AT = datetime.datetime(2026, 1, 2, 14, 3, 12, tzinfo=datetime.UTC)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Page:
    """Stands for the cell's output: keeps every drawing."""

    def __init__(self, clock: Clock | None = None, *, takes_s: float = 0.0) -> None:
        self.begun = 0
        self.drawn: list[dict[str, str]] = []
        self.clock, self.takes_s = clock, takes_s

    def begin(self, bundle):
        self.begun += 1
        self.update(bundle)

    def update(self, bundle):
        self.drawn.append(bundle)
        if self.clock is not None:
            self.clock.now_s += self.takes_s

    @property
    def text(self) -> str:
        return self.drawn[-1]["text/plain"]

    @property
    def html(self) -> str:
        return self.drawn[-1]["text/html"]


class Tags(html.parser.HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.words.append(data)


def panel_on(page: Page, clock: Clock, *, sources=None, **options) -> TrainingPanel:
    sources = sources if sources is not None else PanelSources()
    return TrainingPanel(
        "runs/cats", sources, canvas=page, clock=clock, now=lambda: AT, **{"epochs": 20, **options}
    )


def loss() -> dict[str, str]:
    return {"loss": "0.43"}


def test_it_shows_place_pace_values_saves_curves_and_machine():
    page, clock = Page(), Clock()
    sources = PanelSources(
        stages=lambda: [Stage("this machine", 110, 2.0), Stage("Drive", 100, 62.0)],
        charts=lambda: [Chart("loss", {"loss": [(1.0, 2.0), (112.0, 0.43)]}, unit="step")],
        rows=lambda: [Row("GPU", "Tesla T4, 3.1 GB of 15.0 GB, 87% busy")],
    )
    panel = panel_on(page, clock, sources=sources)
    panel.set_length(total_steps=1000, steps_per_epoch=50)
    panel.note("Resume is exact.")
    clock.now_s += 10
    panel.update(112, 2, loss)
    for words in (
        "runs/cats",
        "training",
        "epoch 3/20 · 12/50",
        "step 112 of 1,000",
        "11%",
        "11.2 steps/s",
        "1 min left",
        "0.43",
        "step 110, 2 s ago",
        "step 100, 1 min ago",
        "Tesla T4, 3.1 GB of 15.0 GB, 87% busy",
        "Resume is exact.",
    ):
        assert words in " ".join(Tags(page.html).words)
    lines = page.text.splitlines()
    assert lines[0].startswith("runs/cats: training, epoch 3 of 20, batch 12 of 50, step 112 of")
    assert lines[1:3] == [
        "Finishes about 14:04 UTC.",
        "If the machine went now: 10 s of work lost.",
    ]
    assert lines[3].startswith("The newest values: loss 0.43")
    assert "Saved (this machine): step 110, 2 s ago." in lines
    assert "GPU: Tesla T4, 3.1 GB of 15.0 GB, 87% busy." in lines
    assert all(line.endswith(".") or line.startswith("As of") for line in lines)
    assert "<polyline" in page.html
    assert 'aria-valuenow="11.2"' in page.html


AGAIN = "run the notebook again and it goes on."
ENDINGS = {
    "today": ({"left_s": 3600}, "Finishes about 15:03 UTC.", Tone.PLAIN),
    "tomorrow": ({"left_s": 36_000}, "Finishes about 00:03 UTC tomorrow.", Tone.PLAIN),
    "this week": ({"left_s": 3 * 86_400}, "Finishes about 14:03 UTC on Monday.", Tone.PLAIN),
    "some day": ({"left_s": 30 * 86_400}, "Finishes about 14:03 UTC on 2026-02-01.", Tone.PLAIN),
    "in good time": (
        {"left_s": 3600, "machine_left_s": 7200},
        "Finishes about 15:03 UTC.",
        Tone.PLAIN,
    ),
    "too late": (
        {"left_s": 7300, "machine_left_s": 7200},
        f"Will not finish before this machine goes (about 16:03 UTC): {AGAIN}",
        Tone.NOTE,
    ),
    "on a machine past its time": (
        {"left_s": 60, "machine_left_s": 0.0},
        f"Will not finish before this machine goes (at any moment): {AGAIN}",
        Tone.NOTE,
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_it_says_when_it_will_end_or_that_the_machine_goes_before(name):
    known, words, tone = ENDINGS[name]
    given = {"elapsed_s": 20.0, "machine_left_s": None, "now": AT, **known}
    assert ending(**given) == Conclusion(words, tone)
    for unknown in ({"elapsed_s": 9.0}, {"left_s": None}, {"now": None}):
        assert ending(**{**given, **unknown}) is None


def test_what_a_session_before_left_on_this_machine_alone_would_be_lost_too_nobody_knows_how_much():
    state = PanelState(
        title="runs/cats",
        progress=RunProgress(step=112),
        elapsed_s=20.0,
        stages=(Stage("this machine", 100, 90.0), Stage("Drive", none="nothing since step 100")),
    )
    assert state.conclusions() == []
    assert "nothing since step 100" in panel_html(state)


RISKS = {
    "all is safe": (Stage("Drive", 112, 4.0), "0 s", Tone.GOOD),
    "some seconds": (Stage("Drive", 100, 4.0), "4 s", Tone.GOOD),
    "many minutes": (Stage("Drive", 100, 400.0), "6 min", Tone.NOTE),
    "too much": (Stage("Drive", 100, 1000.0), "16 min", Tone.BAD),
    "nothing is safe": (Stage("Drive"), "20 min", Tone.BAD),
    "what a session before has saved": (Stage("Drive", 100, 90_000.0), "20 min", Tone.BAD),
}


@pytest.mark.parametrize("name", RISKS)
def test_it_says_what_would_be_lost_by_the_safest_place(name):
    stage, lost, tone = RISKS[name]
    state = PanelState(
        title="runs/cats",
        progress=RunProgress(step=112),
        elapsed_s=1200.0,
        stages=(Stage("this machine", 112, 1.0), stage),
    )
    assert state.conclusions() == [
        Conclusion(f"If the machine went now: {lost} of work lost.", tone)
    ]
    assert f'class="ck-{tone.value}">If the machine went now' in panel_html(state)
    ended = dataclasses.replace(state, phase=Phase.FINISHED)
    assert ended.conclusions() == []


def test_the_pace_of_the_whole_session_says_when_it_ends():
    page, clock = Page(), Clock()
    panel = panel_on(page, clock)
    panel.set_length(total_steps=2000, steps_per_epoch=100)
    for second in range(1, 101):
        clock.now_s = 100.0 + second
        # Nothing in the first half, as in a long validation; 20 steps a second after it.
        panel.update(max(0, second - 50) * 20, 0, loss)
    assert "20.0 steps/s" in page.text
    assert "1 min left" in page.text
    assert "Finishes about 14:04 UTC." in page.text


def test_a_validation_shows_that_it_goes_on():
    page, clock = Page(), Clock()
    panel = panel_on(page, clock)
    clock.now_s += 1
    panel.busy_with("validating, batch 3 of 40")
    assert "validating, batch 3 of 40" in page.html
    assert "runs/cats: validating, batch 3 of 40" in page.text
    clock.now_s += 1
    panel.update(1, 0, loss)
    assert "validating" not in page.html


def test_the_newest_epochs_are_a_table_with_the_best_marked():
    rows = [{"epoch": 3, "loss": 0.5, "took": "4 s"}, {"epoch": 9, "loss": 0.75, "took": "4 s"}]
    state = PanelState(title="", progress=RunProgress(), epochs=EpochRows(rows, best=0))
    page = panel_html(state)
    assert '<tr class="ck-best"><td>3</td><td>0.50</td><td>4 s</td><td>best</td></tr>' in page
    assert "<tr><td>9</td><td>0.75</td><td>4 s</td></tr>" in page
    wide = EpochRows([{f"value {n}": n for n in range(50)}])
    assert len(wide.columns) == 8


def drawn(points: list[tuple[float, float]], **more) -> str:
    return panel_html(
        PanelState(
            title="", progress=RunProgress(), charts=[Chart("loss", {"loss": points}, **more)]
        )
    )


def test_a_noisy_line_is_drawn_smooth_over_itself():
    noisy = [(float(x), 5.0 + (-1) ** x) for x in range(96)]
    page = drawn(noisy)
    behind, smooth = (line.split('"')[0] for line in page.split('points="')[1:])
    assert len(behind.split()) == 96
    assert len(smooth.split()) < 60
    heights = [float(corner.split(",")[1]) for corner in smooth.split()][3:-3]
    assert max(heights) - min(heights) < 15
    assert page.count("<polyline") == 2
    assert drawn(noisy[:20]).count("<polyline") == 1


def test_an_axis_shows_the_newest_half_or_powers_where_the_beginning_is_far_off():
    falling = [(float(x), 100.0 / x) for x in range(1, 96)]
    assert "logarithmic" in drawn(falling)
    assert ">10<" in drawn(falling)
    steep = [(float(x), 4.0 + 20.0 * (x < 5) + 0.5 * math.sin(x)) for x in range(96)]
    page = drawn(steep)
    assert "of the newest half" in page
    assert 'points="46' not in page
    assert ">4<" in page
    flat = drawn([(float(x), 4.0 + math.sin(x)) for x in range(96)])
    assert "newest half" not in flat
    assert "logarithmic" not in flat


def test_resumes_are_named_and_the_best_epoch_is_ringed():
    line = [(float(x), 1.0) for x in range(20)]
    assert ">resumed<title>" not in drawn(line)
    assert "resumed 2×" in drawn(line, marks=[3.0, 15.0])
    assert "best epoch" in drawn(line, best=(7.0, 1.0))
    assert "best epoch" not in drawn(line)


def test_it_is_drawn_in_one_place_and_at_most_twice_a_second():
    page, clock, times = Page(), Clock(), []
    panel = panel_on(page, clock)
    for step in range(1000):
        clock.now_s = 100.0 + step / 100
        before = len(page.drawn)
        panel.update(step, 0, loss)
        times += [clock.now_s] * (len(page.drawn) - before)
    assert page.begun == 1
    assert len(times) == 20
    assert all(b - a >= REFRESH_PERIOD_S for a, b in itertools.pairwise(times))


def test_a_slow_page_is_drawn_more_rarely_so_that_training_loses_half_a_percent():
    clock = Clock()
    page = Page(clock, takes_s=0.05)
    panel = panel_on(page, clock)
    began_s = clock.now_s
    for step in range(10_000):
        panel.update(step, 0, loss)
        clock.now_s += 0.01
    assert len(page.drawn) * 0.05 <= 0.006 * (clock.now_s - began_s) + 0.05


def test_the_rate_is_that_of_lately_and_in_the_end_that_of_the_session():
    page, clock = Page(), Clock()
    panel = panel_on(page, clock, initial_step=500)
    for second in range(1, 101):
        clock.now_s = 100.0 + second
        panel.update(500 + second * (1 if second <= 50 else 3) - (second > 50) * 100, 0, loss)
    assert "3.0 steps/s" in page.text
    panel.close()
    assert "2.0 steps/s" in page.text


@pytest.mark.parametrize(
    ("step", "length", "words"),
    [(100, 100, "finished"), (40, 100, "stopped before its end"), (40, None, "ended")],
)
def test_what_is_left_standing_says_how_it_ended_and_when(step, length, words):
    page, clock = Page(), Clock()
    sources = PanelSources(stages=lambda: [Stage("Drive", 40, 72.0)])
    panel = panel_on(page, clock, sources=sources)
    panel.set_length(total_steps=length, steps_per_epoch=length)
    panel.update(step, 0, loss)
    panel.close()
    panel.close()
    assert page.text.startswith(f"runs/cats: {words}")
    assert "saved 14:02:00" in page.text
    assert "As of 2026-01-02 14:03:12 UTC." in page.html
    assert " ago" not in page.html
    assert len(page.drawn) == 2
    assert not panel.due(1e12)


def test_notes_are_kept_to_the_newest_few():
    page, clock = Page(), Clock()
    panel = panel_on(page, clock, notes=["Resume is exact."])
    for number in range(1000):
        panel.note(f"Note {number}.")
    panel.update(1, 0, loss)
    assert "Note 999." in page.html
    assert "Note 900." not in page.html
    assert len(panel.notes) <= 20


def test_the_newest_images_are_shown_and_stay_small():
    clock = Clock()
    page = Page(clock)
    panel = panel_on(page, clock)
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    for step in (1, 2):
        panel.show(images, f"{HOSTILE}, step {step}")
    panel.update(2, 0, loss)
    assert page.html.count("data:image/png;base64,iVBOR") == 1
    assert HOSTILE not in page.html
    assert "step 1" not in page.html
    assert "The newest images:" in page.text
    assert len(page.html) < 45_000


def test_every_word_from_outside_stays_text():
    state = PanelState(
        title=HOSTILE,
        progress=RunProgress(total_steps=2),
        phase=Phase.STOPPED,
        values={HOSTILE: HOSTILE},
        stages=(Stage(HOSTILE, 3, 1.0, Tone.BAD, HOSTILE),),
        charts=(Chart(HOSTILE, {HOSTILE: [(1.0, 2.0)]}, unit=HOSTILE, marks=[1.0]),),
        rows=(Row(HOSTILE, HOSTILE, Tone.NOTE, HOSTILE),),
        notes=(HOSTILE,),
        drawn_at=AT,
    )
    shown = Tags(panel_html(state))
    assert "img" not in shown.names
    assert "script" not in shown.names
    assert "".join(shown.words).count(HOSTILE) >= 8
    assert HOSTILE in panel_text(state)


def saved_bytes(bundle: dict[str, str]) -> int:
    """What a panel takes in a saved notebook, as nbformat writes it."""
    output = nbformat.v4.new_output("display_data", bundle)
    cell = nbformat.v4.new_code_cell("", outputs=[output])
    return len(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])).encode())


def crowded(count: int) -> PanelSources:
    names = [f"métrique {n}" for n in range(count)]
    line = [(x * 1234.5, math.sin(x) / 3) for x in range(64)]
    charts = [
        Chart(n, {n: line, f"val_{n}": line}, unit="step", marks=[5.0] * 20, best=line[3])
        for n in names
    ]
    rows = EpochRows([dict.fromkeys(names, 0.1234)] * 5, best=2)
    return PanelSources(charts=lambda: charts, epochs=lambda: rows)


@pytest.mark.parametrize("count", [1, 3, 6, 200])
@pytest.mark.parametrize("has_images", [False, True])
def test_whatever_a_run_shows_its_panel_stays_below_25_kb_in_the_saved_notebook(count, has_images):
    page, clock = Page(), Clock()
    notes = ['A sentence of "some" length, said again and again.' * 20] * 1000
    panel = panel_on(page, clock, sources=crowded(count), notes=notes)
    values = {f"métrique {n}": "0.1234" for n in range(count)}
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    for step in range(3):
        if has_images:
            panel.show(images, f"samples, step {step}")
        clock.now_s += 10
        panel.update(step, 0, lambda: values)
        assert saved_bytes(page.drawn[-1]) < 25_000
    assert (f"samples, step {step}" in page.html) == has_images
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page.html)
    assert len(pictures) == has_images
    assert all(base64.b64decode(each).startswith(b"\x89PNG") for each in pictures)


def test_a_picture_is_made_once_however_often_it_is_drawn(monkeypatch):
    made = []
    monkeypatch.setattr(
        panel_bounds, "small_png", lambda *a, **k: made.append(1) or small_png(*a, **k)
    )
    page, clock = Page(), Clock()
    panel = panel_on(page, clock)
    panel.show(np.zeros((4, 8, 8, 1), np.uint8), "first")
    panel.show(np.zeros((4, 8, 8, 1), np.uint8), "second")
    for step in range(4):
        clock.now_s += 10
        panel.update(step, 0, dict)
    assert len(page.drawn) == 4
    assert "second" in page.text
    assert made == [1]


def test_a_small_panel_leaves_nothing_out():
    page, clock = Page(), Clock()
    panel = panel_on(page, clock, sources=crowded(2), notes=["One.", "Two."])
    clock.now_s += 10
    panel.update(1, 0, lambda: {"loss": "0.5"})
    assert page.html.count("<polyline") == 8  # two lines a chart, each with its smooth one
    assert len(re.findall(r"[\d.]+,[\d.]+", page.html.partition("<polyline")[2])) > 4 * 64
    assert "One." in page.text


def test_the_page_is_told_of_the_end_of_a_run_that_took_a_while_and_of_nothing_else():
    page, clock = Page(), Clock()
    panel = panel_on(page, clock)
    panel.set_length(total_steps=40, steps_per_epoch=2)
    clock.now_s += 60
    panel.update(20, 10, dict)
    assert "<script" not in page.html
    panel.update(40, 20, dict)
    panel.close()
    assert page.html.count("<script>") == page.html.count("</script>") == 1
    assert 'const words = "runs/cats: finished";' in page.html
    assert f"Date.now() - {round(AT.timestamp() * 1000)}" in page.html
    assert "<script" not in page.text


def test_a_run_of_seconds_tells_the_page_nothing_and_one_that_was_stopped_says_so():
    for took_s, told in ((5, False), (60, True)):
        page, clock = Page(), Clock()
        panel = panel_on(page, clock)
        panel.set_length(total_steps=40, steps_per_epoch=2)
        clock.now_s += took_s
        panel.update(20, 10, dict)
        panel.close()
        assert ("runs/cats: stopped before its end" in page.html) == told


def test_no_name_of_a_run_breaks_out_of_the_script():
    script = notice_script("</script><!--<script>\"'\u2028", sent_s=1.0)
    assert script.count("<") == 2  # those that begin and end it


def test_a_thinned_line_keeps_the_mean_of_all_and_a_few_hundred_points():
    line, values = ThinnedLine(), np.sin(np.arange(100_000) / 5000)
    for first in range(0, 100_000, 777):
        line.extend(first, values[first : first + 777])
    points = line.points()
    assert 120 <= len(points) <= 240
    assert points[-1][0] == 100_000
    xs, ys = np.array(points[:-1]).T
    assert np.abs(ys - np.sin((xs - 1) / 5000)).max() < 0.01


def test_a_thinned_line_is_the_same_however_it_is_fed():
    values = np.random.default_rng(0).normal(size=5000)
    whole, piecewise = ThinnedLine(), ThinnedLine()
    whole.extend(0, values)
    for step, value in enumerate(values):
        piecewise.extend(step, np.array([value]))
    assert np.allclose(whole.points(), piecewise.points())


def test_a_thinned_line_leaves_out_what_is_no_number():
    line = ThinnedLine()
    line.extend(0, np.array([1.0, math.nan, math.inf, 4.0]))
    line.extend(4, np.array([math.nan]))
    assert line.points() == [(1.0, 1.0), (4.0, 4.0)]


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.9), (0.013, 2.4), (-3.0, 7.0), (0, 123_456)])
def test_ticks_are_a_few_round_values_inside(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 6
    assert low <= found[0]
    assert found[-1] <= high


def test_ticks_of_nothing_are_one():
    assert ticks(1.5, 1.5) == [1.5]
    assert ticks(0.0, math.inf) == [0.0]
