"""An error behind the last step of an epoch, or before the first, loses none of its steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from tests.torch.averages import Average
from tests.torch.cases import SAMPLES, arrays, loader, network

EPOCHS, BATCH, FAILS = 3, 8, 1
PER_EPOCH = -(-SAMPLES // BATCH)


KINDS = {"interrupts": KeyboardInterrupt}


def meet(place: str) -> None:
    """Raises where there is trouble: of the machine's, as no checkpoint holds it."""
    if os.environ.get("TROUBLE_AT") != place:
        return
    if os.environ["TROUBLE_BY"] == "interrupts":
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    raise OSError(place)


def ends(train: Callable[[], Any], *, at: str, by: str = "an error") -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TROUBLE_AT", at)
        patch.setenv("TROUBLE_BY", by)
        with pytest.raises(KINDS.get(by, OSError)):
            train()


class Validation(torch_data.Dataset):
    epoch, is_read = 0, False

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = arrays()
        Validation.is_read = True
        if index == 15 and Validation.epoch == FAILS:
            meet("data")
        return x[index] + torch.rand(6) * 0.1, y[index]


class Watching(colabkit.Callback):
    """Counts by itself, and meets trouble in any hook."""

    def __init__(self) -> None:
        self.ends: list[int] = []

    def on_epoch_begin(self, run: Any, epoch: int) -> None:
        Validation.epoch, Validation.is_read = epoch, False
        if epoch == FAILS + 1:
            meet("on_epoch_begin")

    def on_validation_end(self, run: Any, epoch: int, logs: Any) -> None:
        if epoch == FAILS:
            meet("on_validation_end")

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        self.ends.append(epoch)
        if epoch == FAILS:
            meet("on_epoch_end")


def metric(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if Validation.is_read and Validation.epoch == FAILS:
        meet("metric")
    return (output.argmax(1) == target).float().mean()


Facts = tuple[list[torch.Tensor], list[Any], Any, list[int]]


def fit(folder: Path, **options: Any) -> Facts:
    model, watching = network(norm=True), Watching()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    history = colabkit.fit(
        model,
        arrays(),
        folder,
        epochs=EPOCHS,
        batch_size=BATCH,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        validation_data=Validation(),
        metrics=[torchmetrics.Accuracy("multiclass", num_classes=3), metric],
        callbacks=[watching],
        monitor="loss",
        save_every="300s",
        progress=False,
        **options,
    )
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
    state = optimizer.state_dict()
    moments = [each for s in state["state"].values() for each in s.values()]
    tensors = [*model.state_dict().values(), *moments]
    return tensors, rows, state["param_groups"], watching.ends


def assert_same(one: Facts, other: Facts) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert one[1:] == other[1:]


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


class Loop:
    """A person's loop with an evaluation in each epoch."""

    averages = False

    def evaluated(self, run: Any, model: nn.Module) -> float:
        raise NotImplementedError

    def train(self, folder: Path) -> Facts:
        model = network(norm=True)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        average = Average(model)
        run = colabkit.Run(
            folder,
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            average=average,
            save_every="300s",
            progress=False,
        )
        kept = run.state(losses=[])
        for epoch in run.epochs(EPOCHS):
            if epoch == FAILS + 1:
                meet("head")
            model.train()
            for x, y in run.batches(loader()):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                average.update()
                run.log(loss=loss)
            schedule.step()
            model.eval()
            if self.averages:
                average.put()
            Validation.epoch = epoch
            with torch.no_grad():
                kept.losses.append(self.evaluated(run, model))
            if self.averages:
                average.take()
            run.log_epoch(val_loss=kept.losses[-1])
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history.epochs]
        state = optimizer.state_dict()
        moments = [each for s in state["state"].values() for each in s.values()]
        tensors = [*model.state_dict().values(), *average.means, *moments]
        return tensors, rows, state["param_groups"], list(kept.losses)


class ByHand(Loop):
    def evaluated(self, run: Any, model: nn.Module) -> float:
        x, y = arrays()
        if Validation.epoch == FAILS:
            meet("evaluation")
        return float(functional.cross_entropy(model(x), y))


class InPass(Loop):
    def evaluated(self, run: Any, model: nn.Module) -> float:
        total = 0.0
        for x, y in run.batches(arrays(), batch_size=11, shuffle=False):
            total += float(functional.cross_entropy(model(x), y))
            if run.batch == 2 and run.epoch == FAILS:
                meet("evaluation")
        return total


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
