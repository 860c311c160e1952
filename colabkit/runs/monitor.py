"""Which epoch was the best, by one watched value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_LARGER_IS_BETTER = ("acc", "auc", "f1", "precision", "recall", "iou", "map", "r2", "score", "dice")


def better_mode(monitor: str) -> str:
    """Returns "max" for values the field wants large, "min" for losses and errors."""
    words = monitor.lower().removeprefix("val_").replace("-", "_").split("_")
    larger = any(word.startswith(_LARGER_IS_BETTER) for word in words)
    return "max" if larger and "loss" not in words else "min"


def is_better(value: float, best: float | None, *, mode: str, min_delta: float = 0.0) -> bool:
    """Whether a value beats the best so far by more than ``min_delta``; NaN never does."""
    if math.isnan(value):
        return False
    if best is None:
        return True
    return value > best + min_delta if mode == "max" else value < best - min_delta


class Monitor:
    """Watches one value per epoch.

    Args:
        name: The value's name in the epoch's logs, or None to watch nothing.
    """

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.best: float | None = None
        self._has_complained = False

    def complaint(self, logs: Mapping[str, Any]) -> str:
        """Returns, once, what to know when an epoch does not report the value, else ""."""
        if self.name is None or self.name in logs or self.best is not None or self._has_complained:
            return ""
        self._has_complained = True
        known = ", ".join(sorted(logs)) or "nothing"
        return f"monitor is {self.name!r}, but this epoch reports {known}: it cannot be the best."

    def improved(self, logs: Mapping[str, Any]) -> bool:
        """Takes an epoch's logs; returns whether the epoch is the best so far."""
        if self.name is None or self.name not in logs:
            return False
        value = float(logs[self.name])
        if not is_better(value, self.best, mode=better_mode(self.name)):
            return False
        self.best = value
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns the best so far."""
        return {"best": self.best, "name": self.name}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the best so far; that of another value is none to beat."""
        is_same = state.get("name", self.name) == self.name
        self.best = state["best"] if is_same else None
