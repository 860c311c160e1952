"""The training bar."""

from __future__ import annotations

import io
import itertools
import math
import sys
import threading
import time
import types

import pytest

from colabkit.notebook import TrainingBar, say
from colabkit.notebook.bar import REFRESH_PERIOD_S
from colabkit.notebook.screens import LOG_PERIOD_S


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def loss() -> dict[str, str]:
    return {"loss": "0.43", "accuracy": "0.91"}


@pytest.fixture(autouse=True)
def a_capable_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)


def bar_on(stream: io.StringIO, clock: Clock, **options) -> TrainingBar:
    options = {"total_steps": 1000, "steps_per_epoch": 50, "epochs": 20, **options}
    return TrainingBar(stream=stream, clock=clock, **options)


def test_a_terminal_shows_position_values_and_what_is_saved():
    stream, clock = Terminal(), Clock()
    with bar_on(stream, clock, saved=lambda: "saved step 100, 12 s ago · on disk") as bar:
        bar.update(112, 2, loss)
        shown = stream.getvalue().rpartition("\r")[2]
    assert shown.startswith("epoch 3/20 · 12/50 |")
    for words in (" 11%", "left", "step/s", "loss 0.43 · accuracy 0.91 · saved step 100, 12 s ago"):
        assert words in shown
    assert stream.getvalue().endswith("\n")


def test_it_draws_at_most_twice_a_second_and_asks_for_values_only_then():
    stream, clock, asked = Terminal(), Clock(), []

    def values() -> dict[str, str]:
        asked.append(clock.now_s)
        return {}

    bar = bar_on(stream, clock)
    for step in range(1000):
        clock.now_s = 100.0 + step / 100
        bar.update(step, 0, values)
    assert len(asked) == 20
    assert all(b - a >= REFRESH_PERIOD_S for a, b in itertools.pairwise(asked))
    bar.close()
    assert len(asked) == 21


def test_due_says_whether_an_update_would_be_drawn():
    clock = Clock()
    bar = bar_on(Terminal(), clock)
    assert bar.due(clock.now_s)
    bar.update(1, 0, loss)
    assert not bar.due(clock.now_s + REFRESH_PERIOD_S / 2)
    assert bar.due(clock.now_s + REFRESH_PERIOD_S)
    bar.close()
    assert not bar.due(clock.now_s + 100)


def test_a_log_gets_a_line_every_ten_seconds_at_most():
    stream, clock = io.StringIO(), Clock()
    with bar_on(stream, clock, initial_step=400) as bar:
        for half in range(1, 71):
            clock.now_s = 100.0 + half / 2
            bar.update(400 + half, 8, loss)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 35 // LOG_PERIOD_S + 1
    assert lines[0].startswith(
        "Epoch 9 of 20, batch 20 of 50, step 420 of 1,000, 2.0 steps/s, 4 min left: loss 0.43"
    )
    assert lines[-1].startswith("Epoch 9 of 20, step 470 of 1,000")
    assert all(line.endswith(".") and " · " not in line for line in lines)
    assert "\r" not in stream.getvalue()


def test_a_dumb_terminal_is_a_log(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with bar_on(stream, Clock()) as bar:
        bar.update(1, 0, loss)
    assert "\r" not in stream.getvalue()


def test_without_progress_it_is_silent():
    stream = Terminal()
    with bar_on(stream, Clock(), progress=False) as bar:
        bar.set_length(total_steps=10, steps_per_epoch=5)
        bar.update(1, 0, lambda: pytest.fail("asked for values"))
    assert stream.getvalue() == ""


def test_a_length_unknown_at_first_comes_later():
    stream, clock = Terminal(), Clock()
    with bar_on(stream, clock, total_steps=None, steps_per_epoch=None, epochs=None) as bar:
        bar.update(7, 0, loss)
        assert "epoch 1, 7 steps in" in stream.getvalue()
        bar.set_length(total_steps=40, steps_per_epoch=10)
        clock.now_s += 1
        bar.update(12, 1, loss)
        assert "epoch 2 · 2/10 |" in stream.getvalue()


def test_an_exception_closes_the_bar_and_asks_nobody_for_values():
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), bar_on(stream, Clock()) as bar:  # noqa: PT012
        bar.update(1, 0, loss)
        bar.update(2, 0, lambda: pytest.fail("asked for values"))
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")
    bar.close()


@pytest.mark.parametrize("stream_type", [Terminal, io.StringIO])
def test_training_outlives_a_closed_output(stream_type):
    stream, clock = stream_type(), Clock()
    bar = bar_on(stream, clock)
    bar.update(1, 0, loss)
    stream.close()
    clock.now_s += 20
    bar.update(2, 0, loss)
    bar.update(3, 0, loss)
    bar.close()


def test_a_second_session_counts_its_rate_from_where_it_began():
    stream, clock = io.StringIO(), Clock()
    with bar_on(stream, clock, initial_step=900) as bar:
        clock.now_s += 10
        bar.update(950, 18, loss)
    assert "5.0 steps/s, 10 s left" in stream.getvalue()


def test_no_thread_watches_the_bar():
    before = threading.active_count()
    with bar_on(Terminal(), Clock()) as bar:
        bar.update(1, 0, loss)
        assert threading.active_count() == before


def test_a_sentence_does_not_tear_the_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    with TrainingBar(total_steps=1000) as bar:
        bar.update(1, 0, loss)
        say("Saved.")
        lines = [line.rpartition("\r")[2] for line in screen.getvalue().split("\n")]
    assert lines[0] == "Saved."
    assert lines[1].startswith("epoch 1 |")


def test_a_throttled_update_costs_next_to_nothing():
    bar = TrainingBar(total_steps=100, stream=Terminal())
    bar.update(1, 0, loss)
    best_s = math.inf
    for _ in range(20):
        began_s = time.perf_counter()
        for step in range(1000):
            bar.update(step, 0, loss)
        best_s = min(best_s, (time.perf_counter() - began_s) / 1000)
    bar.close()
    assert best_s < 5e-6, f"{best_s * 1e9:.0f} ns"


def test_a_notebook_without_widgets_gets_a_text_bar(monkeypatch, capsys):
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with TrainingBar(total_steps=10, steps_per_epoch=5, epochs=2) as bar:
        bar.update(5, 1, loss)
    shown = capsys.readouterr()
    assert "epoch 2/2 · 0/5 |" in shown.out
    assert shown.err == ""
