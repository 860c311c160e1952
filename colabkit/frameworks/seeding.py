"""Seeds that depend on where the run is, never on what ran before."""

from __future__ import annotations

import zlib

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def derive(seed: int, *path: int | str) -> int:
    """Returns a 64-bit seed for one place in a run.

    Args:
        seed: The run's seed, any integer.
        path: What the place is: words and counters, outermost first.

    Returns:
        An integer in [0, 2**64) that depends on every part and their order.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).

    Example:
        >>> derive(0, "step", 1) != derive(0, "step", 2)
        True
    """
    value = seed & _MASK
    for part in path:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        value = (value + _GOLDEN * (number + 1)) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value
