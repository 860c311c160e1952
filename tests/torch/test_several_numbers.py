"""What several processes compute: the numbers of one, and of a loop written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data as torch_data

import colabkit
from tests.torch.cases import SAMPLES, Augmented, arrays, network
from tests.torch.ranks import came_through
from tests.torch.several_ways import (
    QUIET,
    train,
)

PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "validation_data": arrays(),
    "metrics": ["accuracy", "mae"],
    "clip_grad_norm": 0.3,
    "accumulate": 2,
}


def targets_of_numbers() -> dict[str, Any]:
    x, y = arrays()
    return {**PLAIN, "data": (x, y.float().unsqueeze(1).repeat(1, 3)), "metrics": "mae"}


SAME: dict[str, Callable[[], dict[str, Any]]] = {
    "a_last_batch_of_one_and_weighted_classes_that_do_not_count": lambda: {
        **PLAIN,
        "batch_size": 43,
        "metrics": "accuracy",
        "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), ignore_index=2),
    },
    "a_last_batch_of_eleven_and_a_mean": lambda: {
        **targets_of_numbers(),
        "batch_size": 33,
        "validation_data": None,
    },
    "a_sum": lambda: {**PLAIN, "metrics": None, "loss": nn.CrossEntropyLoss(reduction="sum")},
}


@pytest.mark.parametrize("way", SAME)
def test_several_processes_give_the_numbers_of_one_to_rounding(way, tmp_path):
    def work(_: int, folder: Path) -> None:
        options = {**QUIET, "model": network(dropout=0.0), "data": arrays(), **SAME[way]()}
        model, data = options.pop("model"), options.pop("data")
        history = colabkit.fit(model, data, folder / "run", **options)
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
        steps = history.numbers()["steps"]["loss"].tolist()
        (folder / "numbers").write_text(json.dumps({"epochs": rows, "steps": steps}))

    found = {}
    for count in (1, 2, 3):
        folder = tmp_path / f"{count}"
        came_through(lambda rank, to=folder: work(rank, to), count, folder)
        found[count] = json.loads((folder / "numbers").read_text())
    for count in (2, 3):
        assert found[count]["steps"] == pytest.approx(found[1]["steps"], rel=1e-5)
        for row, alone in zip(found[count]["epochs"], found[1]["epochs"], strict=True):
            assert row == pytest.approx(alone, rel=1e-5)


class Noted(Augmented):
    """Writes down who fetches which sample, and what noise it gets."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        with (self.folder / f"fetched-{dist.get_rank()}").open("a") as log:
            log.write(f"{index} {float((x - self.x[index])[0])}\n")
        return x, y


class Drawing(nn.Module):
    """Writes down what each forward pass would draw."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.inner = network()
        self.folder = folder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with (self.folder / f"drawn-{dist.get_rank()}").open("a") as log:
            log.write(f"{float(torch.rand(()))}\n")
        return self.inner(x)


def test_each_process_fetches_its_samples_alone_and_draws_for_itself(tmp_path):
    came_through(
        lambda _: train(tmp_path, data=Noted(tmp_path), model=Drawing(tmp_path), epochs=3),
        2,
        tmp_path,
    )
    fetched = [
        [line.split() for line in (tmp_path / f"fetched-{rank}").read_text().splitlines()]
        for rank in (0, 1)
    ]
    # The last epoch's: what is read first is read again, to see whether it repeats.
    own = [[int(index) for index, _ in lines][-SAMPLES // 2 :] for lines in fetched]
    assert sorted(own[0] + own[1]) == list(range(SAMPLES))
    noise = [[each for _, each in lines][-SAMPLES // 2 :] for lines in fetched]
    drawn = [(tmp_path / f"drawn-{rank}").read_text().splitlines() for rank in (0, 1)]
    for one, other in (noise, drawn):
        assert len({*one, *other}) == len(one) + len(other)


class OwnLoop:
    """The loop that a person writes with DistributedDataParallel, over the very same batches."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, batches: list[list[int]]) -> None:
        self.x, self.y, self.batches = x, y, batches

    def train(
        self, model: nn.Module, rank: int, count: int, trained: nn.Module | None = None
    ) -> list[float]:
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD((trained or model).parameters(), lr=0.1, momentum=0.9)
        losses = []
        for indices in self.batches:
            own = torch.tensor(indices).tensor_split(count)[rank]
            loss = functional.cross_entropy(wrapped(self.x[own]), self.y[own])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            both = loss.detach() / count
            dist.all_reduce(both)
            losses.append(float(both))
        return losses


class Batches(torch_data.Sampler[list[int]]):
    """Gives the same batches in each epoch."""

    def __init__(self, size: int) -> None:
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1)).tolist()
        self.batches = [order[at : at + size] for at in range(0, SAMPLES, size)]

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@pytest.mark.parametrize("count", [2, 3])
def test_the_numbers_are_those_of_a_loop_written_by_hand(count, tmp_path):
    sampler = Batches(12)
    # Whole ones only: a loop written by hand weighs each part alike.
    sampler.batches = sampler.batches[:3]

    def work(rank: int) -> None:
        x, y = arrays()
        model, own = network(dropout=0.0), network(dropout=0.0)
        rows = torch_data.TensorDataset(x, y)
        history = colabkit.fit(
            model,
            torch_data.DataLoader(rows, batch_sampler=sampler),
            tmp_path / "run",
            epochs=2,
            optimizer=lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
            progress=False,
            device="cpu",
        )
        losses = OwnLoop(x, y, sampler.batches * 2).train(own, rank, count)
        pairs = list(zip(model.parameters(), own.parameters(), strict=True))
        if count == 2:
            assert all(torch.equal(one, other) for one, other in pairs)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(history.numbers()["steps"]["loss"], losses, rtol=1e-6)

    came_through(work, count, tmp_path)


def test_gradients_that_no_optimizer_clears_are_summed_as_by_hand_and_in_one_process(tmp_path):
    """Of a backbone that was not frozen, and whose head alone is trained."""
    x, y = arrays()
    sampler = Batches(12)
    sampler.batches = sampler.batches[:3]

    def fitted(steps: int, to: Path) -> nn.Module:
        model = network(dropout=0.0)
        loader = torch_data.DataLoader(torch_data.TensorDataset(x, y), batch_sampler=sampler)
        optimizer = torch.optim.SGD(model[-1].parameters(), lr=0.1, momentum=0.9)
        given = {"epochs": 2, "max_steps": steps, "progress": False, "device": "cpu"}
        colabkit.fit(model, loader, to, optimizer=optimizer, **given)
        return model

    def work(rank: int) -> None:
        fitted(3, tmp_path / "run")
        model, own = fitted(6, tmp_path / "alone"), network(dropout=0.0)
        OwnLoop(x, y, sampler.batches * 2).train(own, rank, 2, own[-1])
        for one, other in zip(model[:-1].parameters(), own[:-1].parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)

    came_through(work, 2, tmp_path)
    came_through(lambda _: fitted(6, tmp_path / "run"), 1, tmp_path)
    found = [colabkit.checkpoints(tmp_path / name)[0].hashes for name in ("run", "alone")]
    kept = [{k: v for k, v in each.items() if not k.startswith("run.")} for each in found]
    assert "gradients..model.0.weight" in kept[0]
    assert kept[0] == kept[1]
