"""What is told of a folder in the background: each thing once, and only when it is news."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.errors import StorageError
from colabkit.keeping.telling import Telling


@pytest.fixture
def said():
    return []


@pytest.fixture
def telling(said):
    return Telling(Path("runs"), said.append)


def test_what_is_not_uploaded_for_ten_minutes_is_told_with_the_likely_reason(telling, said):
    for waited_s in (0.0, 599.0, 601.0, 700.0):
        telling.waited(waited_s)
    told = "What was copied from runs 10 min ago is not uploaded yet"
    assert said == [f"{told}: look whether your Drive or its trash is full."]
    telling.arrived()
    telling.waited(900.0)
    assert len(said) == 2


def test_what_may_not_be_taken_for_ten_minutes_is_told_once(telling, said):
    for now_s in (0.0, 300.0, 599.0):
        telling.objections({"log.txt": "log.txt is being written"}, now_s)
    telling.objections({}, 600.0)
    for now_s in (700.0, 1299.0):
        telling.objections({"log.txt": "log.txt is being written"}, now_s)
    assert said == []
    for now_s in (1301.0, 2000.0):
        telling.objections({"log.txt": "log.txt is being written"}, now_s)
    assert said == ["log.txt is not kept since 10 min: log.txt is being written."]


def test_trouble_is_told_once_with_its_end_and_not_when_it_may_pass(telling, said):
    full = StorageError("Drive is full.", path="x", operation="write")
    passing = StorageError("Drive is busy.", path="x", operation="write", may_pass=True)
    for error in (full, full):
        telling.trouble(error)
    telling.fine()
    telling.fine()
    assert said == ["runs cannot be kept at the moment: Drive is full.", "runs is kept again."]
    telling.trouble(passing)
    assert len(said) == 2


def test_what_cannot_be_kept_is_told_once_and_counted(telling, said):
    why = {"data": "it leads out of the folder, to /data", "cache": "it leads out of the folder"}
    telling.left_out(why)
    telling.left_out(why)
    telling.left_out({**why, "": "it cannot be read (Permission denied)"})
    assert said == [
        "data and 1 more in runs are not kept: it leads out of the folder, to /data.",
        "runs in runs is not kept: it cannot be read (Permission denied).",
    ]
