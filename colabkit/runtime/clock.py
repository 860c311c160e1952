"""How long this machine has been up, and about how long it has left."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import psutil

from colabkit.errors import ArgumentError
from colabkit.runtime.platform import Platform
from colabkit.runtime.preferences import expected_limit_s

_MINUTE_S = 60
_HOUR_S = 3600
_INIT_PID = 1

# What the platforms announce; none of them promises it, and TPU sessions on Kaggle get less.
_LIMITS_S = {Platform.COLAB: 12 * _HOUR_S, Platform.KAGGLE: 12 * _HOUR_S}
_KAGGLE_TPU_LIMIT_S = 9 * _HOUR_S


@dataclasses.dataclass(frozen=True, slots=True)
class SessionClock:
    """Ages in seconds, and an estimate of what is left, each as of now.

    Attributes:
        machine_started_s: When the machine began, on ``clock``.
        limit_s: How long such a machine usually lasts, None when nothing ends it.
        mount_started_s: When Drive was mounted, on ``clock``; None when it is not.
        clock: Seconds since the epoch.
    """

    machine_started_s: float
    limit_s: float | None = 12 * _HOUR_S
    mount_started_s: float | None = None
    clock: Callable[[], float] = time.time

    @property
    def machine_age_s(self) -> float:
        """Seconds since the machine began."""
        return max(0.0, self.clock() - self.machine_started_s)

    @property
    def mount_age_s(self) -> float | None:
        """Seconds since Drive was mounted, None when it is not."""
        if self.mount_started_s is None:
            return None
        return max(0.0, self.clock() - self.mount_started_s)

    @property
    def left_s(self) -> float | None:
        """About how many seconds are left, an estimate; None when nothing ends the machine."""
        if self.limit_s is None:
            return None
        return max(0.0, self.limit_s - self.machine_age_s)

    def mounted(self, started_s: float | None) -> SessionClock:
        """Returns this clock with the moment Drive was mounted, None for not mounted."""
        return dataclasses.replace(self, mount_started_s=started_s)

    def describe(self) -> str:
        """Returns the ages in one line.

        Example:
            >>> SessionClock(0, clock=lambda: 11520).describe()
            'machine up 3 h 12 min, about 8 h 48 min left (an estimate)'
        """
        parts = [f"machine up {_hours_words(self.machine_age_s)}"]
        if self.mount_age_s is not None:
            parts.append(f"Drive mounted {_hours_words(self.mount_age_s)} ago")
        if self.limit_s is not None and self.left_s:
            parts.append(f"about {_hours_words(self.left_s)} left (an estimate)")
        elif self.limit_s is not None:
            usual = _hours_words(self.limit_s)
            parts.append(f"longer than the usual {usual}: it may end at any moment")
        return ", ".join(parts)


def session_clock(
    platform: Platform,
    *,
    limit_s: float | None = None,
    on_tpu: bool = False,
    clock: Callable[[], float] = time.time,
) -> SessionClock:
    """Returns the clock of this session.

    Args:
        platform: The kind of machine.
        limit_s: How long the machine lasts, when you know better than the usual;
            ``math.inf`` for a machine that nothing ends.
        on_tpu: Whether the machine has a TPU.
        clock: Seconds since the epoch, for tests.

    Raises:
        ArgumentError: ``limit_s`` is not positive.

    Source:
        Colab's FAQ: "at most 12 hours", up to 24 h paid; nothing guaranteed. Kaggle's
        documentation: 12 h, and 9 h with a TPU. Other machines have no such limit.
    """
    if limit_s is not None and not limit_s > 0:
        raise ArgumentError.of("limit_s", limit_s, "Pass seconds, as 24 * 3600.")
    limit_s = expected_limit_s() if limit_s is None else limit_s
    if limit_s is None:
        is_short = platform is Platform.KAGGLE and on_tpu
        limit_s = _KAGGLE_TPU_LIMIT_S if is_short else _LIMITS_S.get(platform)
    if limit_s is not None and math.isinf(limit_s):
        limit_s = None
    return SessionClock(machine_started_s(), limit_s, clock=clock)


def machine_started_s() -> float:
    """Returns when the machine began, in seconds since the epoch.

    That is when its first process began: in a container the container's own, not the boot
    of the host around it.
    """
    try:
        return float(psutil.Process(_INIT_PID).create_time())
    except (psutil.Error, OSError):
        return float(psutil.boot_time())


def _hours_words(seconds: float) -> str:
    minutes = int(seconds) // _MINUTE_S
    if minutes < _MINUTE_S:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
