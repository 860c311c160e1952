"""Numbers, sentences and tables as a person reads them."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import types

import pytest

from colabkit.notebook import (
    Printed,
    Reader,
    Silent,
    duration_words,
    html_table,
    in_notebook,
    messages,
    reader,
    redraws,
    said_if_it_lasts,
    saved_words,
    silence_s,
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


class ColabsShell:
    """Stands for the shell of google.colab, by which it is known."""

    __module__ = "google.colab._shell"
    kernel = object()

    def __init__(self, **metadata: object) -> None:
        self.parent_header = {"metadata": metadata}


class HeirOfColabsShell(ColabsShell):
    __module__ = "somewhere.else"


PAGES = {"colab": {"cell_id": "x1"}}
EDITORS = {"cellId": "vscode-notebook-cell:/home/me/cats.ipynb#W0sZmlsZQ=="}


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        (None, Reader.NONE),
        (types.SimpleNamespace(), Reader.NONE),
        (types.SimpleNamespace(kernel=1), Reader.EDITOR),
        (ColabsShell(**PAGES), Reader.PAGE),
        (HeirOfColabsShell(**PAGES), Reader.PAGE),
        (ColabsShell(**EDITORS), Reader.EDITOR),
        (ColabsShell(), Reader.COMMAND_LINE),
        (ColabsShell(colab=None), Reader.COMMAND_LINE),
    ],
)
def test_who_reads_a_notebook_is_told_by_what_asks_for_its_cells(monkeypatch, shell, expected):
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert reader() is expected
    assert in_notebook() is (expected is not Reader.NONE)
    assert redraws() is (expected in {Reader.PAGE, Reader.EDITOR})


class Heard(io.StringIO):
    """Tells when several lines were written."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines, self.enough = lines, threading.Event()

    def flush(self) -> None:
        if len(self.getvalue().splitlines()) >= self.lines:
            self.enough.set()


@pytest.mark.parametrize(
    ("shell", "lines"), [(ColabsShell(), 3), (ColabsShell(**PAGES), 1), (None, 1)]
)
def test_a_command_line_hears_again_and_again_that_something_is_waited_for(
    monkeypatch, shell, lines
):
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(messages, "LOG_PERIOD_S", 0.001)
    heard = Heard(lines)
    monkeypatch.setattr(sys, "stdout", heard)
    with said_if_it_lasts("Waiting for access.", after_s=0):
        assert heard.enough.wait(300)
    first, *others = heard.getvalue().splitlines()
    assert first == "Waiting for access."
    assert len(others) >= lines - 1
    assert all(line.startswith("Still waiting, for ") for line in others)
    assert silence_s(60) == (0.001 if lines > 1 else 60)


def test_a_sentence_is_in_a_log_at_once(tmp_path, monkeypatch):
    log = tmp_path / "log.txt"
    with log.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        Printed().say("One.")
        assert log.read_text() == "One.\n"
