"""What of a run's objects each of several processes may have for itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from colabkit.checkpoint import Section, encode
from colabkit.errors import StateError
from colabkit.frameworks.torch.compare import batch_digest
from colabkit.frameworks.torch.pieces import holds_pieces, without
from colabkit.frameworks.torch.replaced import states_of
from colabkit.frameworks.torch.state import TorchState

Where = tuple[str | int, ...]
BESIDE_PIECES = "beside pieces"
"""Ends the path of a state that cannot be put back without the pieces in it."""
_OF_MODULES = ("python", "generators", "extra")
_OPTIMIZERS = ("objects", "optimizers")
# Of what optimizers keep, which is more than the weights: so many parameters, and along each
# dimension so many of the numbers.
_SAMPLED, _ALONG = 16, 4


def own_states(
    state: TorchState,
    sections: Sequence[Section],
    shares_buffers: Collection[str],
    gradients: Mapping[str, Any] | None = None,
) -> dict[Where, Any]:
    """Returns all but weights, by where it lies in a checkpoint's sections.

    Args:
        state: The objects.
        sections: What a checkpoint would hold of them.
        shares_buffers: Names of modules whose buffers are the same where it matters.
        gradients: Those that wait for a step, by optimizer; None leaves out what trains them too.
    """
    found = dict(_states(state, sections, shares_buffers))
    if gradients is not None:
        found |= {("gradients", name): each for name, each in gradients.items() if each}
        found |= {(*_OPTIMIZERS, n): each for n, each in _of_optimizers(state, sections).items()}
    if not state.is_sharded:
        return found
    # Of pieces each process has its own anyhow, and saves them: only what is beside them differs.
    return {
        (*p, BESIDE_PIECES) if holds_pieces(s) else p: without(s) if holds_pieces(s) else s
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


def _of_optimizers(state: TorchState, sections: Sequence[Section]) -> Mapping[str, Any]:
    (objects,) = (section.state for section in sections if section.name == "objects")
    at_hand: Mapping[str, Any] | None = objects.get("optimizers")
    return states_of(state.optimizers, dict)["optimizers"] if at_hand is None else at_hand


def digests_of(states: Mapping[Where, Any]) -> dict[Where, str]:
    """Returns hashes of states as a checkpoint holds them; of optimizers, of a sample."""
    return {
        path: state_digest(_sample(each) if path[:2] == _OPTIMIZERS else each)
        for path, each in states.items()
    }


def _sample(state: Any) -> Any:
    """Returns for which weights an optimizer keeps something, and some of that."""
    kept = state.get("state") if isinstance(state, Mapping) else None
    if not isinstance(kept, Mapping):
        return state
    names = list(kept)
    some = names[:: -(-len(names) // _SAMPLED) or 1]
    return {**state, "state": [names, [_few(kept[name]) for name in some]]}


def _few(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _few(each) for key, each in value.items()}
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return value
    return value.detach()[tuple(slice(None, None, max(1, n // _ALONG)) for n in value.shape)]


def state_digest(state: Any) -> str:
    """Returns a hash of a state as a checkpoint holds it."""
    try:
        skeleton, leaves = encode(state, torch.is_tensor)
    except StateError:  # a save says so
        return ""
    return batch_digest([repr(skeleton), leaves])
