"""One reminder, after the GPU has stood idle for long."""

from __future__ import annotations

import threading

from colabkit.runtime import GpuUsage, Usage, UsageReader
from colabkit.session.gpu_reminder import GpuReminder

MINUTE_S = 60.0


def reading(*busy: int | None) -> Usage:
    return Usage(0, 0, 0, gpus=tuple(GpuUsage("Tesla T4", 0, 15 << 30, each) for each in busy))


class Watch:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.now_s = 0.0
        self.reminder = GpuReminder(
            say=self.said.append, advice="Give it back.", clock=lambda: self.now_s
        )

    def see(self, minutes: float, *busy: int | None) -> None:
        self.now_s = minutes * MINUTE_S
        self.reminder.check(reading(*busy))


def test_it_is_said_once_after_half_an_hour_without_work():
    watch = Watch()
    for minute in range(1, 90):
        watch.see(minute, 0, 0)
        assert len(watch.said) == (minute >= 30)
    assert watch.said == ["The GPU has not been used for 30 min, and it counts. Give it back."]


def test_work_on_any_gpu_begins_the_count_anew():
    watch = Watch()
    watch.see(29, 0, 3)
    watch.see(58, 0, 0)
    assert watch.said == []
    watch.see(59, 0, 0)
    assert len(watch.said) == 1


def test_a_gpu_that_does_not_tell_is_taken_to_work():
    watch = Watch()
    watch.see(100, None)
    watch.see(100)
    assert watch.said == []


def test_each_reading_is_handed_on():
    came = threading.Event()
    reader = UsageReader(lambda: None, period_s=0.01, on_reading=lambda usage: came.set())
    assert came.wait(300)
    reader.close()
