"""A cell whose stop button a training has answered ends before the next thing of ours in it."""

from __future__ import annotations

import itertools
import sys

import pytest

import colabkit
from colabkit.notebook import cell_number, note_stopped, stop_with_cell

_numbers = itertools.count(7100, 10)  # as many cells as no other test has


@pytest.fixture
def cells(monkeypatch) -> list[str]:
    """The cells of a notebook, of which the last one runs."""
    run = [""] * next(_numbers)
    monkeypatch.setattr(sys.modules["__main__"], "In", run, raising=False)
    return run


def test_a_stopped_cell_ends_and_the_next_one_does_not(cells):
    stop_with_cell("nothing")
    note_stopped()
    with pytest.raises(KeyboardInterrupt, match="interrupted: that does not begin"):
        stop_with_cell("that does not begin")
    cells.append("")
    stop_with_cell("nothing")


def test_what_asks_again_in_a_stopped_cell_means_it_but_no_machine_is_given_back(cells):
    note_stopped()
    with pytest.raises(KeyboardInterrupt):
        stop_with_cell("that does not begin")
    stop_with_cell("nothing")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt, match="the machine is kept"):
            colabkit.release()
    note_stopped()
    with pytest.raises(KeyboardInterrupt):
        stop_with_cell("that does not begin either")
    assert cells


def test_a_script_has_no_cells():
    assert cell_number() == 0
    note_stopped()
    stop_with_cell("nothing")
