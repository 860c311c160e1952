"""What optimizers train and no module of the run holds: wide copies, images that are trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from colabkit.checkpoint import encode
from colabkit.frameworks.torch.module_tree import Trees
from colabkit.frameworks.torch.pieces import cut_like
from colabkit.frameworks.torch.restoring import copy_where_it_fits, state_of

Optimizers = Mapping[str, torch.optim.Optimizer]


def values_of(trees: Trees, optimizers: Optimizers) -> dict[str, dict[str, torch.Tensor]]:
    """Returns their values by optimizer and place."""
    found = {name: trees.unowned(name, each) for name, each in optimizers.items()}
    return {n: {k: p.detach() for k, p in each.items()} for n, each in found.items() if each}


def restore(trees: Trees, optimizers: Optimizers, values: Mapping[str, Any]) -> None:
    """Gives them what ``values_of`` gave."""
    for name, each in values.items():
        there = trees.unowned(name, optimizers[name]) if name in optimizers else {}
        copy_where_it_fits(there, cut_like(there, each))


def said_of(trees: Trees, optimizers: Optimizers, others: Iterable[Any]) -> list[str]:
    """Returns a phrase on each optimizer that trains a module which nobody saves.

    Args:
        trees: The modules of the run.
        optimizers: Those of the run.
        others: Its other objects, which may hold modules, and save them in their ``state_dict``.
    """
    found = {
        # There may be more than values: those that look like a module's own count.
        name: [p for p in trees.unowned(name, each).values() if isinstance(p, nn.Parameter)]
        for name, each in optimizers.items()
    }
    held = _addresses_in(others) if any(found.values()) else set()
    counts = {n: sum(p.data_ptr() not in held for p in own) for n, own in found.items()}
    return [
        f"{name} trains {lost} tensors of a module that this run was not given:"
        " only their values are saved"
        for name, lost in counts.items()
        if lost
    ]


def _addresses_in(others: Iterable[Any]) -> set[int]:
    states = [encode(state_of(each), torch.is_tensor)[1].values() for each in others]
    return {tensor.data_ptr() for state in states for tensor in state}
