"""What several processes cannot share out: refused in all of them, and named."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ColabKitError
from tests.torch.cases import SAMPLES, Augmented, arrays, network
from tests.torch.ranks import came_through
from tests.torch.several_ways import (
    QUIET,
)


class Margins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(3))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(output + self.centres, target)


class Unsteady(torch_data.Sampler[int]):
    def __iter__(self) -> Any:
        return iter(sorted(range(SAMPLES), key=lambda _: os.urandom(4)))

    def __len__(self) -> int:
        return SAMPLES


class Listed(Augmented):
    """Has its samples in the order in which a process came upon them."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.x = self.x.roll(rank, 0)


def refusals(rank: int) -> dict[str, dict[str, Any]]:
    rows = Augmented()
    shared = torch_data.DistributedSampler(rows, num_replicas=2, rank=rank)
    return {
        "it is read as a stream": {"data": [(torch.ones(4, 6), torch.ones(4).long())]},
        "DistributedSampler": {"data": torch_data.DataLoader(rows, sampler=shared)},
        "another order each time": {"data": torch_data.DataLoader(rows, sampler=Unsteady())},
        "microbatch is given": {"microbatch": 4},
        "which fit does itself": {"model": DistributedDataParallel(network())},
        "weights of its own": {"loss": Margins()},
        "batch_size": {"batch_size": 8 + rank},
        "do not add up": {"loss": lambda o, y: functional.cross_entropy(o, y) ** 2 + o.std()},
        "metrics cannot take them together": {
            "metrics": "mae",
            "model": Pooled(),
            "loss": lambda output, _: output.mean(),
        },
        "other data": {"data": Listed(rank)},
    }


class Pooled(nn.Module):
    """Gives one row for a whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).mean(0)


REFUSALS = [
    "it is read as a stream",
    "DistributedSampler",
    "another order each time",
    "microbatch is given",
    "which fit does itself",
    "weights of its own",
    "batch_size",
    "do not add up",
    "metrics cannot take them together",
    "other data",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_what_cannot_be_shared_out_is_refused_and_named(words, tmp_path):
    def work(rank: int) -> None:
        options = refusals(rank)[words]
        given = {"optimizer": "sgd", "model": network(), "data": arrays(), **QUIET, **options}
        with pytest.raises(ColabKitError, match=words):
            colabkit.fit(given.pop("model"), given.pop("data"), tmp_path / "run", **given)
        dist.barrier()

    came_through(work, 2, tmp_path)
