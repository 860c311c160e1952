"""The list of checkpoints that a notebook shows."""

from __future__ import annotations

import datetime

from colabkit.checkpoint import CheckpointInfo, CheckpointList

AT = datetime.datetime(2026, 1, 2, 14, 3, 12, tzinfo=datetime.UTC)
INFOS = (
    CheckpointInfo("b", step=1234, epoch=3, batch=34, saved_at=AT, nbytes=2_500_000),
    CheckpointInfo("a", step=400, epoch=1, saved_at=AT, metrics={"<loss>": 0.5}, is_best=True),
    CheckpointInfo("c", problem="shard <x> is 3 bytes short"),
)


def test_it_is_a_list():
    found = CheckpointList(INFOS)
    assert found == list(INFOS)
    assert found[0].step == 1234
    assert not CheckpointList()


def test_it_reads_as_a_table():
    lines = repr(CheckpointList(INFOS)).splitlines()
    assert lines[0] == "3 checkpoints, the newest first"
    assert lines[1].split() == ["epochs", "done", "step", "saved", "MB", "state", "values"]
    assert "3 + 34 batches  1,234  2026-01-02 14:03:12 UTC  2.5" in lines[2]
    assert "listed, best" in lines[3]
    assert repr(CheckpointList()) == "<no checkpoints>"
    assert repr(CheckpointList(INFOS[:1])).startswith("1 checkpoint\n")


def test_only_one_of_those_that_were_the_best_in_their_time_is_called_so():
    older = CheckpointInfo("d", step=200, saved_at=AT, is_best=True)
    lines = repr(CheckpointList([*INFOS, older])).splitlines()
    assert ["best" in line for line in lines[2:]] == [False, True, False, False]


def test_what_was_verified_is_called_whole():
    text = repr(CheckpointList(INFOS, is_verified=True))
    assert "whole, best" in text
    assert "listed" not in text
    assert "3 bytes short" in text


def test_a_notebook_gets_an_escaped_table():
    shown = CheckpointList(INFOS)._repr_html_()
    assert "<td>1,234</td>" in shown
    assert "&lt;loss&gt; 0.5" in shown
    assert "<loss>" not in shown
    assert "No checkpoints" in CheckpointList()._repr_html_()
