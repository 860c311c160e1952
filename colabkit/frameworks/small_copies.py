"""Copies of what is small, which later changes leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from colabkit.checkpoint import decode, encode
from colabkit.errors import StateError

# A memory of games or an averaged model is larger, and who reads of it reads little.
_BYTES_MAX, _LEAVES_MAX, _ITEMS_MAX = 8 << 20, 1_000, 10_000
_WEIGHTS_BYTES_MAX = 64 << 20
_K = TypeVar("_K")


def small_copy(
    state: Any,
    is_tensor: Callable[[object], bool],
    *,
    bytes_max: int = _BYTES_MAX,
    in_host: bool = False,
) -> Any:
    """Returns a state of its own, None where one is too large for that or cannot be stored.

    Args:
        state: The state.
        is_tensor: Tells tensors.
        bytes_max: What is larger is none.
        in_host: Whether its tensors are to lie in host memory.
    """
    members = [state, *(state.values() if isinstance(state, Mapping) else ())]
    if any(isinstance(m, list | dict | set) and len(m) > _ITEMS_MAX for m in members):
        return None
    try:
        skeleton, leaves = encode(state, is_tensor)
    except StateError:  # a save says so
        return None
    if len(leaves) > _LEAVES_MAX or sum(map(_size_of, leaves.values())) > bytes_max:
        return None
    copies = {name: _copy_of(leaf, in_host=in_host) for name, leaf in leaves.items()}
    return decode(skeleton, lambda _, name: copies[name])


def few_weights(states: Mapping[str, Any], is_tensor: Callable[[object], bool]) -> Any:
    """Returns a copy of weights that each checkpoint of an epoch may hold, None of more."""
    return small_copy(states, is_tensor, bytes_max=_WEIGHTS_BYTES_MAX)


def is_room_beside(copies: Sequence[Mapping[str, Mapping[str, Any]]]) -> bool:
    """Whether a checkpoint that holds such copies of weights may hold another one as large."""
    sizes = [sum(_size_of(e) for own in each.values() for e in own.values()) for each in copies]
    return sum(sizes) + max(sizes, default=0) <= _WEIGHTS_BYTES_MAX


def small_copies(
    states: Mapping[_K, Any], is_tensor: Callable[[object], bool], *, in_host: bool = False
) -> dict[_K, Any]:
    """Returns copies of those that are small, by name."""
    found = {n: small_copy(state, is_tensor, in_host=in_host) for n, state in states.items()}
    return {name: each for name, each in found.items() if each is not None}


def _size_of(leaf: Any) -> int:
    return int(leaf.dtype.itemsize * np.prod(leaf.shape))


def _copy_of(leaf: Any, *, in_host: bool) -> Any:
    if hasattr(leaf, "detach"):
        return leaf.detach().to("cpu", copy=True) if in_host else leaf.detach().clone()
    return leaf.copy("K") if isinstance(leaf, np.ndarray) else copy.deepcopy(leaf)
