"""Bitwise comparison and digests of batches of any nesting."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in value:
            yield key
            yield from _leaves(value[key])
    elif isinstance(value, set | frozenset):
        yield from _leaves(sorted(value, key=repr))
    elif isinstance(value, list | tuple | deque):
        yield len(value)
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _as_bytes(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)


def batch_digest(batch: Any) -> str:
    """Returns a hash of every tensor, array and plain value in a batch."""
    digest = xxhash.xxh3_128()
    for leaf in _leaves(batch):
        if isinstance(leaf, torch.Tensor):
            digest.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            digest.update(_as_bytes(leaf).data)
        elif isinstance(leaf, np.ndarray):
            digest.update(f"{leaf.dtype}{leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        elif isinstance(leaf, str | bytes | int | float | bool | complex | np.generic | None):
            digest.update(repr(leaf).encode())
    return digest.hexdigest()


def same_batch(one: Any, other: Any) -> bool:
    """Whether two batches hold bitwise the same numbers."""
    return batch_digest(one) == batch_digest(other)
