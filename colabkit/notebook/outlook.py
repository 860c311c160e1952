"""What a run's figures come to: when it ends, and what would be lost if the machine went."""

from __future__ import annotations

import dataclasses
import datetime

from colabkit.notebook.cards import Tone
from colabkit.notebook.words import duration_words

_LOOK_AFTER_S = 10.0
_LITTLE_S, _MUCH_S = 300.0, 900.0
_DAYS_WITH_A_NAME = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Conclusion:
    """A sentence, and how it is meant."""

    words: str
    tone: Tone = Tone.PLAIN


def ending(
    *,
    left_s: float | None,
    elapsed_s: float,
    machine_left_s: float | None,
    now: datetime.datetime | None,
) -> Conclusion | None:
    """Returns when a run is likely to end, or that its machine goes before; None when unknown.

    Args:
        left_s: How long the rest takes at the pace so far.
        elapsed_s: For how long the pace was measured.
        machine_left_s: How long the machine is likely to last, None when nothing ends it.
        now: The time of day, in the zone that is to be shown.
    """
    if left_s is None or now is None or elapsed_s < _LOOK_AFTER_S:
        return None
    if machine_left_s is None or left_s <= machine_left_s:
        return Conclusion(f"Finishes about {_moment(now, left_s)}.")
    when = "at any moment" if machine_left_s <= 0 else f"about {_moment(now, machine_left_s)}"
    words = f"Will not finish before this machine goes ({when}): run the notebook again and it goes"
    return Conclusion(f"{words} on.", Tone.NOTE)


def risk(*, lost_s: float | None, what: str) -> Conclusion | None:
    """Returns how much work would be lost by now, None when that is not known.

    Args:
        lost_s: Seconds of training since what is safe.
        what: What would take it along: "the machine went", "this process ended".
    """
    if lost_s is None:
        return None
    tone = Tone.GOOD if lost_s < _LITTLE_S else Tone.NOTE if lost_s < _MUCH_S else Tone.BAD
    return Conclusion(f"If {what} now: {duration_words(lost_s)} of work lost.", tone)


def _moment(now: datetime.datetime, in_s: float) -> str:
    """Returns a time of day, to the minute, with its day where that is another."""
    try:
        then = now + datetime.timedelta(seconds=in_s)
    except OverflowError:
        return "never"
    days = (then.date() - now.date()).days
    day = " tomorrow" if days == 1 else f" on {then:%A}" if days <= _DAYS_WITH_A_NAME else ""
    if days > _DAYS_WITH_A_NAME:
        day = f" on {then:%Y-%m-%d}"
    return f"{then:%H:%M %Z}".strip() + (day if days else "")
