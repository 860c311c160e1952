"""State of optimizers that are not built yet: put back when they are, before the first step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def after_build(optimizer: Any, put_back: Callable[[], None]) -> None:
    """Calls ``put_back`` once, as soon as an optimizer that has no state yet is built."""
    build = optimizer.build

    @functools.wraps(build)
    def build_and_put_back(*given: Any, **named: Any) -> None:
        optimizer.build = build
        build(*given, **named)
        put_back()

    optimizer.build = build_and_put_back
