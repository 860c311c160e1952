"""Metrics among the modules of a run: what counts and has no weights."""

from __future__ import annotations

from typing import Any

from torch import nn


def keep_sums(value: Any) -> None:
    """Has metrics of torchmetrics, wherever they are, give their sums in their state."""
    for each in value.modules() if isinstance(value, nn.Module) else (value,):
        keep: Any = getattr(each, "persistent", None)
        if callable(keep) and hasattr(each, "compute"):
            keep(mode=True)


def is_metric(value: object) -> bool:
    """Whether a module only counts: it has no weights."""
    return isinstance(value, nn.Module) and next(value.parameters(), None) is None


def has_metrics(module: nn.Module) -> bool:
    """Whether a module is a metric, or has some in it."""
    named = (m for m in module.modules() if hasattr(m, "compute") or hasattr(m, "reset"))
    return is_metric(module) or any(map(is_metric, named))
