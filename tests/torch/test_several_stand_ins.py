"""Averages that stand in for the weights of several processes, one of which holds none of them.

Of three processes the last has but empty pieces of layers with two rows, in which it sees nothing
change: what the others find decides for it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data as torch_data

import colabkit
from colabkit.runs import several_managers
from tests.abilities import PIECES
from tests.torch.cases import arrays
from tests.torch.killing import kill_self
from tests.torch.ranks import came_through, killed, together
from tests.torch.several_pieces import fully_shard

PROCESSES, IN_EVALUATION = 3, 5


def local(weight: Any) -> torch.Tensor:
    return weight.to_local() if hasattr(weight, "to_local") else weight


class Average:
    """Means of what a process holds of the weights."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.means, self.own = self.copies(), self.copies()

    def copies(self) -> list[torch.Tensor]:
        return [local(each.detach()).clone() for each in self.model.parameters()]

    def update(self) -> None:
        for mean, weight in zip(self.means, self.model.parameters(), strict=True):
            mean.lerp_(local(weight.detach()), 0.1)

    def put(self) -> None:
        self.own = self.copies()
        self.write(self.means)

    def take(self) -> None:
        for layer in self.model.modules():
            getattr(layer, "reshard", lambda: None)()
        self.write(self.own)

    @torch.no_grad()
    def write(self, values: list[torch.Tensor]) -> None:
        for value, weight in zip(values, self.model.parameters(), strict=True):
            local(weight).copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mean, then in zip(self.means, state["means"], strict=True):
            mean.copy_(then)


def in_pieces(model: Any) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    whole: nn.Module = fully_shard(model, mesh=mesh)
    return whole


def in_copies(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model, find_unused_parameters=True)


def samples() -> Any:
    x, y = arrays()
    return torch_data.TensorDataset(x, y % 2)


def shared_out() -> Any:
    sampler: Any = torch_data.DistributedSampler(samples(), seed=3)
    return torch_data.DataLoader(samples(), batch_size=4, sampler=sampler)


def nothing(_run: Any) -> None:
    pass


def train(
    folder: Path,
    deal_out: Callable[[nn.Module], nn.Module],
    at_evaluation: Callable[[Any], None] = nothing,
    **options: Any,
) -> list[Any]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 2))
    wrapped = deal_out(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = Average(model)
    objects = {"model": wrapped, "optimizer": optimizer, "average": average}
    run = colabkit.Run(folder / "run", objects=objects, progress=False, **options)
    kept = run.state(losses=[])
    for _ in run.epochs(2):
        model.train()
        for x, y in run.batches(shared_out()):
            optimizer.zero_grad()
            functional.cross_entropy(wrapped(x), y).backward()
            optimizer.step()
            average.update()
            run.flush()
        model.eval()
        average.put()
        total = 0.0
        with torch.no_grad():
            for x, y in run.batches(torch_data.DataLoader(samples(), batch_size=22)):
                total += float(functional.cross_entropy(wrapped(x), y))
                run.flush()
                at_evaluation(run)
        average.take()
        kept.losses.append(total)
    return [*average.copies(), *average.means, *kept.losses]


def same(one: list[Any], other: list[Any]) -> None:
    assert all(map(torch.equal, *([torch.as_tensor(e) for e in each] for each in (one, other))))


def interrupted(run: Any) -> None:
    if run.step == IN_EVALUATION and dist.get_rank() == 0:
        os.kill(os.getpid(), signal.SIGINT)


WAYS = [pytest.param(in_pieces, marks=pytest.mark.needs(PIECES)), in_copies]


@pytest.mark.parametrize("deal_out", WAYS)
def test_all_wait_with_an_end_that_is_asked_for_until_the_weights_are_back(deal_out, tmp_path):
    def work(_: int) -> None:
        alone = train(tmp_path / "alone", deal_out, save_every=None)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "stopped", deal_out, interrupted, save_every=1)
        train(tmp_path / "limited", deal_out, save_every=None, max_steps=IN_EVALUATION)
        for folder in (tmp_path / "stopped", tmp_path / "limited"):
            assert colabkit.checkpoints(folder / "run", verify=True)[0].step > IN_EVALUATION
            same(train(folder, deal_out, save_every=None), alone)

    came_through(work, PROCESSES, tmp_path)


def tune(folder: Path, at_step: Callable[[Any], None] = nothing) -> list[Any]:
    """Trains on in evaluation mode, of which the last process sees nothing but its losses."""
    torch.manual_seed(3)
    model = in_pieces(nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objects = {"model": model, "optimizer": optimizer}
    run = colabkit.Run(folder / "run", objects=objects, progress=False, save_every=1)
    kept = run.state(losses=[])
    for _ in run.epochs(2):
        for mode in (model.train, model.eval):
            mode()
            for x, y in run.batches(shared_out()):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                kept.losses.append(float(loss.detach()))
                run.flush()
                at_step(run)
    return [*map(local, model.parameters()), *kept.losses]


@pytest.mark.needs(PIECES)
def test_a_pass_that_trains_some_processes_is_one_that_trains(tmp_path):
    def dying(run: Any) -> None:
        if run.step == IN_EVALUATION + 1:
            dist.barrier()
            kill_self()

    def again(_: int) -> None:
        same(tune(tmp_path), tune(tmp_path / "alone"))

    assert all(map(killed, together(lambda _: tune(tmp_path, dying), PROCESSES, tmp_path)))
    came_through(again, PROCESSES, tmp_path)


@pytest.mark.needs(PIECES)
@pytest.mark.parametrize("is_by_all", [True, False], ids=["by all", "by one"])
def test_processes_killed_in_the_evaluation_go_on_with_the_weights(
    is_by_all, tmp_path, monkeypatch
):
    monkeypatch.setattr(several_managers, "WRITE_PIECES", is_by_all)

    def dying(run: Any) -> None:
        if run.step == IN_EVALUATION:
            dist.barrier()
            kill_self()

    def again(_: int) -> None:
        alone = train(tmp_path / "alone", in_pieces, save_every=None)
        same(train(tmp_path, in_pieces, save_every=None), alone)

    statuses = together(
        lambda _: train(tmp_path, in_pieces, dying, save_every=1), PROCESSES, tmp_path
    )
    assert all(map(killed, statuses))
    came_through(again, PROCESSES, tmp_path)
