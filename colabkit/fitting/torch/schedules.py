"""Learning-rate schedulers by instance, name or factory, and how each wants to be stepped."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
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

    def after_epoch(
        self,
        epoch: int,
        logs: dict[str, float],
        monitor: str | None,
        *,
        lacks_validation: bool = False,
    ) -> None:
        """Called after each epoch, from 0, with its values.

        What follows a value of the validation waits where an epoch has none.
        """
        if self.scheduler is None or self.per_step:
            return
        waits = lacks_validation and monitor not in logs
        if self.wants is Wants.NOTHING:
            self.scheduler.step()
        elif self.wants is Wants.VALUE:
            if not waits:
                self.scheduler.step(_watched(logs, monitor))
        elif "metric" in inspect.signature(self.scheduler.step).parameters and not waits:
            self.scheduler.step(epoch + 1, metric=_watched(logs, monitor))
        else:
            self.scheduler.step(epoch + 1)


def _watched(logs: dict[str, float], monitor: str | None) -> float:
    watched = monitor or ("val_loss" if "val_loss" in logs else "loss")
    if watched not in logs:
        message = f"monitor is {watched!r}, but an epoch reports {', '.join(sorted(logs))}."
        raise ArgumentError(message, argument="monitor", hint="Pass one of these names.")
    return logs[watched]


@dataclasses.dataclass(frozen=True, slots=True)
class Length:
    """How long a run is, as far as its data says.

    Attributes:
        epochs: Passes over the data.
        batches: Batches of a pass, None where nobody knows.
        accumulate: Batches whose gradients make one optimizer step.
    """

    epochs: int
    batches: int | None
    accumulate: int = 1

    @property
    def updates(self) -> int | None:
        """Optimizer steps in all; the last of a pass may be of fewer batches."""
        return self.batches and self.epochs * math.ceil(self.batches / self.accumulate)


class Shape:
    """The rate of each optimizer step as a share of the highest: up in a line, then as named.

    Those of the same names in Transformers. Its attributes are what a checkpoint holds of it.

    Args:
        after: "constant", "linear" or "cosine": what comes after the warm-up.
        warmup: Optimizer steps of the warm-up.
        updates: Optimizer steps in all.
    """

    def __init__(self, after: str, *, warmup: int, updates: int) -> None:
        self.after, self.warmup, self.updates = after, warmup, updates

    def __call__(self, done: int) -> float:
        """Returns the share after so many optimizer steps."""
        if done < self.warmup:
            return done / max(1, self.warmup)
        if self.after == "constant":
            return 1.0
        rest = max(1, self.updates - self.warmup)
        if self.after == "linear":
            return max(0.0, (self.updates - done) / rest)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((done - self.warmup) / rest))))


def make_schedule(
    scheduler: Any,
    optimizer: torch.optim.Optimizer,
    length: Length,
    *,
    warmup: float | None = None,
) -> Schedule:
    """Returns the schedule for an instance, a factory, a name, or one of these with "step".

    Args:
        scheduler: What ``fit`` was given.
        optimizer: Whose rate it changes.
        length: How long the run is.
        warmup: Optimizer steps in which the rate rises to its height; below 1 a share of all.

    Raises:
        ArgumentError: It is none of these, is of another optimizer, or needs a length that the
            data does not say.
    """
    per_step = isinstance(scheduler, tuple) and scheduler[-1] == "step"
    if isinstance(scheduler, tuple):
        scheduler = scheduler[0]
    if isinstance(scheduler, str) or warmup:
        _require_rates(optimizer, f"warmup={warmup}" if warmup else f"scheduler={scheduler!r}")
        per_step = per_step or bool(warmup) or scheduler == "linear"
        scheduler = _named_scheduler(scheduler, length, warmup=warmup, per_step=per_step)
    if scheduler is None:
        return Schedule()
    if isinstance(scheduler, type):
        scheduler = _made_of(scheduler, optimizer)
    elif not hasattr(scheduler, "step") and callable(scheduler):
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


def _made_of(kind: type, optimizer: torch.optim.Optimizer) -> Any:
    try:
        return kind(optimizer)
    except TypeError as error:
        name = kind.__name__
        message = f"{name} cannot be made of the optimizer alone ({error})."
        hint = f"Pass scheduler=lambda optimizer: {name}(optimizer, ...)."
        raise ArgumentError(message, argument="scheduler", hint=hint) from error


def _require_rates(optimizer: torch.optim.Optimizer, what: str) -> None:
    if all(group.get("lr") is not None for group in optimizer.param_groups):
        return
    message = (
        f"{what} changes the learning rate, and {type(optimizer).__name__} has none to change."
    )
    hint = "Leave it out, or make the optimizer with lr=."
    raise ArgumentError(message, argument=what.partition("=")[0], hint=hint)


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


def _named_scheduler(
    name: Any, length: Length, *, warmup: float | None, per_step: bool
) -> Callable[..., Any]:
    if warmup and name is not None and name not in {"linear", "cosine"}:
        message = f"warmup is {warmup}, and scheduler is {name!r}, which begins in its own way."
        hint = 'Leave warmup out, or pass scheduler="linear", "cosine" or none.'
        raise ArgumentError(message, argument="warmup", hint=hint)
    if name == "cosine" and not per_step:
        return functools.partial(lr_scheduler.CosineAnnealingLR, T_max=length.epochs)
    if name in {None, "linear", "cosine"}:
        shape = Shape(
            name or "constant",
            warmup=_warmup_steps(warmup or 0, length),
            updates=0 if name is None else _updates(f"scheduler={name!r}", length),
        )
        return lambda optimizer: lr_scheduler.LambdaLR(optimizer, shape)
    if name == "onecycle":
        total = _updates("scheduler='onecycle'", length)
        return lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[10 * group["lr"] for group in optimizer.param_groups],
            total_steps=total,
        )
    hint = 'Pass "cosine", "linear", "onecycle", or a scheduler; a warm-up is warmup=100.'
    raise ArgumentError.of("scheduler", name, hint)


def _warmup_steps(warmup: float, length: Length) -> int:
    if warmup >= 1:
        return int(warmup)
    return math.ceil(_updates(f"warmup={warmup}", length) * warmup) if warmup else 0


def _updates(what: str, length: Length) -> int:
    if length.updates:
        return length.updates
    message = f"{what} needs to know how many batches there are, and the data does not say."
    hint = "Pass data with a length, a warm-up in steps, or a scheduler made for a number of steps."
    raise ArgumentError(message, argument=what.split("=")[0], hint=hint)
