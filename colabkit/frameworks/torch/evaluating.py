"""Whether a loop only evaluates: what its objects hold, as a mark that a change would change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xxhash

from colabkit.checkpoint import Forms, Pack, Section, encode
from colabkit.errors import StateError
from colabkit.frameworks.torch.backend import TorchBackend
from colabkit.frameworks.torch.pieces import local, reshard
from colabkit.frameworks.torch.small_state import SmallState
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.structure import parameters_of
from colabkit.frameworks.torch.unseen_writes import Sample

_BACKEND = TorchBackend(torch.device("cpu"))


class _Mark:
    """Equal to a later one while nothing has changed but what is small, and held as it was.

    Args:
        sections: All that a checkpoint holds of the objects.
        small: What of it may change.

    Raises:
        StateError: There is something in it that cannot be stored.
    """

    def __init__(self, sections: Sequence[Section], small: SmallState) -> None:
        self._sections, self._small = sections, small
        self._seen = _Seen.of(small.left_out_of(sections))

    def __eq__(self, now: object) -> bool:
        """Whether what has changed since is held."""
        if not isinstance(now, _Mark):
            return NotImplemented
        return self._seen == _Seen.of(self._small.left_out_of(now._sections))

    __hash__ = None  # type: ignore[assignment]

    def over(self, sections: Sequence[Section]) -> list[Section]:
        """Returns the sections of a save with what is small as it was."""
        return self._small.over(sections)


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What sections hold.

    Attributes:
        values: All that is no tensor.
        stamps: Where each tensor lies, and how often it was written.
        sample: Some of the values of weights, which may be written through ``.data``.
        tensors: Keeps them, for another tensor could come to lie where one lay.
    """

    values: list[Any]
    stamps: list[tuple[str, Any]]
    sample: Sample
    tensors: list[Any] = dataclasses.field(compare=False)

    @classmethod
    def of(cls, sections: Sequence[Section]) -> _Seen:
        values: list[Any] = []
        leaves: dict[str, Any] = {}
        members: list[Any] = []
        weights: list[Any] = []
        for section in sections:
            # Thousands of small tensors are taken up at once, and have no names.
            pack = Pack(_BACKEND, Forms())
            skeleton, found = encode(section.state, torch.is_tensor, pack)
            found = local(found)
            values.append(skeleton)
            leaves |= {f"{section.name}/{name}": leaf for name, leaf in found.items()}
            members += pack.members
            weights += [*found.values(), *pack.members] if section.weights else []
        stamps = [(name, _stamp_of(leaf)) for name, leaf in leaves.items()]
        stamps += [("", _stamp_of(member)) for member in members]
        return cls(values, stamps, Sample(weights), [*leaves.values(), *members])


def is_in_evaluation(state: TorchState) -> bool:
    """Whether there is an optimizer, and what it trains is in evaluation mode."""
    trained = {id(p) for each in state.optimizers.values() for p in parameters_of(each)}
    roots = [m for m in state.modules.values() if any(id(p) in trained for p in m.parameters())]
    modules = [part for root in roots or state.modules.values() for part in root.modules()]
    return bool(modules and state.optimizers) and not any(part.training for part in modules)


def evaluation_mark(state: TorchState) -> object | None:
    """Returns what the objects hold as a mark; None without an optimizer.

    Then nobody trains, and a loop that predicts goes on at the very batch. In which mode the
    modules are does not tell: many evaluate in training mode, and whoever trains changes weights.
    Pieces of weights are looked at in evaluation mode alone.
    """
    if not state.optimizers or (state.is_sharded and not is_in_evaluation(state)):
        return None
    sections = state.sections()
    try:
        return _Mark(sections, SmallState.of(state, sections))
    except StateError:  # a save says so
        return None


def weights_mark(state: TorchState) -> object | None:
    """Returns what is equal while all weights are the same; None without an optimizer."""
    for module in state.modules.values():
        reshard(module)  # a forward that no backward follows leaves whole weights in their place
    weights = [p for module in state.modules.values() for p in module.parameters()]
    return Sample(local(weights)) if state.optimizers else None


def _stamp_of(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(leaf).data)
    return leaf.data_ptr(), leaf._version
