"""Numbers, sentences and tables as a person reads them."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from colabkit.notebook import (
    Printed,
    Silent,
    duration_words,
    html_table,
    in_notebook,
    saved_words,
    text_table,
    value_words,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"),
        (9000, "2 h 30 min"), (86399, "23 h 59 min"), (200000, "2 d"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_its_largest_unit(seconds, words):
    assert duration_words(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(1e-7, "1e-07"), (12345.678, "1.235e+04"), (True, "True"), (None, "–"), ("a", "a"),
     (float("nan"), "nan"), (float("-inf"), "-inf"), (2, "2")],
)  # fmt: skip
def test_a_value_is_told_briefly(value, words):
    assert value_words(value) == words


def test_the_newest_save_is_told_briefly():
    assert saved_words(step=1400, age_s=75, place="on Drive") == (
        "saved step 1,400, 1 min ago · on Drive"
    )


def test_a_text_table_is_aligned_and_may_have_no_rows():
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 12}]
    assert text_table(rows, columns=["epoch", "loss"]) == ("epoch  loss\n    1   0.5\n   12     –")
    assert text_table([], columns=["epoch"]) == "epoch"


def test_an_html_table_escapes_names_and_values():
    table = html_table([{"<b>": "<script>&"}], columns=["<b>"])
    assert "<tr><th>&lt;b&gt;</th></tr><tr><td>&lt;script&gt;&amp;</td></tr></table>" in table
    assert "<script>" not in table


def test_printed_says_and_silent_does_not(capsys):
    Printed().say("One.")
    Silent().say("Two.")
    assert capsys.readouterr().out == "One.\n"


def test_plain_python_is_no_notebook_and_loads_no_ipython():
    code = (
        "import sys, colabkit.notebook as n;"
        "print(n.in_notebook(), 'IPython' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [(None, False), (types.SimpleNamespace(), False), (types.SimpleNamespace(kernel=1), True)],
)
def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch, shell, expected):
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert in_notebook() is expected
