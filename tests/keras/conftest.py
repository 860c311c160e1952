"""The parents of all lives, one for each backend and each worker of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.keras.lives import WarmProcess


@pytest.fixture(scope="session")
def on_tensorflow() -> Iterator[WarmProcess]:
    with WarmProcess("tensorflow") as warm:
        yield warm


@pytest.fixture(scope="session")
def on_torch() -> Iterator[WarmProcess]:
    with WarmProcess("torch") as warm:
        yield warm


@pytest.fixture(scope="session")
def on_jax() -> Iterator[WarmProcess]:
    with WarmProcess("jax") as warm:
        yield warm


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs the body of a test marked ``in_nursery`` in a forked life of its own."""
    marker = pyfuncitem.get_closest_marker("in_nursery")
    if marker is None or not marker.args[0]:
        return None
    warm: WarmProcess = pyfuncitem._request.getfixturevalue(marker.args[0])
    folder: Path = pyfuncitem._request.getfixturevalue("tmp_path")
    parents = [p.name for p in pyfuncitem.listchain() if isinstance(p, pytest.Class)]
    parameters: dict[str, Any] = getattr(getattr(pyfuncitem, "callspec", None), "params", {})
    warm.check(
        folder,
        module=pyfuncitem.module.__name__,
        path=[*parents, pyfuncitem.originalname],
        parameters=parameters,
    )
    return True
