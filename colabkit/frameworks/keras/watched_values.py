"""Which value Keras' own callbacks go by: the best one of another is none to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

_WATCHING = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.ReduceLROnPlateau,
)
# Keras makes these anew, of what it is passed, where they are not set.
_OF_MARGIN = ("min_delta", "monitor_op")
_OF_VALUE = ("best", "best_epoch", "best_weights", "stopped_epoch", "wait", *_OF_MARGIN)


def watched_by(callbacks: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns by name what callbacks of Keras watch: the value, which way, and by what margin."""
    watching = {name: each for name, each in callbacks.items() if isinstance(each, _WATCHING)}
    return {
        # Keras turns the sign of the margin for what is to fall.
        name: [each.monitor, getattr(each, "mode", "auto"), abs(getattr(each, "min_delta", 0))]
        for name, each in watching.items()
    }


def of_another_value(then: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """Returns which callbacks watch another value than they did."""
    return {name for name, own in now.items() if list(then.get(name, own))[:2] != own[:2]}


def outdated(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paths of what callbacks have kept that today's settings take the place of."""
    others = of_another_value(then, now)
    for name, own in now.items():
        is_same = list(then.get(name, own)) == own
        names = _OF_VALUE if name in others else () if is_same else _OF_MARGIN
        yield from (f"{name}.{each}" for each in names)
