"""Which members were asked for."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence

Wanted = Callable[[str], bool]


def chosen(members: Callable[[str], bool] | Sequence[str] | None) -> Wanted | None:
    """Returns a function that says whether a path was asked for, None for all.

    Example:
        >>> wanted = chosen(["train/*", "!*.tmp"])
        >>> wanted("train/1.jpg"), wanted("train/1.tmp"), wanted("val/1.jpg")
        (True, False, False)
    """
    if members is None or callable(members):
        return members
    patterns = [members] if isinstance(members, str) else list(members)
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    takes, leaves = _matcher(included), _matcher(excluded)

    def wanted(path: str) -> bool:
        return (not included or takes(path)) and not leaves(path)

    return wanted if excluded else takes


def _matcher(patterns: Sequence[str]) -> Wanted:
    exact = {pattern.strip("/") for pattern in patterns}
    below = tuple(f"{pattern}/" for pattern in exact)
    globs = [glob for pattern in exact for glob in _globs(pattern)]

    def matches(path: str) -> bool:
        if path in exact or path.startswith(below):
            return True
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in globs)

    return matches


def unanswered(members: Sequence[str], paths: Iterable[str]) -> list[str]:
    """Returns those of the names and patterns asked for that no path answers to.

    Example:
        >>> unanswered(["train", "val/*"], ["train/cat.jpg"])
        ['val/*']
    """
    left = {name.strip("/") for name in members if not name.startswith("!")}
    globs = {name for name in left if _globs(name)}
    for path in paths:
        if not left:
            break
        answered = {
            name for name in globs if any(fnmatch.fnmatchcase(path, g) for g in _globs(name))
        }
        globs -= answered
        left -= answered
        while path:
            left.discard(path)
            path = path.rpartition("/")[0]
    return [name for name in members if name.strip("/") in left]


def _globs(name: str) -> list[str]:
    """Returns the patterns that a name means; brackets may be ones of a folder's name."""
    if not any(c in name for c in "*?["):
        return []
    return [name, name.replace("[", "[[]")] if "[" in name else [name]
