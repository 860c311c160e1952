"""Which members were asked for."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence

Wanted = Callable[[str], bool]


def chosen(members: Callable[[str], bool] | Sequence[str] | None) -> Wanted | None:
    """Returns a function that says whether a path was asked for, None for all."""
    if members is None or callable(members):
        return members
    patterns = [members] if isinstance(members, str) else list(members)
    exact = {pattern.strip("/") for pattern in patterns}
    below = tuple(f"{pattern}/" for pattern in exact)
    globs = [pattern for pattern in exact if _is_pattern(pattern)]

    def wanted(path: str) -> bool:
        if path in exact or path.startswith(below):
            return True
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in globs)

    return wanted


def unanswered(members: Sequence[str], paths: Iterable[str]) -> list[str]:
    """Returns those of the names and patterns asked for that no path answers to.

    Example:
        >>> unanswered(["train", "val/*"], ["train/cat.jpg"])
        ['val/*']
    """
    left = {name.strip("/") for name in members}
    globs = {name for name in left if _is_pattern(name)}
    for path in paths:
        if not left:
            break
        answered = {glob for glob in globs if fnmatch.fnmatchcase(path, glob)}
        globs -= answered
        left -= answered
        while path:
            left.discard(path)
            path = path.rpartition("/")[0]
    return [name for name in members if name.strip("/") in left]


def _is_pattern(name: str) -> bool:
    return any(c in name for c in "*?[")
