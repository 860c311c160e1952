"""A machine that is well when a training begins, and is likely to go soon right after."""

from __future__ import annotations

import itertools

import pytest

from colabkit.runtime import SessionClock


@pytest.fixture
def going_soon() -> SessionClock:
    times_s = itertools.chain([0.0], itertools.repeat(3500.0))
    return SessionClock(0.0, 3600.0, clock=lambda: next(times_s))
