"""How several processes train a model whose weights ``fully_shard`` deals out to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

import colabkit
from tests.torch.cases import network
from tests.torch.ranks import came_through
from tests.torch.several_ways import WAYS, KillRanks, result, same_weights, train

# Older versions of PyTorch have none; tests of it need abilities.PIECES.
fully_shard: Any = getattr(torch.distributed.fsdp, "fully_shard", None)


def in_pieces(model: nn.Module) -> nn.Module:
    """Deals the weights out, the first layer's apart, as people do with their blocks."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    fully_shard(model[0], mesh=mesh)
    dealt_out: nn.Module = fully_shard(model, mesh=mesh)
    return dealt_out


def train_in_pieces(
    folder: Path, way: str = "dropout_and_arrays", **options: Any
) -> colabkit.History:
    if dist.is_initialized():
        options["model"] = in_pieces(WAYS[way]().get("model") or network())
    return train(folder, way, **options)


def sgd(weights: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=0.1, momentum=0.9)


class KillTogether(KillRanks):
    """Dies once what was saved before is published, for which rank 0 needs all the others."""

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()
        if step == self.step:
            dist.barrier()
        super().on_batch_end(run, step, logs)


def undisturbed_in_pieces(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, int], dict[str, Any]]:
    """Gives what processes end with that nobody disturbs, by the way of training and number."""
    known: dict[tuple[str, int], dict[str, Any]] = {}

    def by_way(way: str, count: int) -> dict[str, Any]:
        if (way, count) not in known:
            folder = tmp_path_factory.mktemp(f"{way}-{count}")
            came_through(lambda _: train_in_pieces(folder, way), count, folder)
            same_weights(folder, count)
            known[way, count] = result(folder)
        return known[way, count]

    return by_way
