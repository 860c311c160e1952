"""Trainings that meet trouble between two passes: with ``fit``, and in loops of one's own."""

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


KINDS = {"interrupts": KeyboardInterrupt, "an interrupt": KeyboardInterrupt}


def meet(place: str) -> None:
    """Raises where there is trouble: of the machine's, as no checkpoint holds it."""
    if os.environ.get("TROUBLE_AT") != place:
        return
    if os.environ["TROUBLE_BY"] == "an interrupt":
        if not signal.getsignal(signal.SIGINT).__self__.pending:  # pressed once
            signal.raise_signal(signal.SIGINT)
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
        if index in {8, 15} and Validation.epoch == FAILS:  # one of each part of a batch
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
    given: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": optimizer,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        "validation_data": Validation(),
        "metrics": [torchmetrics.Accuracy("multiclass", num_classes=3), metric],
        "callbacks": [watching],
        "monitor": "loss",
        "save_every": "300s",
        "progress": False,
    }
    history = colabkit.fit(model, arrays(), folder, **{**given, **options})
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
    state = optimizer.state_dict()
    moments = [each for s in state["state"].values() for each in s.values()]
    tensors = [*model.state_dict().values(), *moments]
    return tensors, rows, state["param_groups"], watching.ends


def assert_same(one: Facts, other: Facts) -> None:
    assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
    assert one[1:] == other[1:]


class Loop:
    """A person's loop with an evaluation in each epoch."""

    averages, has_norm = False, True

    def wrapped(self, model: nn.Module) -> nn.Module:
        return model

    def rows(self) -> Any:
        return loader()

    def evaluated(self, run: Any, model: nn.Module) -> float:
        raise NotImplementedError

    def train(self, folder: Path, **options: Any) -> Facts:
        model = network(norm=self.has_norm)
        wrapped = self.wrapped(model)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        average = Average(model)
        run = colabkit.Run(
            folder,
            model=wrapped,
            optimizer=optimizer,
            schedule=schedule,
            average=average,
            save_every="300s",
            progress=False,
            **options,
        )
        kept = run.state(losses=[])
        for epoch in run.epochs(EPOCHS):
            if epoch == FAILS + 1:
                meet("head")
            model.train()
            for x, y in run.batches(self.rows()):
                optimizer.zero_grad()
                loss = functional.cross_entropy(wrapped(x), y)
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
