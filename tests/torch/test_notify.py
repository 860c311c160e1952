"""fit tells how it ended, and nobody can hold it up."""

from __future__ import annotations

import pytest

import colabkit
from colabkit.errors import ArgumentError, DivergedError
from colabkit.fitting import messages
from tests.torch.cases import arrays, network

QUIET = {"progress": False, "device": "cpu"}


def test_a_training_that_ends_is_told_and_a_failure_too(tmp_path, monkeypatch):
    monkeypatch.setattr(messages, "_WORTH_A_MESSAGE_S", 0.0)
    told: list[str] = []
    x, y = arrays()
    colabkit.fit(network(), (x, y), tmp_path / "cats", notify=told.append, **QUIET)
    assert told[0].startswith("cats has finished, 1 epochs: loss ")
    asked = {"epochs": 9, "max_steps": 4, "notify": told.append, **QUIET}
    colabkit.fit(network(), (x, y), tmp_path / "dogs", **asked)
    assert told[1].startswith("dogs has ended after 2 of 9 epochs (max_steps is 4): loss ")
    with pytest.raises(DivergedError):
        colabkit.fit(
            network(), (x * float("nan"), y), tmp_path / "hens", notify=told.append, **QUIET
        )
    assert told[2].startswith("hens failed: DivergedError: The loss became nan")


def test_a_training_that_stops_for_time_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(messages, "_WORTH_A_MESSAGE_S", 0.0)
    told: list[str] = []
    asked = {"epochs": 10**6, "max_time": 0.2, "notify": told.append, **QUIET}
    colabkit.fit(network(), arrays(), tmp_path / "cats", **asked)
    assert told[0].startswith("cats has stopped for time after ")
    assert "(max_time is 0.2); run it again to go on" in told[0]


def test_nobody_to_tell_is_named_before_the_first_step(tmp_path):
    with pytest.raises(ArgumentError, match="notify"):
        colabkit.fit(network(), arrays(), tmp_path / "run", notify="my-topic", **QUIET)
    assert not (tmp_path / "run").exists()
