"""What a program does again on its way to the place that a checkpoint has held.

The head of an epoch and what stands between two loops are run again at a resume, on objects that
have it in them already: a schedule would step twice, a memory would be given its episodes twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from colabkit.checkpoint import deep_copy
from colabkit.frameworks.torch.structure import parameters_of


def copies_for_later(sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a checkpoint's state, where nothing is shared that the head of an epoch may change.

    Weights are copied into those that are there, and moments change in a step alone.
    """
    objects = sections["objects"]
    own = {key: each for key, each in objects.items() if key != "optimizers"}
    return {**sections, "objects": {**objects, **deep_copy(own)}}


def tolerating_known_groups(optimizers: Iterable[torch.optim.Optimizer]) -> ExitStack:
    """Has optimizers take groups that they have already without a word, until this is closed."""
    stack = ExitStack()
    for optimizer in optimizers:
        if "add_param_group" not in vars(optimizer):
            optimizer.add_param_group = _tolerant(optimizer)  # type: ignore[method-assign]
            stack.callback(vars(optimizer).pop, "add_param_group", None)
    return stack


def _tolerant(optimizer: torch.optim.Optimizer) -> Any:
    add = optimizer.add_param_group

    def add_param_group(param_group: dict[str, Any]) -> None:
        given = param_group["params"]
        given = [given] if isinstance(given, torch.Tensor) else list(given)
        known = {id(parameter) for parameter in parameters_of(optimizer)}
        named = [each[1] if isinstance(each, tuple) else each for each in given]
        if not all(id(parameter) in known for parameter in named):
            add({**param_group, "params": given})

    return add_param_group
