"""PyTorch's calls of a step, without what a small model pays for in each and has no use for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.autograd import graph
from torch.optim import optimizer as torch_optimizer

from colabkit.fitting.torch.fused_adam import can_be_straight, fused_step

_plain_backward = torch.autograd.backward
# Not promised by PyTorch: where it is gone, its own call is taken.
_run_engine = getattr(graph, "_engine_run_backward", None)


def backward(loss: torch.Tensor) -> None:
    """Does what ``loss.backward()`` does for a scalar, as its last line does it.

    What it looks at before costs a small model a tenth of its step.
    """
    is_usual = (
        torch.autograd.backward is _plain_backward
        and not loss.ndim
        and loss.requires_grad
        and loss.is_floating_point()
        and not torch.overrides.has_torch_function_unary(loss)
    )
    if _run_engine is None or not is_usual:
        torch.autograd.backward(loss)
        return
    one = torch.ones_like(loss)
    _run_engine((loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def backward_with(tensors: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Does what ``torch.autograd.backward`` does for leaves with gradients of their own form."""
    if _run_engine is None or torch.autograd.backward is not _plain_backward:
        torch.autograd.backward(tensors, gradients)
        return
    given = (tuple(tensors), tuple(gradients))
    _run_engine(*given, False, False, (), allow_unreachable=True, accumulate_grad=True)


def zero_grad_of(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Returns what sets the gradients to None; without PyTorch's profiling hooks where it can."""
    is_own = type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad
    if is_own or "zero_grad" in vars(optimizer):
        return lambda: optimizer.zero_grad()

    def clear() -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return clear


def step_of(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Returns the optimizer's step, without the label for a profiler while none runs.

    The label costs a small model a tenth of its step. Hooks are called as ever.
    """
    inner = getattr(type(optimizer).step, "__wrapped__", None)
    hooks = getattr(optimizer, "_optimizer_step_pre_hooks", None)
    after = getattr(optimizer, "_optimizer_step_post_hooks", None)
    if inner is None or hooks is None or after is None or "step" in vars(optimizer):
        return lambda: optimizer.step()

    is_straight, own = can_be_straight(optimizer), vars(optimizer)

    def any_hooks() -> bool:
        return bool(
            torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
        )

    def step() -> None:
        # One before and one after are the run's own, and change no arguments.
        has_others = len(hooks) > 1 or len(after) > 1 or any_hooks() or "step" in own
        if has_others or torch.autograd.profiler._is_profiler_enabled:
            optimizer.step()
            return
        for hook in hooks.values():
            hook(optimizer, (), {})
        if not (is_straight and fused_step(optimizer)):
            inner(optimizer)
        for hook in after.values():
            hook(optimizer, (), {})

    return step
