"""Metrics by name, function, or object with update and compute."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.accuracy import Accuracy, Classes
from colabkit.fitting.torch.mistakes import form_of

MetricFunction = Callable[[Any, Any], Any]


def mean_absolute_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of the absolute differences."""
    return _difference("mae", output, target).abs().mean()


def mean_squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean of the squared differences."""
    return _difference("mse", output, target).square().mean()


def _difference(name: str, output: Any, target: Any) -> torch.Tensor:
    are_tensors = isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)
    if not are_tensors or output.numel() != target.numel():
        message = f"{name} cannot compare {form_of(output)} with targets of {form_of(target)}."
        hint = "Pass a function of (output, target), or another metric."
        raise ArgumentError(message, argument="metrics", hint=hint)
    difference: torch.Tensor = output.reshape(target.shape) - target
    return difference


_BY_NAME: dict[str, MetricFunction] = {
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
}


_ACCURACY = ("accuracy", "acc")


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
        self._functions = {n: m for n, m in named.items() if not hasattr(m, "update")}
        self._accuracies = {n: m for n, m in named.items() if isinstance(m, Accuracy)}
        self.accumulating = {n: m for n, m in named.items() if hasattr(m, "update")}

    def __bool__(self) -> bool:
        return bool(self._functions or self.accumulating)

    @property
    def stateful(self) -> dict[str, Any]:
        """Those whose state belongs into a checkpoint, by name."""
        return {**self._accuracies, **self.accumulating}

    @property
    def functions(self) -> list[Any]:
        """Those that are called, and keep what they know, if anything, in variables."""
        return [m for n, m in self._functions.items() if n not in self._accuracies]

    @property
    def names(self) -> list[str]:
        """Their names; an object may report under more of its own."""
        return [*self._functions, *self.accumulating]

    def leave_syncing_to_us(self) -> None:
        """Has TorchMetrics add nothing up over processes, each of which sees every sample."""
        for metric in self.accumulating.values():
            several = metric.values() if isinstance(metric, Mapping | nn.ModuleDict) else [metric]
            modules = [each.modules() for each in several if isinstance(each, nn.Module)]
            for each in itertools.chain(*modules):
                # What it goes by is taken from the setting where it is made.
                if hasattr(each, "sync_on_compute"):
                    vars(each).update(
                        sync_on_compute=False, _to_sync=False, dist_sync_on_step=False
                    )

    @torch.no_grad()
    def of_batch(
        self, output: Any, target: Any, classes: Classes, own_loss: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """Returns each function's scalar; feeds the objects that accumulate.

        Args:
            output: What losses look at of what the model returned.
            target: What it is compared with.
            classes: Where the loss takes the classes of an output to be.
            own_loss: The loss that the model computed itself, if it did.
        """
        for metric in self.accumulating.values():
            metric.update(output, target)
        return {
            name: function(output, target, classes, own_loss)
            if name in self._accuracies
            else function(output, target)
            for name, function in self._functions.items()
        }

    def of_epoch(self) -> dict[str, float]:
        """Returns what those that count or accumulate have for the epoch, and resets them."""
        values: dict[str, float] = {}
        for name, accuracy in self._accuracies.items():
            share = accuracy.compute()
            if share is not None:
                values[name] = share
            accuracy.reset()
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
            if metric in _ACCURACY:
                yield name or metric, Accuracy()
                continue
            if metric not in _BY_NAME:
                message = f"metrics names {metric!r}, which is no metric known by name."
                known = ", ".join([*_ACCURACY, *_BY_NAME])
                hint = (
                    f"Pass one of {known}, a function of (output, target), or an object with update"
                    " and compute, as torchmetrics has them."
                )
                raise ArgumentError(message, argument="metrics", hint=hint)
            yield name or metric, _BY_NAME[metric]
        elif isinstance(metric, type):
            message = f"metrics holds the class {metric.__name__}."
            raise ArgumentError(message, argument="metrics", hint=f"Pass {metric.__name__}().")
        elif not (callable(metric) or hasattr(metric, "update")):
            message = f"metrics holds {metric!r}, which is no metric."
            hint = "Pass a name, a function of (output, target), or an object such as Accuracy()."
            raise ArgumentError(message, argument="metrics", hint=hint)
        else:
            own_name: str = getattr(metric, "__name__", type(metric).__name__.lower())
            yield name or own_name, metric
