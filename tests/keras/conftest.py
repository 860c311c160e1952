"""The parents of all lives, one for each backend and each worker of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def on_jax() -> Iterator[Nursery]:
    with Nursery("jax") as nursery:
        yield nursery


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs the body of a test marked ``in_nursery`` in a forked life of its own."""
    marker = pyfuncitem.get_closest_marker("in_nursery")
    if marker is None or not marker.args[0]:
        return None
    nursery: Nursery = pyfuncitem._request.getfixturevalue(marker.args[0])
    folder: Path = pyfuncitem._request.getfixturevalue("tmp_path")
    parents = [p.name for p in pyfuncitem.listchain() if isinstance(p, pytest.Class)]
    parameters: dict[str, Any] = getattr(getattr(pyfuncitem, "callspec", None), "params", {})
    nursery.check(
        folder,
        module=pyfuncitem.module.__name__,
        path=[*parents, pyfuncitem.originalname],
        parameters=parameters,
    )
    return True
