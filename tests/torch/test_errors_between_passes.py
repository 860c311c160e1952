"""An error behind the last step of an epoch, or before the first, loses none of its steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import colabkit
from colabkit.runs.limits import Limits
from tests.torch.cases import loader, network
from tests.torch.troubles import (
    FAILS,
    PER_EPOCH,
    ByHand,
    InPass,
    Validation,
    assert_same,
    ends,
    fit,
    meet,
)

IN_FIT = ["data", "metric", "on_validation_end", "on_epoch_end", "on_epoch_begin"]


@pytest.mark.parametrize("place", IN_FIT)
def test_fit_keeps_all_steps_and_goes_on_behind_them(place, tmp_path):
    alone = fit(tmp_path / "alone")
    ends(lambda: fit(tmp_path / "run"), at=place)
    assert colabkit.checkpoints(tmp_path / "run")[0].step == PER_EPOCH * (FAILS + 1)
    assert_same(fit(tmp_path / "run"), alone)


def test_groups_of_batches_that_turned_out_smaller_have_had_their_step(tmp_path):
    options = {"accumulate": 4, "clip_grad_norm": 0.5}
    alone = fit(tmp_path / "alone", **options)
    ends(lambda: fit(tmp_path / "run", **options), at="data")
    assert colabkit.checkpoints(tmp_path / "run")[0].step == PER_EPOCH * (FAILS + 1)
    assert_same(fit(tmp_path / "run", **options), alone)


def test_trouble_that_stays_is_met_again_without_a_step(tmp_path):
    for _ in range(2):
        ends(lambda: fit(tmp_path / "run"), at="metric")
    steps = [each.step for each in colabkit.checkpoints(tmp_path / "run")]
    assert steps[0] == PER_EPOCH * (FAILS + 1)
    assert_same(fit(tmp_path / "run"), fit(tmp_path / "alone"))


@pytest.mark.parametrize("loop", [ByHand, InPass])
@pytest.mark.parametrize("place", ["evaluation", "head"])
def test_a_loop_of_ones_own_keeps_all_steps_and_goes_on_behind_them(place, loop, tmp_path):
    alone = loop().train(tmp_path / "alone")
    ends(lambda: loop().train(tmp_path / "run"), at=place)
    newest = colabkit.checkpoints(tmp_path / "run")[0]
    assert newest.epoch == FAILS + (place == "head")
    assert newest.step >= PER_EPOCH * (FAILS + 1)
    assert_same(loop().train(tmp_path / "run"), alone)


@pytest.mark.parametrize("loop", [ByHand, InPass])
def test_weights_that_others_stand_in_for_are_not_taken_for_those_of_the_training(loop, tmp_path):
    class Averaging(loop):
        averages = True

    alone = Averaging().train(tmp_path / "alone")
    ends(lambda: Averaging().train(tmp_path / "run"), at="evaluation")
    assert_same(Averaging().train(tmp_path / "run"), alone)


def test_an_error_in_a_step_saves_nothing(tmp_path):
    def train() -> None:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {"save_every": "300s", "progress": False}
        run = colabkit.Run(tmp_path, model=model, optimizer=optimizer, **options)
        for _ in run.epochs(1):
            for x, y in run.batches(loader()):
                functional.cross_entropy(model(x), y).backward()
                if run.batch == 3:
                    meet("step")
                optimizer.step()

    ends(train, at="step")
    assert [each.step for each in colabkit.checkpoints(tmp_path)] == [0]


def test_a_second_interrupt_in_a_validation_keeps_all_steps(tmp_path):
    alone = fit(tmp_path / "alone")
    ends(lambda: fit(tmp_path / "run"), at="metric", by="interrupts")
    assert colabkit.checkpoints(tmp_path / "run")[0].step == PER_EPOCH * (FAILS + 1)
    assert_same(fit(tmp_path / "run"), alone)


@pytest.mark.parametrize("place", ["data", "metric"])
def test_one_interrupt_ends_a_validation_at_its_next_batch(place, tmp_path, monkeypatch):
    alone = fit(tmp_path / "alone")
    monkeypatch.setenv("TROUBLE_AT", place)
    monkeypatch.setenv("TROUBLE_BY", "an interrupt")
    rows = fit(tmp_path / "run")[1]
    monkeypatch.delenv("TROUBLE_AT")
    assert len(rows) == FAILS
    newest = colabkit.checkpoints(tmp_path / "run")[0]
    assert (newest.step, newest.epoch) == (PER_EPOCH * (FAILS + 1), FAILS)
    assert_same(fit(tmp_path / "run"), alone)


class Clock:
    """Stands still until the validation, from which on no time is left."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_session_out_of_time_ends_a_validation_once_it_has_trained(tmp_path, monkeypatch):
    alone = fit(tmp_path / "alone")
    clock = Clock()
    monkeypatch.setattr(Limits.__init__, "__defaults__", (clock,))

    class Late(Validation):
        def __getitem__(self, index: int) -> Any:
            clock.now_s += 1.0
            return super().__getitem__(index)

    given = {"validation_data": Late(), "max_time": 30}
    rows = fit(tmp_path / "run", **given)[1]
    assert len(rows) == 1
    newest = colabkit.checkpoints(tmp_path / "run")[0]
    assert (newest.step, newest.epoch) == (PER_EPOCH * 2, 1)
    # What is too long for any session is done by one that begins with it.
    clock.now_s = 0.0
    given["max_time"] = 5
    rows = fit(tmp_path / "run", **given)[1]
    assert len(rows) == 2
    assert_same(fit(tmp_path / "run"), alone)


@pytest.mark.parametrize("loop", [ByHand, InPass])
@pytest.mark.parametrize("place", ["evaluation", "head"])
def test_one_interrupt_between_the_passes_of_a_loop_ends_it_there(place, loop, tmp_path):
    alone = loop().train(tmp_path / "alone")
    ends(lambda: loop().train(tmp_path / "run"), at=place, by="an interrupt")
    newest = colabkit.checkpoints(tmp_path / "run")[0]
    assert newest.epoch == FAILS + (place == "head")
    assert_same(loop().train(tmp_path / "run"), alone)


def test_one_interrupt_waits_while_others_stand_in_for_the_weights(tmp_path):
    class Averaging(ByHand):
        averages = True

    alone = Averaging().train(tmp_path / "alone")
    ends(lambda: Averaging().train(tmp_path / "run"), at="evaluation", by="an interrupt")
    assert colabkit.checkpoints(tmp_path / "run")[0].epoch == FAILS + 1
    assert_same(Averaging().train(tmp_path / "run"), alone)
