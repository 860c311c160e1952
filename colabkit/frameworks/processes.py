"""How many processes a launcher such as torchrun has started to train together."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from colabkit.errors import ArgumentError

_T = TypeVar("_T")
_FIT_LINE = "colabkit.fit(model, data, ckpt_dir)"


class Processes(Protocol):
    """The processes that train one model together, as one of them sees them."""

    rank: int
    """Number of this process; number 0 reads, writes, shows and decides."""

    step: int
    """How far it is, for those who wait for it."""

    def share(self, value: _T, *, at: str) -> _T:
        """Returns the value that number 0 has; ``at`` is the place that all must come to."""
        ...

    def gather(self, value: _T, *, at: str) -> list[_T]:
        """Returns what each has, by number."""
        ...

    def largest(self, values: Sequence[int], *, at: str) -> list[int]:
        """Returns the largest that any has in each place."""
        ...

    def session(self, *, is_inner: bool = False) -> AbstractContextManager[None]:
        """Lets an error in one process be one in all: none waits for who will not come."""
        ...


def process_count(environ: Mapping[str, str] = os.environ) -> int:
    """Returns how many processes train together, 1 where nobody says so.

    Args:
        environ: What the launcher has set.

    Example:
        >>> process_count({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
        2
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_world_size())
    # A size alone is no job: some machines name theirs without a word on who is who.
    if not all(environ.get(name) for name in ("RANK", "MASTER_ADDR")):
        return 1
    size = environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() else 1


def speaks_for_all(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one of several that tells people something.

    Example:
        >>> speaks_for_all({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
        False
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    return process_count(environ) == 1 or environ.get("RANK", "0") == "0"


def require_one_process(what: str) -> None:
    """Raises ArgumentError where several would each train all of it, into one run folder.

    Args:
        what: What trains in one process only, as the subject of a sentence.
    """
    if (count := process_count()) > 1:
        message = f"{count} processes were started together, and {what} trains in one only."
        hint = (
            f"For a PyTorch module let {_FIT_LINE} share the batches out; else start one process:"
            " python in place of torchrun."
        )
        raise ArgumentError(message, argument="ckpt_dir", hint=hint)
