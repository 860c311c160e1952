"""What an optimizer with other settings than before keeps beside what a checkpoint holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def complete_state(optimizer: torch.optim.Optimizer) -> None:
    """Gives an optimizer what its settings ask for and its restored state lacks, as at a start.

    Adam with ``amsgrad`` keeps a maximum, RMSprop with ``momentum`` a buffer: where such a setting
    is new, its first step would look for them. Of PyTorch's own optimizers only.
    """
    if not type(optimizer).__module__.startswith("torch.optim."):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            # Of one element first: which keys there are takes no memory to learn.
            small = parameter.detach().new_zeros([1] * parameter.ndim)
            if not state or _beginning(type(optimizer), group, small).keys() <= state.keys():
                continue
            beginning = _beginning(type(optimizer), group, parameter)
            state.update({key: each for key, each in beginning.items() if key not in state})


def _beginning(kind: Any, group: Mapping[str, Any], parameter: torch.Tensor) -> Mapping[str, Any]:
    """Returns the state that an optimizer begins with, nothing where it does not say."""
    taken = inspect.signature(kind.__init__).parameters
    settings = {key: group[key] for key in taken.keys() & group.keys() if key != "params"}
    weight = nn.Parameter(torch.zeros_like(parameter))
    # A step by no gradient from nothing leaves every moment at what it begins with.
    weight.grad = torch.zeros_like(parameter)
    try:
        optimizer = kind([weight], **settings)
        _step_of(kind)(optimizer)
    except (RuntimeError, TypeError, ValueError):
        return {}
    beginning: Mapping[str, Any] = optimizer.state[weight]
    return beginning


def _step_of(kind: Any) -> Any:
    """Returns a class's step without the hooks that users may have upon all optimizers' steps."""
    return kind.step.__wrapped__ if hasattr(kind.step, "hooked") else kind.step
