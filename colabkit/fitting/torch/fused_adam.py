"""Fused Adam and AdamW on a CPU, straight to PyTorch's kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

_KINDS = (torch.optim.Adam, torch.optim.AdamW)
_STEPS_TRIED = 3
# A plain number would be made a tensor again for each counter that it is added to.
_ONE = torch.ones((), dtype=torch.float32, device="cpu")


def fused_step(optimizer: torch.optim.Optimizer) -> bool:
    """Steps where nothing is out of the ordinary; returns whether it did.

    What looks at each kind of optimizer and tensor before the kernel takes twice its time in a
    small model. The first step, which makes the moments, is always the optimizer's own.
    """
    is_adamw = type(optimizer) is torch.optim.AdamW
    calls = []
    for group in optimizer.param_groups:
        call = _arguments(group, optimizer.state)
        if call is None:
            return False
        is_decoupled = group.get("decoupled_weight_decay", is_adamw)
        calls.append((torch._fused_adamw_ if is_decoupled else torch._fused_adam_, *call))
    with torch.no_grad():
        for kernel, tensors, settings in calls:
            torch._foreach_add_(tensors[-1], [_ONE] * len(tensors[-1]))
            kernel(*tensors, **settings)
    return True


def can_be_straight(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``fused_step`` knows the class, and was seen to give the same bits as its step."""
    kind: Any = type(optimizer)
    is_asked_for = any(group.get("fused") for group in optimizer.param_groups)
    return kind in _KINDS and is_asked_for and _agrees(kind)


def _arguments(
    group: Mapping[str, Any], moments: Mapping[torch.Tensor, Mapping[str, Any]]
) -> tuple[tuple[list[Any], ...], dict[str, Any]] | None:
    """Returns what the kernel takes for a group, None where the optimizer itself must look."""
    if not group["fused"] or type(group["lr"]) is not float:
        return None
    if group["amsgrad"] or group["maximize"] or group["capturable"] or group["differentiable"]:
        return None
    parameters, gradients, averages, squares, steps = [], [], [], [], []
    # One loop over them all: of a small model's step each comprehension is a hundredth.
    for parameter in group["params"]:
        gradient = parameter.grad
        if gradient is None:
            continue
        state = moments[parameter]
        is_usual = parameter.is_cpu and not gradient.is_sparse
        if not (state and is_usual) or parameter.dtype != group["params"][0].dtype:
            return None
        parameters.append(parameter)
        gradients.append(gradient)
        averages.append(state["exp_avg"])
        squares.append(state["exp_avg_sq"])
        steps.append(state["step"])
    if not parameters:
        return None
    beta1, beta2 = group["betas"]
    settings = {
        "lr": group["lr"],
        "beta1": beta1,
        "beta2": beta2,
        "weight_decay": group["weight_decay"],
        "eps": group["eps"],
        "amsgrad": False,
        "maximize": False,
        "grad_scale": None,
        "found_inf": None,
    }
    return (parameters, gradients, averages, squares, [], steps), settings


@functools.cache
def _agrees(kind: Callable[..., torch.optim.Optimizer]) -> bool:
    """Tries a few steps of both ways: another release of PyTorch may do more than its kernel."""
    try:
        return _gives_the_same(kind)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _gives_the_same(kind: Callable[..., torch.optim.Optimizer]) -> bool:
    ways = []
    for is_straight in (False, True):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 21, device="cpu"))
        optimizer = kind([weight], lr=0.1, weight_decay=0.3, fused=True)
        for step in range(_STEPS_TRIED):
            weight.grad = weight.detach().cos() * (step + 1)
            if not (is_straight and step and fused_step(optimizer)):
                optimizer.step()
        ways.append([weight.detach(), *optimizer.state[weight].values()])
    return all(torch.equal(one, other) for one, other in zip(*ways, strict=True))
