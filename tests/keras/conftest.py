"""The parents of all lives, one for each backend and each worker of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.keras.lives import Nursery


@pytest.fixture(scope="session")
def on_tensorflow() -> Iterator[Nursery]:
    with Nursery("tensorflow") as nursery:
        yield nursery


@pytest.fixture(scope="session")
def on_torch() -> Iterator[Nursery]:
    with Nursery("torch") as nursery:
        yield nursery
