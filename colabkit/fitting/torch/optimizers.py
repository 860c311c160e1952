"""Optimizers by instance, name or factory."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.frameworks.torch.prepared import plain_optimizer

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}
_FUSED = ("adamw", "adam", "sgd")
_WIDE_BYTES = 4


def make_optimizer(
    optimizer: Any,
    model: nn.Module,
    own: Sequence[nn.Parameter] = (),
    *,
    settings: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Returns the optimizer asked for; AdamW, fused where it runs, when none is.

    Args:
        optimizer: An optimizer, its name, a function of the parameters, or None.
        model: What it is to train.
        own: The loss's own weights, trained with the model by an optimizer that is made here.
        settings: What an optimizer made here is given: "lr", "weight_decay".

    Raises:
        ArgumentError: It is unknown, it trains nothing of the model, or takes no such settings;
            or the model has nothing to train.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    settings = settings or {}
    if isinstance(optimizer, torch.optim.Optimizer):
        if settings:
            raise _has_its_own(settings, "optimizer has a value for it already")
        _check_trains_some(optimizer, parameters)
        return _without_closure(plain_optimizer(optimizer))
    if not parameters:
        message = f"{type(model).__name__} has no parameter with requires_grad=True."
        raise ArgumentError(message, argument="model", hint="Unfreeze what is to be trained.")
    parameters += own
    if optimizer is None or isinstance(optimizer, str):
        is_sparse = any(getattr(each, "sparse", False) is True for each in model.modules())
        return _named(optimizer or "adamw", parameters, settings, is_sparse=is_sparse)
    if callable(optimizer) and not _takes(optimizer, settings):
        raise _has_its_own(settings, "the function that makes the optimizer takes none")
    made = optimizer(parameters, **settings) if callable(optimizer) else None
    if not isinstance(made, torch.optim.Optimizer):
        message = f"optimizer is of type {type(optimizer).__name__}, and no optimizer."
        hint = "Pass an optimizer, its name, or a function that makes one of the parameters."
        if callable(optimizer):
            name = getattr(optimizer, "__name__", type(optimizer).__name__)
            message = f"optimizer is {name}, which gives no torch.optim.Optimizer."
        elif isinstance(optimizer, Mapping) and isinstance(optimizer.get("name"), str):
            hint = 'Write optimizer="adamw", lr=1e-3; or make it, and pass that.'
        elif isinstance(optimizer, Mapping | list | tuple):
            hint = "Pass each by itself: optimizer=optimizer, scheduler=scheduler."
        raise ArgumentError(message, argument="optimizer", hint=hint)
    return _without_closure(made)


def own_weights(loss: object, model: nn.Module) -> list[nn.Parameter]:
    """Returns the weights to train that a loss has besides the model's, as ArcFace's centres."""
    if not isinstance(loss, nn.Module):
        return []
    of_model = set(map(id, model.parameters()))
    return [p for p in loss.parameters() if p.requires_grad and id(p) not in of_model]


def left_out_error(loss: nn.Module, parameters: Sequence[nn.Parameter]) -> ArgumentError:
    """Returns the error for weights of a loss that get gradients and that nobody trains."""
    left = set(map(id, parameters))
    names = ", ".join(name for name, each in loss.named_parameters() if id(each) in left)
    message = f"{type(loss).__name__} has weights of its own ({names}), and optimizer leaves them"
    hint = (
        "Make it of both: [*model.parameters(), *loss.parameters()]; or leave optimizer out, and"
        " they are trained too. If they must stay as they are: loss.requires_grad_(False)."
    )
    return ArgumentError(f"{message} out.", argument="optimizer", hint=hint)


def set_mode(optimizer: torch.optim.Optimizer, *, training: bool) -> None:
    """Tells an optimizer of two sets of weights, as schedule-free ones are, which to show."""
    switch = getattr(optimizer, "train" if training else "eval", None)
    if callable(switch):
        switch()


def _without_closure(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Returns an optimizer; raises ArgumentError if its step must be given a closure."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        message = f"{type(optimizer).__name__} computes the loss several times in a step."
        hint = "Write the loop yourself with colabkit.Run and optimizer.step(closure)."
        raise ArgumentError(message, argument="optimizer", hint=hint)
    return optimizer


def _check_trains_some(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Raises ArgumentError for an optimizer of another model: the loss would never fall."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if parameters and trained.isdisjoint(map(id, parameters)):
        message = "optimizer trains none of this model's parameters: it was made for another one."
        hint = "Make it anew after the model: run its cell again, then this one."
        raise ArgumentError(message, argument="optimizer", hint=hint)


def _takes(make: Callable[..., Any], settings: Mapping[str, float]) -> bool:
    parameters = inspect.signature(make).parameters if settings else {}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return takes_any or all(name in parameters for name in settings)


def _has_its_own(settings: Mapping[str, float], why: str) -> ArgumentError:
    name, value = next(iter(settings.items()))
    hint = (
        f"Set it where the optimizer is made, {name}={value!r}; or pass the optimizer's name or its"
        " class here."
    )
    return ArgumentError(f"{name} is {value!r}, and {why}.", argument=name, hint=hint)


def _named(
    name: str,
    parameters: list[nn.Parameter],
    settings: Mapping[str, float],
    *,
    is_sparse: bool,
) -> torch.optim.Optimizer:
    make = _OPTIMIZERS.get(name.lower())
    if make is None:
        message = f"optimizer is {name!r}, which is no optimizer known by name."
        hint = f"Pass one of {', '.join(_OPTIMIZERS)}, an optimizer, or a function that makes one."
        # As Hugging Face's TrainingArguments call them: adamw_torch, adamw_torch_fused, adamw_hf.
        first, _, rest = name.lower().partition("_")
        if first in _OPTIMIZERS and rest.partition("_")[0] in {"torch", "hf"}:
            hint = f'Write optimizer="{first}".'
        elif "bit" in rest:
            hint = (
                "Pass a function that makes it: optimizer=lambda p:"
                " bitsandbytes.optim.AdamW8bit(p, lr=1e-4)."
            )
        raise ArgumentError(message, argument="optimizer", hint=hint)
    if is_sparse and name.lower() != "adagrad":
        message = (
            f"The model has an embedding with sparse=True, whose gradients {name} cannot take."
        )
        if name.lower() == "sgd":
            message = "The model has an embedding with sparse=True, and sgd by name has momentum."
        hint = (
            'Make it with sparse=False; or pass optimizer="adagrad", or an SGD without momentum:'
            " optimizer=lambda p: torch.optim.SGD(p, lr=0.1)."
        )
        raise ArgumentError(message, argument="optimizer", hint=hint)
    if name.lower() in _FUSED and all(_can_be_fused(p, name) for p in parameters):
        return make(parameters, fused=True, **settings)
    return make(parameters, **settings)


def _can_be_fused(parameter: nn.Parameter, name: str) -> bool:
    if not parameter.is_floating_point():
        return False
    # On a processor PyTorch's fused SGD gives narrow weights other steps than its own loop does.
    is_narrow = name.lower() == "sgd" and parameter.element_size() < _WIDE_BYTES
    return parameter.device.type == "cuda" or (parameter.device.type == "cpu" and not is_narrow)
