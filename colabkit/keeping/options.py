"""How a folder is kept, as a call names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from colabkit.checkpoint import duration_s
from colabkit.errors import ArgumentError
from colabkit.keeping.units import WHOLE


@dataclasses.dataclass(frozen=True, slots=True)
class KeepOptions:
    """How a folder is kept.

    Attributes:
        period_s: How often there may be a version, None for as often as the place takes them.
        whole: What folders that count as a whole are called.
        copies: How many versions to keep.
        skip: What is left out.
        inputs: The size and the time of each file that is known to be no output, by its path;
            None where that is whatever was in the folder before.
    """

    period_s: float | None = None
    whole: tuple[str, ...] = WHOLE
    copies: int = 2
    skip: tuple[str, ...] = ()
    inputs: Mapping[str, tuple[int, int]] | None = None

    def noted(self) -> dict[str, Any]:
        """Returns what another session needs to keep the folder in the same way."""
        return {"whole": list(self.whole), "copies": self.copies, "skip": list(self.skip)}

    @classmethod
    def again(cls, noted: Mapping[str, Any]) -> KeepOptions:
        """Returns the options that were noted."""
        whole, skip = tuple(map(str, noted["whole"])), tuple(map(str, noted["skip"]))
        return cls(None, whole, int(noted["copies"]), skip)

    @classmethod
    def checked(
        cls, every: str | float, whole: object, copies: object, skip: object
    ) -> KeepOptions:
        """Returns the options that a call names.

        Raises:
            ArgumentError: One of them cannot be used.
        """
        if not isinstance(copies, int) or isinstance(copies, bool) or copies < 1:
            raise ArgumentError.of("copies", copies, "Pass how many to keep, from 1.")
        return cls(
            _period_s(every),
            (*WHOLE, *_patterns("whole", whole)),
            copies,
            _patterns("skip", skip),
        )


def _period_s(every: object) -> float | None:
    if every == "auto":
        return None
    seconds: float | None = None
    if isinstance(every, str):
        seconds = duration_s(every)
    elif isinstance(every, int | float) and not isinstance(every, bool):
        seconds = float(every)
    if seconds is None or not seconds > 0:
        hint = 'Pass "auto", seconds such as 60, or a time such as "90s" or "5min".'
        raise ArgumentError.of("every", every, hint)
    return seconds


def _patterns(name: str, given: object) -> tuple[str, ...]:
    patterns = (given,) if isinstance(given, str) else given
    if not isinstance(patterns, tuple | list) or not all(isinstance(p, str) for p in patterns):
        raise ArgumentError.of(name, given, f'Pass patterns, as {name}=("runs/*/state",).')
    return tuple(patterns)
