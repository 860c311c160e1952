"""Whether a loop only evaluates: what its objects hold, as a mark that a change would change."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
import xxhash

from colabkit.checkpoint import encode
from colabkit.errors import StateError
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.structure import parameters_of


@dataclasses.dataclass(frozen=True)
class _Mark:
    """Equal to a later one while nothing has changed.

    Attributes:
        values: All that is no tensor.
        stamps: Where each tensor lies, and how often it was written.
        tensors: Keeps them, for another tensor could come to lie where one lay.
    """

    values: list[Any]
    stamps: list[tuple[str, Any]]
    tensors: list[Any] = dataclasses.field(compare=False)


def evaluation_mark(state: TorchState) -> object | None:
    """Returns what the objects hold as a mark; None unless what is trained is in evaluation mode.

    Without an optimizer nobody trains, and a loop that predicts goes on at the very batch.
    Averaged copies and target networks are often left in the other mode.
    """
    trained = {id(p) for each in state.optimizers.values() for p in parameters_of(each)}
    roots = [m for m in state.modules.values() if any(id(p) in trained for p in m.parameters())]
    modules = [part for root in roots or state.modules.values() for part in root.modules()]
    if not (modules and state.optimizers) or any(part.training for part in modules):
        return None
    values: list[Any] = []
    leaves: dict[str, Any] = {}
    for section in state.sections():
        try:
            skeleton, found = encode(section.state, lambda each: isinstance(each, torch.Tensor))
        except StateError:  # a save says so
            return None
        values.append(skeleton)
        leaves |= {f"{section.name}/{name}": leaf for name, leaf in found.items()}
    stamps = [(name, _stamp_of(leaf)) for name, leaf in leaves.items()]
    return _Mark(values, stamps, list(leaves.values()))


def _stamp_of(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(leaf).data)
    return leaf.data_ptr(), leaf._version
