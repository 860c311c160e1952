"""Python source as a tree, also where other threads parse at the same time."""

from __future__ import annotations

import ast
import contextlib

_TRIES = 4


def tree_of(text: str) -> ast.Module | None:
    """Returns the tree of a source, None where it is no Python."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for _ in range(_TRIES):
            # Before 3.11.8 and 3.12.2 threads that parse at once share a count, and one of them
            # fails.
            with contextlib.suppress(SystemError):
                return ast.parse(text)
    return None
