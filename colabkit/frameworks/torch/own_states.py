"""What of a run's objects each of several processes may have for itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from colabkit.checkpoint import Section, encode
from colabkit.errors import StateError
from colabkit.frameworks.torch.compare import batch_digest
from colabkit.frameworks.torch.pieces import is_piece, without
from colabkit.frameworks.torch.state import TorchState

Where = tuple[str | int, ...]
BESIDE_PIECES = "beside pieces"
"""Ends the path of a state that cannot be put back without the pieces in it."""
_OF_MODULES = ("python", "generators", "extra")


def own_states(
    state: TorchState,
    sections: Sequence[Section],
    shares_buffers: Collection[str],
    gradients: Mapping[str, Any] | None = None,
) -> dict[Where, Any]:
    """Returns all but weights and what trains them, by where it lies in a checkpoint's sections.

    Args:
        state: The objects.
        sections: What a checkpoint would hold of them.
        shares_buffers: Names of modules whose buffers are the same where it matters.
        gradients: Those that wait for a step, by optimizer.
    """
    found = dict(_states(state, sections, shares_buffers))
    found |= {("gradients", name): each for name, each in (gradients or {}).items() if each}
    if not state.is_sharded:
        return found
    # Of pieces each process has its own anyhow, and saves them: only what is beside them differs.
    return {
        (*p, BESIDE_PIECES) if _has_pieces(s) else p: without(s) if _has_pieces(s) else s
        for p, s in found.items()
    }


def _states(
    state: TorchState, sections: Sequence[Section], shares_buffers: Collection[str]
) -> Iterator[tuple[Where, Any]]:
    every = {section.name: section.state for section in sections}
    objects = every["objects"]
    for name, rest in objects["modules"].items():
        place: Where = ("objects", "modules", name)
        yield from (((*place, part), rest[part]) for part in _OF_MODULES)
        if name in shares_buffers:
            continue
        yield from (((*place, "buffers", key), each) for key, each in rest["buffers"].items())
        weights = every.get(name, {})
        for key in state.buffers_of(name):
            if key in weights:
                yield (name, key), weights[key]
    for kind in ("others", "held", "beside"):
        yield from ((("objects", kind, name), each) for name, each in objects[kind].items())


def _has_pieces(state: Any) -> bool:
    try:
        _, leaves = encode(state, torch.is_tensor)
    except StateError:  # a save says so
        return False
    return any(map(is_piece, leaves.values()))


def state_digest(state: Any) -> str:
    """Returns a hash of a state as a checkpoint holds it."""
    try:
        skeleton, leaves = encode(state, torch.is_tensor)
    except StateError:  # a save says so
        return ""
    return batch_digest([repr(skeleton), leaves])
