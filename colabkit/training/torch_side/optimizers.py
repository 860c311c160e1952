"""Optimizers and schedulers by instance, name or factory."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from colabkit.errors import ArgumentError
from colabkit.training.torch_side.mistakes import check_is_built

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
_PER_STEP = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)


def make_optimizer(optimizer: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the optimizer asked for; AdamW, fused where it runs, when none is.

    Raises:
        ArgumentError: It is unknown, it trains nothing of the model, or the model has nothing
            to train.
    """
    check_is_built("model", model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if isinstance(optimizer, torch.optim.Optimizer):
        _check_trains_some(optimizer, parameters)
        return _without_closure(optimizer)
    if not parameters:
        message = f"{type(model).__name__} has no parameter with requires_grad=True."
        raise ArgumentError(message, argument="model", hint="Unfreeze what is to be trained.")
    if optimizer is None or isinstance(optimizer, str):
        return _named(optimizer or "adamw", parameters)
    made = optimizer(parameters) if callable(optimizer) else None
    if not isinstance(made, torch.optim.Optimizer):
        message = f"optimizer={optimizer!r} gives no torch.optim.Optimizer."
        hint = "Pass an optimizer, its name, or a function that makes one of the parameters."
        raise ArgumentError(message, argument="optimizer", hint=hint)
    return _without_closure(made)


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


def _named(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    make = _OPTIMIZERS.get(name.lower())
    if make is None:
        message = f"optimizer is {name!r}, which is no optimizer known by name."
        hint = f"Pass one of {', '.join(_OPTIMIZERS)}, an optimizer, or a function that makes one."
        raise ArgumentError(message, argument="optimizer", hint=hint)
    fusable = all(p.is_floating_point() and p.device.type in {"cpu", "cuda"} for p in parameters)
    if name.lower() in _FUSED and fusable:
        return make(parameters, fused=True)
    return make(parameters)


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate scheduler and when it steps.

    Attributes:
        scheduler: The scheduler, or None.
        per_step: After every optimizer step rather than every epoch.
    """

    scheduler: Any = None
    per_step: bool = False

    def after_step(self) -> None:
        """Called after each optimizer step."""
        if not self.per_step:
            return
        try:
            self.scheduler.step()
        except ValueError as error:
            message = f"The scheduler cannot go on: {error}."
            hint = (
                "A cycle of fixed length cannot be trained on beyond its end: undo the change of"
                ' epochs, or begin a new cycle with another folder or resume="weights".'
            )
            raise ArgumentError(message, argument="scheduler", hint=hint) from error

    def after_epoch(self, logs: dict[str, float], monitor: str | None) -> None:
        """Called after each epoch with its values."""
        if self.scheduler is None or self.per_step:
            return
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            watched = monitor or ("val_loss" if "val_loss" in logs else "loss")
            if watched not in logs:
                message = f"monitor is {watched!r}, but an epoch reports {', '.join(sorted(logs))}."
                raise ArgumentError(message, argument="monitor", hint="Pass one of these names.")
            self.scheduler.step(logs[watched])
        else:
            self.scheduler.step()


def make_schedule(
    scheduler: Any, optimizer: torch.optim.Optimizer, *, epochs: int, steps_per_epoch: int | None
) -> Schedule:
    """Returns the schedule for an instance, a factory, a name, or one of these with "step".

    Raises:
        ArgumentError: It is none of these, is of another optimizer, or needs a length that the
            data does not say.
    """
    per_step = isinstance(scheduler, tuple) and scheduler[-1] == "step"
    if isinstance(scheduler, tuple):
        scheduler = scheduler[0]
    if scheduler is None:
        return Schedule()
    if isinstance(scheduler, str):
        scheduler = _named_scheduler(scheduler, epochs=epochs, steps_per_epoch=steps_per_epoch)
    if not hasattr(scheduler, "step") and callable(scheduler):
        scheduler = scheduler(optimizer)
    if isinstance(scheduler, type) or not hasattr(scheduler, "step"):
        message = f"scheduler={scheduler!r} gives no scheduler."
        hint = "Pass a scheduler, or a function that makes one of the optimizer."
        raise ArgumentError(message, argument="scheduler", hint=hint)
    own = getattr(scheduler, "optimizer", optimizer)
    if getattr(own, "param_groups", None) is not optimizer.param_groups:
        message = "scheduler was made for another optimizer, whose learning rate it would change."
        hint = "Make it of this one, or pass a function that makes one of the optimizer."
        raise ArgumentError(message, argument="scheduler", hint=hint)
    return Schedule(scheduler, per_step or isinstance(scheduler, _PER_STEP))


def _named_scheduler(name: str, *, epochs: int, steps_per_epoch: int | None) -> Callable[..., Any]:
    if name == "cosine":
        return functools.partial(lr_scheduler.CosineAnnealingLR, T_max=epochs)
    if name == "onecycle" and steps_per_epoch:
        return lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[10 * group["lr"] for group in optimizer.param_groups],
            total_steps=epochs * steps_per_epoch,
        )
    message = f"scheduler is {name!r}."
    hint = 'Pass "cosine", "onecycle" (for data of known length), or a scheduler.'
    raise ArgumentError(message, argument="scheduler", hint=hint)
