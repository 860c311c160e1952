"""Learning-rate schedulers by instance, name or factory, and how each wants to be stepped."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from colabkit.errors import ArgumentError

_PER_STEP = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)
_OF_EPOCH = ("epoch", "t", "current_epoch")
_OF_VALUE = ("metrics", "metric", "val_loss", "loss", "score")


class Wants(enum.Enum):
    """What a scheduler's ``step`` is called with."""

    NOTHING = "step()"
    COUNT = "step(epoch)"
    VALUE = "step(metrics)"


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """A learning-rate scheduler and when it steps.

    Attributes:
        scheduler: The scheduler, or None.
        per_step: After every optimizer step rather than every epoch.
        wants: What its ``step`` is called with.
        counts_updates: Whether it is also told of each optimizer step by ``step_update``, as
            timm's are.
    """

    scheduler: Any = None
    per_step: bool = False
    wants: Wants = Wants.NOTHING
    counts_updates: bool = False

    @property
    def follows_steps(self) -> bool:
        """Whether optimizer steps matter to it."""
        return self.per_step or self.counts_updates

    def after_step(self, updates: int) -> None:
        """Called after each optimizer step, with the number of those done."""
        if self.counts_updates:
            self.scheduler.step_update(num_updates=updates)
        if not self.per_step:
            return
        try:
            self.scheduler.step(*((updates,) if self.wants is Wants.COUNT else ()))
        except ValueError as error:
            message = f"The scheduler cannot go on: {error}."
            hint = (
                "A cycle of fixed length cannot be trained on beyond its end: undo the change of"
                ' epochs, or begin a new cycle with another folder or resume="weights".'
            )
            raise ArgumentError(message, argument="scheduler", hint=hint) from error

    def after_epoch(self, epoch: int, logs: dict[str, float], monitor: str | None) -> None:
        """Called after each epoch, from 0, with its values."""
        if self.scheduler is None or self.per_step:
            return
        if self.wants is Wants.NOTHING:
            self.scheduler.step()
        elif self.wants is Wants.VALUE:
            self.scheduler.step(_watched(logs, monitor))
        elif "metric" in inspect.signature(self.scheduler.step).parameters:
            self.scheduler.step(epoch + 1, metric=_watched(logs, monitor))
        else:
            self.scheduler.step(epoch + 1)


def _watched(logs: dict[str, float], monitor: str | None) -> float:
    watched = monitor or ("val_loss" if "val_loss" in logs else "loss")
    if watched not in logs:
        message = f"monitor is {watched!r}, but an epoch reports {', '.join(sorted(logs))}."
        raise ArgumentError(message, argument="monitor", hint="Pass one of these names.")
    return logs[watched]


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
    # Accelerate's wrapper, which steps by its own rules, holds the one that was made.
    if isinstance(getattr(scheduler, "scheduler", None), lr_scheduler.LRScheduler):
        scheduler = scheduler.scheduler
    own = getattr(scheduler, "optimizer", optimizer)
    if getattr(own, "param_groups", None) is not optimizer.param_groups:
        message = "scheduler was made for another optimizer, whose learning rate it would change."
        hint = "Make it of this one, or pass a function that makes one of the optimizer."
        raise ArgumentError(message, argument="scheduler", hint=hint)
    per_step = per_step or isinstance(scheduler, _PER_STEP)
    wants = _wants(scheduler)
    if per_step and wants is Wants.VALUE:
        message = f"{type(scheduler).__name__} follows a value of each epoch, and not each step."
        hint = 'Pass it without "step"; or step it in a loop of your own with colabkit.Run.'
        raise ArgumentError(message, argument="scheduler", hint=hint)
    counts_updates = callable(getattr(scheduler, "step_update", None)) and not per_step
    return Schedule(scheduler, per_step, wants, counts_updates)


def _wants(scheduler: Any) -> Wants:
    """Returns what ``step`` must be called with, by the names of what it cannot do without."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return Wants.VALUE
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        each.name
        for each in inspect.signature(scheduler.step).parameters.values()
        if each.default is inspect.Parameter.empty
        and (each.kind in kinds or each.kind is inspect.Parameter.KEYWORD_ONLY)
    ]
    if not needed:
        return Wants.NOTHING
    if len(needed) == 1 and needed[0] in _OF_EPOCH:
        return Wants.COUNT
    if len(needed) == 1 and needed[0] in _OF_VALUE:
        return Wants.VALUE
    message = f"{type(scheduler).__name__}.step wants {', '.join(needed)}, which fit cannot know."
    hint = "Step it in a loop of your own with colabkit.Run, or from a callback of fit."
    raise ArgumentError(message, argument="scheduler", hint=hint)


def _named_scheduler(name: str, *, epochs: int, steps_per_epoch: int | None) -> Callable[..., Any]:
    if name == "cosine":
        return functools.partial(lr_scheduler.CosineAnnealingLR, T_max=epochs)
    if name == "onecycle" and steps_per_epoch:
        return lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[10 * group["lr"] for group in optimizer.param_groups],
            total_steps=epochs * steps_per_epoch,
        )
    hint = 'Pass "cosine", "onecycle" (for data of known length), or a scheduler.'
    raise ArgumentError.of("scheduler", name, hint)
