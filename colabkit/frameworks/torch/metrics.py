"""Metrics among the modules of a run: what counts and has no weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

from colabkit.frameworks.torch.pieces import class_of

_COUNTED_MAX = 1 << 14


def keep_sums(value: Any) -> None:
    """Has metrics of torchmetrics, wherever they are, give their sums in their state."""
    for each in value.modules() if isinstance(value, nn.Module) else (value,):
        keep: Any = getattr(each, "persistent", None)
        if callable(keep) and hasattr(each, "compute"):
            keep(mode=True)


def is_metric(value: object) -> bool:
    """Whether a module only counts: it has no weights."""
    return isinstance(value, nn.Module) and next(value.parameters(), None) is None


def is_row_of_metrics(value: object) -> bool:
    """Whether it is a list of metrics, which grows by one with each epoch (MetricTracker)."""
    return isinstance(value, nn.ModuleList) and len(value) > 0 and is_metric(value)


def grow_rows(module: nn.Module, keys: Iterable[str]) -> None:
    """Gives lists of metrics as many as they had, each made as the first one is.

    Args:
        module: What may hold such lists.
        keys: Those of the ``state_dict`` that is about to be loaded.
    """
    rows = [(path, row) for path, row in module.named_modules() if is_row_of_metrics(row)]
    for path, row in rows:
        prefix = f"{path}." if path else ""
        inner = (key.removeprefix(prefix) for key in keys if key.startswith(prefix))
        had = {name for each in inner if (name := each.partition(".")[0]).isdigit()}
        while had and len(row) <= max(map(int, had)):
            row.append(copy.deepcopy(next(row.children())))
        for name in [each for each in row._modules if had and each.isdigit() and each not in had]:
            del row._modules[name]


def has_metrics(module: nn.Module) -> bool:
    """Whether a module is a metric, or has some in it."""
    counting = (m for m in module.modules() if _is_named_so(m) or _is_counter(m))
    return is_metric(module) or any(map(is_metric, counting))


def _is_named_so(module: nn.Module) -> bool:
    return hasattr(module, "compute") or hasattr(module, "reset")


def _is_counter(module: nn.Module) -> bool:
    """Whether a class of the user's has few numbers as buffers: tables have more."""
    own = [each for each in module._buffers.values() if each is not None]
    is_users = not class_of(module).__module__.startswith("torch.")
    return bool(own) and is_users and sum(each.numel() for each in own) <= _COUNTED_MAX
