"""Ways in which several processes train, what they end with, and what disturbs them."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.frameworks.torch import world
from tests.torch.cases import Augmented, arrays, network
from tests.torch.killing import kill_self, outcome
from tests.torch.ranks import came_through

QUIET = {"progress": False, "device": "cpu", "batch_size": 8, "epochs": 2}


def loader(**options: Any) -> torch_data.DataLoader[Any]:
    return torch_data.DataLoader(Augmented(), batch_size=8, shuffle=True, **options)


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "dropout_and_arrays": dict,
    "augmented_samples_and_validation": lambda: {
        "data": loader(),
        "validation_data": arrays(),
        "metrics": "accuracy",
        "clip_grad_norm": 0.5,
    },
    "groups_that_do_not_divide_and_batch_norm": lambda: {
        "model": network(norm=True),
        "accumulate": 4,
        "scheduler": ("onecycle", "step"),
        "validation_data": arrays(),
    },
    "a_last_batch_of_one": lambda: {"batch_size": 43, "epochs": 4},
    "weighted_classes_and_a_last_batch_of_eleven": lambda: {
        "batch_size": 33,
        "epochs": 4,
        "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), ignore_index=2),
    },
}


class Broken(Augmented):
    """Samples, one of which process 1 cannot read."""

    def __getitem__(self, index: int) -> Any:
        if dist.get_rank() == 1 and index == 7:
            message = "sample 7 cannot be read"
            raise OSError(message)
        return super().__getitem__(index)


class KillRanks:
    """Dies in the processes of some ranks, in the middle of a step."""

    def __init__(self, step: int, ranks: tuple[int, ...]) -> None:
        self.step = step
        self.ranks = ranks

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()
        rank = dist.get_rank() if dist.is_initialized() else 0
        if step == self.step and rank in self.ranks:
            kill_self()


def train(folder: Path, way: str = "dropout_and_arrays", **options: Any) -> colabkit.History:
    """Trains in this process, one of several or not; rank 0 writes down what came of it."""
    folder.mkdir(exist_ok=True)
    options = {**QUIET, "save_every": None, **WAYS[way](), **options}
    model = options.pop("model", None) or network()
    data = options.pop("data", None) or arrays()
    ckpt_dir = options.pop("ckpt_dir", folder / "run")
    history = colabkit.fit(model, data, ckpt_dir, **options)
    rank = dist.get_rank() if dist.is_initialized() else 0
    weights = {k: getattr(v, "full_tensor", v.clone)() for k, v in model.state_dict().items()}
    torch.save(weights, folder / f"weights-{rank}")
    if rank == 0:
        outcome(ckpt_dir, history, folder / "outcome")
        (folder / "verdict").write_text(str(history.verdict))
    return history


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "outcome").read_text())


def same_weights(folder: Path, ranks: int = 2) -> None:
    first = torch.load(folder / "weights-0", weights_only=True)
    for rank in range(1, ranks):
        other = torch.load(folder / f"weights-{rank}", weights_only=True)
        assert all(torch.equal(first[name], other[name]) for name in first)


class SignalAt:
    """Sends a signal to the process of a rank after a step."""

    def __init__(self, step: int, number: int, rank: int) -> None:
        self.step = step
        self.number = number
        self.rank = rank

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        rank = dist.get_rank() if dist.is_initialized() else 0
        if step == self.step and rank == self.rank:
            os.kill(os.getpid(), self.number)


class ShortWaits:
    """Has a process wait for others but so long from a step on, to which all have come."""

    def __init__(self, step: int, rank: int, seconds: float = 2.0) -> None:
        self.step, self.rank, self.seconds = step, rank, seconds
        if dist.is_initialized() and dist.get_rank() == rank:
            # gloo of older versions of PyTorch keeps to what a group was made with.
            world.DEADLINE_S = 10.0

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step and dist.get_rank() == self.rank:
            for group in (world._joined[-1].group, world._joined[-1]._control):
                timeout = datetime.timedelta(seconds=self.seconds)
                dist.distributed_c10d._set_pg_timeout(timeout, group)


def undisturbed_in(
    count: int, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Any]]:
    """Gives what so many processes end with that nobody disturbs, by the way of training."""
    known: dict[str, dict[str, Any]] = {}

    def by_way(way: str) -> dict[str, Any]:
        if way not in known:
            folder = tmp_path_factory.mktemp(way)
            came_through(lambda _: train(folder, way), count, folder)
            same_weights(folder, count)
            known[way] = result(folder)
        return known[way]

    return by_way
