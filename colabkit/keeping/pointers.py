"""Small files that name a checkpoint, as ``latest`` does: each goes with what it names.

A trainer that finds a name there loads that, or fails.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

POINTER_BYTES = 4096
# A name may stand after a quote or a slash, and begins no longer word.
_START = re.compile(r"(?<![\w.-])(?=\S)")
_WORD = re.compile(r"\w")
# Megatron's latest_checkpointed_iteration.txt holds the number of iter_0000200, and no more.
_ONLY_NUMBER = re.compile(r"\s*(\d{1,18})\s*")
_SPEAKS_OF_CHECKPOINTS = re.compile(r"(?i)latest|last|checkpoint|ckpt")
_LAST_NUMBER = re.compile(r".*?(\d{1,18})(?:\.\w+)?")


class Pointers:
    """Remembers what the small files of the newest version name."""

    def __init__(self) -> None:
        self._named: dict[str, frozenset[str]] = {}

    def note(self, named: Mapping[str, frozenset[str]]) -> None:
        """Notes what files of a version name, nothing included."""
        self._named |= named

    def forget(self, path: str) -> None:
        """Notes that the version holds something else of a file now."""
        self._named.pop(path, None)

    def named_by(self, path: str) -> frozenset[str] | None:
        """Returns what a file names, None where it is not known."""
        return self._named.get(path)


def named_in(data: bytes, names: Collection[str], of: str = "") -> frozenset[str]:
    """Returns which names stand in a text as words of their own, or end in the number that it is.

    Args:
        data: The text.
        names: The names.
        of: What the file is called that holds it: a number alone is one of a checkpoint where
            that says so.

    Example:
        >>> sorted(named_in(b"out/step-20.pt", {"step-2", "step-20", "20"}))
        ['step-20']
        >>> named_in(b"20", {"iter_0000020", "iter_0000002"}, "latest_checkpointed_iteration.txt")
        frozenset({'iter_0000020'})
    """
    if not names:
        return frozenset()
    text = data.decode(errors="replace")
    number = _ONLY_NUMBER.fullmatch(text)
    if number and _SPEAKS_OF_CHECKPOINTS.search(of):
        ends = {name: _LAST_NUMBER.fullmatch(name) for name in names}
        return frozenset(
            name for name, end in ends.items() if end and int(end[1]) == int(number[1])
        )
    lengths = {len(name) for name in names}
    found = set()
    for start in (each.start() for each in _START.finditer(text)):
        for length in lengths:
            end = start + length
            if text[start:end] in names and not _WORD.match(text, end):
                found.add(text[start:end])
    return frozenset(found)
