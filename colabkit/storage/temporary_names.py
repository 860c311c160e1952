"""Names under which a blob is written before it gets its own."""

from __future__ import annotations

import os
import uuid

_PREFIX = ".colabkit-tmp-"
_SESSION = uuid.uuid4().hex[:12]


def temporary_name() -> str:
    """Returns a name that nobody else uses."""
    return f"{_own_prefix()}{uuid.uuid4().hex[:8]}"


def is_temporary_name(name: str) -> bool:
    """Whether a name is that of a blob under way, or left behind on its way."""
    return name.startswith(_PREFIX)


def is_left_behind(name: str) -> bool:
    """Whether it is a blob under way, and not of this process.

    Of other machines nobody can say whether they live; but who opens a run folder takes it
    over, and another session's blob is then refused anyway.
    """
    return is_temporary_name(name) and not name.startswith(_own_prefix())


def _own_prefix() -> str:
    return f"{_PREFIX}{_SESSION}-{os.getpid()}-"
