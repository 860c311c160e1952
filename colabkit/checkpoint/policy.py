"""When a save is due."""

from __future__ import annotations

import dataclasses
import re

from colabkit.errors import ArgumentError

_UNITS_S = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
_AUTO_MIN_S, _AUTO_MAX_S = 10.0, 300.0
_STALL_SHARE, _WRITE_SHARE = 100.0, 4.0


@dataclasses.dataclass(frozen=True, slots=True)
class SaveTimings:
    """How long the newest save took.

    Attributes:
        stall_s: How long it held the training thread, waiting for the copy included.
        copy_s: How long the copy into host memory took.
        write_s: From the end of the copy until it was on the volume.
        nbytes: Bytes written.
    """

    stall_s: float = 0.0
    copy_s: float = 0.0
    write_s: float = 0.0
    nbytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class SavePolicy:
    """Every so many steps, every so many seconds, or as often as costs nothing.

    Attributes:
        steps: Steps between saves, or None.
        seconds: Seconds between saves, or None; both None is "auto".
        never: Only at the end.
    """

    steps: int | None = None
    seconds: float | None = None
    never: bool = False

    @classmethod
    def parse(cls, save_every: str | float | None) -> SavePolicy:
        """Reads "auto", "90s", "5min", "1h", a number of steps, or None for never.

        Raises:
            ArgumentError: It is none of these.

        Example:
            >>> SavePolicy.parse("5min").seconds
            300.0
        """
        if save_every is None:
            return cls(never=True)
        if save_every == "auto":
            return cls()
        if isinstance(save_every, int) and not isinstance(save_every, bool) and save_every > 0:
            return cls(steps=save_every)
        if isinstance(save_every, str) and (seconds := duration_s(save_every)):
            return cls(seconds=seconds)
        hint = 'Pass "auto", a time such as "90s" or "5min", or a number of steps from 1 on.'
        raise ArgumentError.of("save_every", save_every, hint)

    def due(self, *, steps_since: int, seconds_since: float, timings: SaveTimings) -> bool:
        """Whether to save now.

        Args:
            steps_since: Steps since the newest save.
            seconds_since: Seconds since it began.
            timings: How long it took.
        """
        if self.never or steps_since <= 0:
            return False
        if self.steps is not None:
            return steps_since >= self.steps
        return seconds_since >= (self.seconds or self._auto_s(timings))

    @staticmethod
    def _auto_s(timings: SaveTimings) -> float:
        wanted = max(_AUTO_MIN_S, _STALL_SHARE * timings.stall_s, _WRITE_SHARE * timings.write_s)
        return min(_AUTO_MAX_S, wanted)


def duration_s(words: str) -> float | None:
    """Returns the seconds of "90s", "5min" or "11h", None for anything else.

    Example:
        >>> duration_s("1.5h")
        5400.0
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h)\s*", words)
    return float(found[1]) * _UNITS_S[found[2]] if found else None
