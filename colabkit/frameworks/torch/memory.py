"""Batches in memory of their own, aligned the same in every session."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch

# What PyTorch's allocators on a CPU align to. BLAS adds in another order where memory lies
# otherwise, so that two sessions would differ in their last bits.
_ALIGNMENT = 64


def in_own_memory(batch: Any) -> Any:
    """Returns a batch whose tensors and arrays are copies, aligned as PyTorch aligns."""
    return _mapped(batch, _copied)


def aligned(batch: Any) -> Any:
    """Returns a batch in which what is not aligned as PyTorch aligns is copied."""
    if all(_is_aligned(leaf) for leaf in _arrays(batch)):
        return batch
    return _mapped(batch, lambda leaf: leaf if _is_aligned(leaf) else _copied(leaf))


def share_memory(one: Any, other: Any) -> bool:
    """Whether two batches that exist side by side lie in the same memory."""
    addresses = {_address(leaf) for leaf in _arrays(one)} - {0}
    return any(_address(leaf) in addresses for leaf in _arrays(other))


def _arrays(batch: Any) -> Iterator[Any]:
    if isinstance(batch, torch.Tensor | np.ndarray):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _arrays(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from _arrays(value)


def _mapped(batch: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(batch, torch.Tensor | np.ndarray):
        return change(batch)
    if isinstance(batch, Mapping):
        # A copy of itself stays a BatchEncoding, say.
        made = copy.copy(batch) if isinstance(batch, MutableMapping) else {}
        made.update({key: _mapped(value, change) for key, value in batch.items()})
        return made
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_mapped(value, change) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_mapped(value, change) for value in batch)
    return batch


def _address(leaf: Any) -> int:
    """Returns where the memory begins that a leaf is a view of, 0 for none."""
    if isinstance(leaf, np.ndarray):
        return int(leaf.__array_interface__["data"][0]) if leaf.size else 0
    return leaf.untyped_storage().data_ptr() if leaf.layout is torch.strided else 0


def _is_aligned(leaf: Any) -> bool:
    return not _address(leaf) % _ALIGNMENT


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return leaf.detach().clone().requires_grad_(leaf.requires_grad)
    if type(leaf) is not np.ndarray or leaf.dtype.hasobject or not leaf.nbytes:
        return leaf.copy()
    room = torch.empty(leaf.nbytes, dtype=torch.uint8).numpy()
    made = room.view(leaf.dtype).reshape(leaf.shape, order="F" if leaf.flags.fnc else "C")
    np.copyto(made, leaf)
    return made
