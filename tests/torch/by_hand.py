"""The training loop that a person writes with PyTorch alone: what ``fit`` is measured by."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

Batches = Sequence[tuple[Any, ...]]


@dataclasses.dataclass
class Told:
    """What a loop reports."""

    losses: list[float] = dataclasses.field(default_factory=list)
    epochs: list[dict[str, float]] = dataclasses.field(default_factory=list)
    skipped: int = 0


def cut(batch: tuple[Any, ...], size: int | None) -> list[tuple[Any, ...]]:
    """Returns a batch in parts of at most ``size`` samples, as even as can be."""
    count = len(batch[0])
    parts = 1 if size is None else -(-count // size)
    columns = [tensor.tensor_split(parts) for tensor in batch]
    return list(zip(*columns, strict=True))


def train(
    model: nn.Module,
    batches: Callable[[], Batches],
    *,
    epochs: int,
    optimizer: torch.optim.Optimizer,
    loss: Callable[..., torch.Tensor],
    groups: int | Sequence[int] = 1,
    clip: float | None = None,
    dtype: torch.dtype | None = None,
    size: int | None = None,
    each_step: Any = None,
    each_epoch: Any = None,
    validation: Batches = (),
    metrics: dict[str, Callable[[Any, Any], torch.Tensor]] | None = None,
) -> Told:
    """Trains as the tutorials do; ``loss(output, target, count)`` is a sum over ``count`` samples.

    Args:
        model: Called with all of a batch but its last, which is the target.
        batches: Makes the batches of an epoch.
        epochs: How many.
        optimizer: Made by the caller.
        loss: The loss of some samples, divided by how many the whole batch has.
        groups: Batches to an optimizer step; an epoch's last step may have fewer.
        clip: Largest norm of the gradients.
        dtype: What autocast lowers to.
        size: Samples to a part.
        each_step: A scheduler stepped after every optimizer step that was not skipped.
        each_epoch: Called with the epoch's values.
        validation: Batches to validate on.
        metrics: Functions of (output, target).
    """
    told, metrics = Told(), metrics or {}
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    autocast = torch.autocast("cpu", dtype, enabled=dtype is not None)
    for _ in range(epochs):
        model.train()
        seen: list[tuple[int, dict[str, float]]] = []
        every = list(batches())
        for group in grouped(every, groups):
            for batch in group:
                losses, outputs = [], []
                for *inputs, target in cut(batch, size):
                    with autocast:
                        output = model(*inputs)
                        part = loss(output, target, len(batch[0]))
                    scaler.scale(part / len(group)).backward()
                    losses.append(part.detach())
                    outputs.append(output.detach())
                told.losses.append(float(torch.stack(losses).sum()))
                whole = torch.cat(outputs)
                values = {name: float(of(whole, batch[-1])) for name, of in metrics.items()}
                seen.append((len(batch[0]), {"loss": told.losses[-1], **values}))
            if clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            before = scaler.get_scale()
            scaler.update()
            was_skipped = scaler.get_scale() < before
            told.skipped += was_skipped
            if each_step is not None and not was_skipped:
                each_step.step()
            optimizer.zero_grad()
        row = means(seen)
        if validation:
            found = validated(model, validation, loss, autocast, metrics)
            row |= {f"val_{name}": value for name, value in found.items()}
        told.epochs.append(row | {"lr": optimizer.param_groups[0]["lr"]})
        if each_epoch is not None:
            each_epoch(row)
    return told


def grouped(batches: Batches, groups: int | Sequence[int]) -> list[Batches]:
    """Returns the batches of each optimizer step."""
    if isinstance(groups, int):
        return [batches[first : first + groups] for first in range(0, len(batches), groups)]
    left = iter(batches)
    return [list(itertools.islice(left, count)) for count in groups]


@torch.no_grad()
def validated(
    model: nn.Module,
    batches: Batches,
    loss: Callable[..., torch.Tensor],
    autocast: Any,
    metrics: dict[str, Any],
) -> dict[str, float]:
    """Returns the means over validation batches, each weighing what it has of samples."""
    model.eval()
    seen = []
    for *inputs, target in batches:
        with autocast:
            output = model(*inputs)
            value = loss(output, target, len(target))
        values = {name: float(of(output, target)) for name, of in metrics.items()}
        seen.append((len(target), {"loss": float(value), **values}))
    return means(seen)


def means(seen: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Returns the means by name, each batch weighing what it has of samples."""
    total = sum(count for count, _ in seen)
    return {
        name: sum(values[name] * count for count, values in seen) / total for name in seen[0][1]
    }
