"""Metrics by name, function, or object with update and compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from colabkit.errors import ArgumentError

MetricFunction = Callable[[Any, Any], Any]


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of samples whose largest output, or sign of the one output, is the target."""
    if output.ndim == target.ndim + 1 and output.shape[1] > 1:
        return (output.argmax(1) == target).float().mean()
    return ((output.reshape(target.shape) > 0) == (target > 0.5)).float().mean()


def mean_absolute_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of the absolute differences."""
    return (output.reshape(target.shape) - target).abs().mean()


def mean_squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of the squared differences."""
    return (output.reshape(target.shape) - target).square().mean()


_BY_NAME: dict[str, MetricFunction] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
}


class Metrics:
    """The metrics of a run, as one function of (output, target).

    Args:
        metrics: A name, function or object with ``update`` and ``compute``; several of
            these; or a mapping from names of your own to them.

    Raises:
        ArgumentError: One of them is unknown, or two have one name.
    """

    def __init__(self, metrics: Any) -> None:
        pairs = list(_named(metrics))
        named = dict(pairs)
        if len(named) < len(pairs):
            message = f"metrics holds {len(pairs)} metrics under {len(named)} names."
            hint = "Name them yourself: metrics={'top1': ..., 'top5': ...}."
            raise ArgumentError(message, argument="metrics", hint=hint)
        self.functions = {n: m for n, m in named.items() if not hasattr(m, "update")}
        self.accumulating = {n: m for n, m in named.items() if hasattr(m, "update")}

    def __bool__(self) -> bool:
        return bool(self.functions or self.accumulating)

    @torch.no_grad()
    def of_batch(self, output: Any, target: Any) -> dict[str, Any]:
        """Returns each function's scalar; feeds the objects that accumulate."""
        for metric in self.accumulating.values():
            metric.update(output, target)
        return {name: function(output, target) for name, function in self.functions.items()}

    def of_epoch(self) -> dict[str, float]:
        """Returns what the accumulating objects computed, and resets them."""
        values: dict[str, float] = {}
        for name, metric in self.accumulating.items():
            values.update(_numbers(name, metric.compute()))
            metric.reset()
        return values


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields a metric's values: one, those of a collection by name, or one for each class."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(str(key), inner)
    elif isinstance(value, torch.Tensor) and value.numel() != 1:
        yield from (
            (f"{name}_{place}", each) for place, each in enumerate(value.flatten().tolist())
        )
    else:
        yield name, float(value)


def _named(metrics: Any) -> Iterable[tuple[str, Any]]:
    if metrics is None:
        return
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    pairs: Iterable[tuple[str | None, Any]] = ((None, m) for m in metrics)
    if isinstance(metrics, Mapping):
        pairs = metrics.items()
    for name, metric in pairs:
        if isinstance(metric, str):
            if metric not in _BY_NAME:
                message = f"metrics names {metric!r}, which is no metric known by name."
                hint = f"Pass one of {', '.join(_BY_NAME)}, or a function of (output, target)."
                raise ArgumentError(message, argument="metrics", hint=hint)
            yield name or metric, _BY_NAME[metric]
        elif isinstance(metric, type) or not (callable(metric) or hasattr(metric, "update")):
            message = f"metrics holds {metric!r}, which is no metric."
            hint = "Pass a name, a function of (output, target), or an object such as Accuracy()."
            raise ArgumentError(message, argument="metrics", hint=hint)
        else:
            own_name: str = getattr(metric, "__name__", type(metric).__name__.lower())
            yield name or own_name, metric
