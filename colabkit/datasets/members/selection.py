"""Which members were asked for."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

Wanted = Callable[[str], bool]


def chosen(members: Callable[[str], bool] | Sequence[str] | None) -> Wanted | None:
    """Returns a function that says whether a path was asked for, None for all."""
    if members is None or callable(members):
        return members
    patterns = [members] if isinstance(members, str) else list(members)
    exact = {pattern.strip("/") for pattern in patterns}
    below = tuple(f"{pattern}/" for pattern in exact)
    globs = [pattern for pattern in exact if any(c in pattern for c in "*?[")]

    def wanted(path: str) -> bool:
        if path in exact or path.startswith(below):
            return True
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in globs)

    return wanted
