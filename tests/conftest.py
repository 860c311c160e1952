"""What holds for every test: no thread and no file is left behind."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from tests import abilities

_END_S = 120.0
# A shell that starts the tests in the background has them ignore Ctrl-C, which many are about.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Read when gcsfs is loaded, by whichever test comes first; the stand-in has none of that.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
# Threads of PyTorch's operations that have nothing to do sleep rather than spin: there are more
# processes than cores, and two thirds of what training in a test takes went by in spinning.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# TensorBoard reads and writes as where TensorFlow is not installed: that would be loaded into the
# processes of all tests, and each of their thousands of forks would take along its pages.
sys.modules["tensorboard.compat.notf"] = types.ModuleType("tensorboard.compat.notf")
# No test depends on how fast its machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
pytest_plugins = ["tests.places"]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a thread running or a file under ``tmp_path`` open."""
    threads_before = set(threading.enumerate())
    yield
    threads = [t for t in threading.enumerate() if t not in threads_before and _must_end(t)]
    for thread in threads:
        thread.join(_END_S)
    left = [thread.name for thread in threads if thread.is_alive()]
    assert not left, f"threads left running: {left}"
    tmp_path = (getattr(request.node, "funcargs", None) or {}).get("tmp_path")
    if tmp_path is not None:
        end_s = time.monotonic() + _END_S
        while files := _open_files_under(tmp_path):
            # What only a circle of references holds is closed when that is found.
            gc.collect()
            assert time.monotonic() < end_s, f"files left open: {files}"
            time.sleep(0.05)


def _must_end(thread: threading.Thread) -> bool:
    return not thread.daemon or thread.name.startswith("colabkit")


def _open_files_under(folder: Path) -> list[str]:
    return [
        file.path
        for file in psutil.Process().open_files()
        if Path(file.path).is_relative_to(folder)
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test on a GPU wants it for itself: it runs when it is asked for, one after the other."""
    if "gpu" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=abilities.GPU))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leaves what is loaded before the first test out of all collections of garbage.

    While it is loaded they would take a third of the time, and each in a test looked through
    all of it.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for need in marker.args:
            need.require()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was not tested, a line for each reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("not tested here")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} × {reason}")
