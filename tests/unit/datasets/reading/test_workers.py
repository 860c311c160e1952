"""Threads that a call is done with, whatever became of them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from colabkit.datasets.reading.workers import Pool
from colabkit.storage import asked
from tests.unit.datasets.building import attempt, side_by_side
from tests.unit.datasets.sources import make_tar, make_zip, some_files


def test_a_pool_gives_results_in_order_and_raises_what_failed():
    with Pool(3, "test") as pool:
        assert list(pool.map(lambda n: n * n, range(100))) == [n * n for n in range(100)]
        with pytest.raises(ZeroDivisionError):
            list(pool.map(lambda n: 1 // n, [1, 0]))


def test_a_pool_starts_no_more_threads_than_there_is_work_for():
    names = set()
    with Pool(8, "test") as pool:
        for _ in range(20):
            pool.submit(lambda: names.add(threading.current_thread().name)).result()
    assert len(names) < 8


def test_what_no_thread_has_begun_can_be_cancelled():
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> str:
        begun.set()
        go_on.wait()
        return "done"

    pool = Pool(1, "test")
    first = pool.submit(wait)
    others = [pool.submit(wait) for _ in range(5)]
    begun.wait()
    pool.shutdown(wait=False, cancel_futures=True)
    go_on.set()
    assert first.result() == "done"
    assert all(other.cancelled() for other in others)
    pool.shutdown()


def test_a_script_ends_though_threads_hang():
    # Each would be waited for without end.
    script = (
        "import threading\n"
        "from colabkit.datasets.reading.workers import Pool\n"
        "from colabkit.storage import asked\n"
        "pool = Pool(2, 'test')\n"
        "pool.submit(threading.Event().wait)\n"
        "try: asked(threading.Event().wait, timeout_s=0.1)\n"
        "except TimeoutError: print('no answer')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600
    )
    assert ended.stdout == "no answer\n"


def test_what_is_asked_answers_or_fails_as_if_called():
    assert asked(lambda: 42) == 42
    with pytest.raises(FileNotFoundError):
        asked(lambda: open("/nowhere"))  # noqa: PTH123, SIM115 - it fails


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_small_archive_is_unpacked_without_starting_a_thread(tmp_path, monkeypatch, make):
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda t: (started.append(t.name), start(t)))
    archive = make(tmp_path / "archive", some_files(9))
    assert attempt(archive, tmp_path)[1] is None
    assert started == []
    with side_by_side():
        (tmp_path / "again").mkdir()
        assert attempt(archive, tmp_path / "again")[1] is None
    assert any(name.startswith("colabkit-read") for name in started)
