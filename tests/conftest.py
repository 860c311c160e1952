"""What holds for every test: no thread and no file is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_JOIN_TIMEOUT_S = 2.0
# A shell that starts the tests in the background has them ignore Ctrl-C, which many are about.
signal.signal(signal.SIGINT, signal.default_int_handler)
pytest_plugins = ["tests.places"]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread running or a file under ``tmp_path`` open."""
    threads_before = set(threading.enumerate())
    yield
    threads = [t for t in threading.enumerate() if t not in threads_before and _must_end(t)]
    for thread in threads:
        thread.join(_JOIN_TIMEOUT_S)
    left = [thread.name for thread in threads if thread.is_alive()]
    assert not left, f"threads left running: {left}"
    tmp_path = (getattr(request.node, "funcargs", None) or {}).get("tmp_path")
    if tmp_path is not None:
        files = _open_files_under(tmp_path)
        assert not files, f"files left open: {files}"


def _must_end(thread: threading.Thread) -> bool:
    return not thread.daemon or thread.name.startswith("colabkit")


def _open_files_under(folder: Path) -> list[str]:
    return [
        file.path
        for file in psutil.Process().open_files()
        if Path(file.path).is_relative_to(folder)
    ]
