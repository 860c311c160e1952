"""What a loop reads at the head of an epoch and between two passes is what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import colabkit
from tests.torch.killing import in_child
from tests.torch.plain_notebook import PlainLoop
from tests.torch.test_done_again import assert_same, end

STEPS, EVALUATED, EPOCHS = 4, 3, 3
PER_EPOCH = STEPS + EVALUATED


class Accuracy:
    """A metric as people write it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.correct, self.count, self.means = 0, 0, []

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.correct += (output.argmax(1) == target).sum().item()
        self.count += len(target)
        self.means.append(output.detach().mean())

    def compute(self) -> float:
        return self.correct / self.count + sum(self.means).item()

    def state_dict(self) -> dict[str, Any]:
        return {"correct": self.correct, "count": self.count, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.correct, self.count, self.means = state["correct"], state["count"], state["means"]


class Hits(nn.Module):
    """Counts in a buffer, under names that no library has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hits", torch.zeros(()))

    def see(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.hits += (output.argmax(1) == target).sum()

    def take(self) -> float:
        hits = self.hits.item()
        self.hits.zero_()
        return hits


class Counted(nn.Module):
    """A head that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.hits = nn.Linear(6, 2), Hits()


class Classifier(nn.Module):
    """It has metrics of its own, as modules for Lightning have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def train(
    folder: Path | None, *, dies_at: int = -1, averages: bool = False, switches: bool = True
) -> dict[str, Any]:
    torch.manual_seed(0)
    data = TensorDataset(x := torch.randn(8 * STEPS, 6), (x[:, 0] > 0).long())
    held_out = TensorDataset(x := torch.randn(8 * EVALUATED, 6), (x[:, 1] > 0).long())
    model, counted, own = Classifier(), Counted(), Accuracy()
    others = torchmetrics.MetricCollection([torchmetrics.MeanMetric(), torchmetrics.CatMetric()])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    total = STEPS * EPOCHS
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=total)
    objects = {
        "m": model,
        "counted": counted,
        "opt": optimizer,
        "s": schedule,
        "own": own,
        "others": others,
    }
    objects["average"] = average = AveragedModel(model.layers)
    run: Any = PlainLoop()
    if folder is not None:
        run = colabkit.Run(folder, save_every=1, progress=False, **objects)
    kept = run.state(correct=torch.zeros(()), seen=torch.zeros(()), rows=[])

    def see(output: torch.Tensor, target: torch.Tensor) -> None:
        model.accuracy.update(output, target)
        own.update(output, target)
        counted.hits.see(output, target)
        others.update(output.detach().mean(1))
        kept.correct = kept.correct + (output.argmax(1) == target).sum()
        kept.seen += output.detach().sum()  # in place

    def read() -> list[Any]:
        cat = others["CatMetric"].compute()
        row = [model.accuracy.compute(), own.compute(), others["MeanMetric"].compute(), cat]
        row = [*row, kept.correct.item(), kept.seen.item(), counted.hits.take()]
        model.accuracy.reset(), own.reset(), others.reset()
        kept.correct = torch.zeros(())
        return row

    for _ in run.epochs(EPOCHS):
        row = [optimizer.param_groups[0]["lr"], *schedule.get_last_lr()]
        model.train()
        for inputs, target in run.batches(DataLoader(data, 8, shuffle=False)):
            output = model(inputs)
            optimizer.zero_grad()
            functional.cross_entropy(output, target).backward()
            optimizer.step()
            schedule.step()
            see(output, target)
            end(run, dies_at)
        if averages:
            average.update_parameters(model.layers)
        row.append(read())
        model.train(not switches)
        loss = 0.0
        with torch.no_grad():
            for inputs, target in run.batches(DataLoader(held_out, 8)):
                output = model(inputs)
                see(output, target)
                loss += functional.cross_entropy(output, target).item()
                if folder is not None:
                    run.log(val_loss=functional.cross_entropy(output, target))
                end(run, dies_at)
        row.append(read())
        if folder is not None:
            run.log_epoch(first=row[0], accuracy=row[2][1], val=row[3][1])
        kept.rows.append([*row, loss] if switches else row)
    epochs = [] if folder is None else run.history.epochs
    logged = [[each["first"], each["accuracy"], each["val"]] for each in epochs]
    states = {"weights": model.layers.state_dict(), "average": average.state_dict()}
    return {**states, "rows": kept.rows, "logged": logged}


@pytest.mark.parametrize("how", [{}, {"averages": True}, {"switches": False}])
@pytest.mark.parametrize(
    "steps",
    [(2,), (STEPS + 1, PER_EPOCH + 2), (2, STEPS + 2, PER_EPOCH + STEPS + 2)],
    ids=["in training", "in evaluation", "in both"],
)
def test_metrics_and_rates_read_on_the_way_are_those_of_the_place(steps, how, tmp_path):
    for step in steps:
        assert not in_child(
            lambda step=step: train(tmp_path / "run", dies_at=step, **how),
            report=tmp_path / "report",
        )
    resumed = train(tmp_path / "run", **how)
    assert_same(train(None, **how), {**resumed, "logged": []})
    assert resumed["logged"] == [[row[0], row[2][1], row[3][1]] for row in resumed["rows"]]
