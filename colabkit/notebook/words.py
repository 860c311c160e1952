"""Numbers as a person reads them."""

from __future__ import annotations

import math

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
_KILO = 1000
_SOON_S = 10


def duration_words(seconds: float) -> str:
    """Returns a duration in its largest fitting unit.

    Example:
        >>> duration_words(12.4), duration_words(150), duration_words(9000)
        ('12 s', '2 min', '2 h 30 min')
    """
    whole_s = max(0, int(seconds))
    if whole_s < _MINUTE_S:
        return f"{whole_s} s"
    if whole_s < _HOUR_S:
        return f"{whole_s // _MINUTE_S} min"
    if whole_s < _DAY_S:
        minutes = whole_s % _HOUR_S // _MINUTE_S
        return f"{whole_s // _HOUR_S} h {minutes} min" if minutes else f"{whole_s // _HOUR_S} h"
    return f"{whole_s // _DAY_S} d"


def lasted_words(seconds: float) -> str:
    """Returns how long something took, in milliseconds where it was brief.

    Example:
        >>> lasted_words(0.0124), lasted_words(3.44), lasted_words(150)
        ('12 ms', '3.4 s', '2 min')
    """
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < _SOON_S else duration_words(seconds)


def files_words(count: int) -> str:
    """Returns a number of files in words.

    Example:
        >>> files_words(1), files_words(1_797)
        ('1 file', '1,797 files')
    """
    return "1 file" if count == 1 else f"{count:,} files"


def bytes_words(nbytes: float) -> str:
    """Returns a size in its largest fitting decimal unit.

    Example:
        >>> bytes_words(312), bytes_words(4_096), bytes_words(12_345_678_901)
        ('312 B', '4.1 kB', '12.3 GB')
    """
    size = float(nbytes)
    for unit in ("B", "kB", "MB"):
        if abs(size) < _KILO:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KILO
    return f"{size:,.1f} GB"


def value_words(value: object) -> str:
    """Returns a value for a table or a bar: floats with four digits, None as a dash.

    Example:
        >>> value_words(0.43215678), value_words(3), value_words(None)
        ('0.4322', '3', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def saved_words(*, step: int, age_s: float, place: str) -> str:
    """Returns the bar's short word on the newest save.

    Args:
        step: The step that is safe.
        age_s: Seconds since it was saved.
        place: Where it lies: "on disk", "on Drive".

    Example:
        >>> saved_words(step=400, age_s=12, place="on disk")
        'saved step 400, 12 s ago · on disk'
    """
    return f"saved step {step:,}, {duration_words(age_s)} ago · {place}"
