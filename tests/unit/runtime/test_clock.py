"""The session clock says ages, and calls an estimate an estimate."""

from __future__ import annotations

import math
import time

import psutil
import pytest

from colabkit.errors import ArgumentError
from colabkit.runtime import Platform, SessionClock, machine_started_s, session_clock

HOUR_S = 3600.0


def at(hours: float, **facts: object) -> SessionClock:
    return SessionClock(1000.0, clock=lambda: 1000.0 + hours * HOUR_S, **facts)


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (at(3.2), "machine up 3 h 12 min, about 8 h 48 min left (an estimate)"),
        (at(0), "machine up 0 min, about 12 h left (an estimate)"),
        (at(0.75, limit_s=None), "machine up 45 min"),
        (
            at(2, mount_started_s=1000.0 + HOUR_S),
            "machine up 2 h, Drive mounted 1 h ago, about 10 h left (an estimate)",
        ),
        (
            at(12.5),
            "machine up 12 h 30 min, longer than the usual 12 h: it may end at any moment",
        ),
        (at(-1), "machine up 0 min, about 12 h left (an estimate)"),
    ],
)
def test_the_clock_speaks_in_hours_and_minutes(clock, words):
    assert clock.describe() == words


def test_time_passes_by_the_clock_that_was_passed_in():
    now = [0.0]
    clock = SessionClock(0.0, 100.0, clock=lambda: now[0])
    seen = []
    for second in (0.0, 40.0, 100.0, 400.0):
        now[0] = second
        seen.append((clock.machine_age_s, clock.left_s))
    assert seen == [(0.0, 100.0), (40.0, 60.0), (100.0, 0.0), (400.0, 0.0)]


def test_the_age_of_the_mount_begins_when_it_is_mounted():
    clock = at(5)
    assert clock.mount_age_s is None
    assert clock.mounted(1000.0 + 4 * HOUR_S).mount_age_s == HOUR_S
    assert clock.mounted(1000.0).mounted(None).mount_age_s is None


@pytest.mark.parametrize(
    ("platform", "on_tpu", "limit_h"),
    [
        (Platform.COLAB, False, 12),
        (Platform.COLAB, True, 12),
        (Platform.KAGGLE, False, 12),
        (Platform.KAGGLE, True, 9),
        (Platform.COLAB_ENTERPRISE, False, None),
        (Platform.OTHER, False, None),
    ],
)
def test_each_platform_has_its_usual_limit_or_none(platform, on_tpu, limit_h):
    clock = session_clock(platform, on_tpu=on_tpu)
    assert clock.limit_s == (None if limit_h is None else limit_h * HOUR_S)
    assert ("estimate" in clock.describe() or "usual" in clock.describe()) == bool(limit_h)


def test_the_limit_can_be_set_and_taken_away():
    assert session_clock(Platform.COLAB, limit_s=24 * HOUR_S).limit_s == 24 * HOUR_S
    assert session_clock(Platform.OTHER, limit_s=HOUR_S).limit_s == HOUR_S
    assert session_clock(Platform.COLAB, limit_s=math.inf).limit_s is None


@pytest.mark.parametrize("limit_s", [0, -1, math.nan])
def test_a_limit_that_is_none_is_refused(limit_s):
    with pytest.raises(ArgumentError, match="limit_s"):
        session_clock(Platform.COLAB, limit_s=limit_s)


def test_the_machine_began_after_its_kernel_and_before_now():
    began_s = machine_started_s()
    assert psutil.boot_time() - 2 <= began_s <= time.time()


def test_where_the_first_process_is_hidden_the_boot_counts(monkeypatch):
    def hidden(pid: int) -> None:
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", hidden)
    assert machine_started_s() == psutil.boot_time()
