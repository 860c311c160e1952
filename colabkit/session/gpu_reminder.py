"""Says once that a lent GPU stands idle: compute is scarce, and what is not used still counts."""

from __future__ import annotations

import time
from collections.abc import Callable

from colabkit.notebook import duration_words, say
from colabkit.runtime import Device, DeviceKind, Platform, Usage, UsageReader

IDLE_S = 30 * 60.0
_PERIOD_S = 60.0
_ADVICE = {
    Platform.COLAB: "colabkit.release() gives the machine back once all is on Drive.",
    Platform.KAGGLE: "Run → Stop session gives the machine back.",
}
_readers: list[UsageReader] = []


class GpuReminder:
    """Counts how long no GPU has computed, and says so once.

    Args:
        say: Tells the user a sentence.
        advice: What to do about it.
        idle_s: How long is long.
        clock: Seconds that only grow.

    Example:
        >>> from colabkit.runtime import GpuUsage
        >>> times = iter([0.0, 1900.0])
        >>> reminder = GpuReminder(say=lambda words: print(words[:36]), clock=lambda: next(times))
        >>> reminder.check(Usage(0, 0, 0, gpus=(GpuUsage("Tesla T4", 0, 15 << 30, 0),)))
        The GPU has not been used for 31 min
    """

    def __init__(
        self,
        *,
        say: Callable[[str], None],
        advice: str = "",
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._advice = advice
        self._idle_s = idle_s
        self._clock = clock
        self._used_s = clock()
        self._has_said = False

    def check(self, usage: Usage) -> None:
        """Takes up one reading."""
        now_s = self._clock()
        if not usage.gpus or any(gpu.busy_percent != 0 for gpu in usage.gpus):
            self._used_s = now_s
        elif not self._has_said and now_s - self._used_s >= self._idle_s:
            self._has_said = True
            idle = duration_words(now_s - self._used_s)
            self._say(f"The GPU has not been used for {idle}, and it counts. {self._advice}")


def remind_of_idle_gpu(device: Device, platform: Platform) -> None:
    """Watches the GPU of a lent machine, once for a session."""
    if device.kind is DeviceKind.CUDA and platform in _ADVICE and not _readers:
        reminder = GpuReminder(say=say, advice=_ADVICE[platform])
        _readers.append(UsageReader(period_s=_PERIOD_S, on_reading=reminder.check))
