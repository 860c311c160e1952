"""Names by which a checkpoint knows callbacks, whoever stands before or behind them."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any


def numbered(callbacks: Iterable[Any]) -> dict[str, Any]:
    """Returns callbacks by the number that each has among those of its class.

    Example:
        >>> list(numbered([1, "a", 2]))
        ['callback 0 int', 'callback 0 str', 'callback 1 int']
    """
    counts: collections.Counter[str] = collections.Counter()
    found = {}
    for each in callbacks:
        kind = type(each).__name__
        found[f"callback {counts[kind]} {kind}"] = each
        counts[kind] += 1
    return found
