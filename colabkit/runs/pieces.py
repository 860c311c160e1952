"""What a run asks of an adapter whose processes each hold pieces of the weights."""

from __future__ import annotations

from colabkit.checkpoint import Cutter
from colabkit.frameworks.base import FrameworkAdapter


def cutter_of(adapter: FrameworkAdapter) -> Cutter:
    """Returns what this process wants of tensors in pieces."""
    cutter: Cutter = adapter.cutter()  # type: ignore[attr-defined]  # one that has pieces has it
    return cutter


def is_sharded(adapter: FrameworkAdapter) -> bool:
    """Whether each process holds but pieces of what a checkpoint holds."""
    return bool(getattr(adapter, "is_sharded", False))


def leave_in_pieces(adapter: FrameworkAdapter, *, when: bool) -> None:
    """Has the adapter's next sections hold this process's pieces, rather than whole tensors."""
    if is_sharded(adapter):
        adapter.leaves_pieces = when  # type: ignore[attr-defined]  # one that has pieces has it
