"""What lies in a batch of any nesting: bitwise comparison, digests, and records to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import xxhash

from colabkit.checkpoint import members_of
from colabkit.frameworks import leaf_records
from colabkit.frameworks.batch_records import BatchRecord, LeafRecord
from colabkit.frameworks.leaf_records import LEAVES_MAX, PLAIN, WHOLE_BYTES_MAX, spread


def named_leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the tensors, arrays and plain values of a batch, each with how one would reach it."""
    return leaf_records.named_leaves(value, (torch.Tensor, np.ndarray))


def batch_digest(batch: Any) -> str:
    """Returns a hash of every tensor, array and plain value in a batch."""
    digest = xxhash.xxh3_128()
    for name, leaf in named_leaves(batch):
        digest.update(f"{name}{_form(leaf)}".encode())
        digest.update(_bytes_of(leaf, whole=True))
    return digest.hexdigest()


def same_batch(one: Any, other: Any) -> bool:
    """Whether two batches hold bitwise the same numbers."""
    return batch_digest(one) == batch_digest(other)


def record(batch: Any) -> BatchRecord:
    """Returns what tells later whether another batch is the same."""
    return BatchRecord(tuple(_leaf_record(name, leaf) for name, leaf in _few_leaves(batch)))


def _few_leaves(batch: Any) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for leaf in named_leaves(batch):
        leaves.append(leaf)
        if len(leaves) == LEAVES_MAX:
            break
    return leaves


def note(batch: Any) -> Callable[[], BatchRecord | None]:
    """Takes down a batch in a microsecond; its record is made when someone asks.

    Returns:
        A function that gives the record, or None where the batch was changed in place
        meanwhile.
    """
    if type(batch) in {tuple, list}:
        try:
            versions = [leaf._version for leaf in batch]
        except (AttributeError, RuntimeError):
            return _noted_deeply(batch)
        # The list itself is the user's, who may put other tensors into it.
        kept = tuple(batch)
        return lambda: record(kept) if [leaf._version for leaf in kept] == versions else None
    return _noted_deeply(batch)


def _noted_deeply(batch: Any) -> Callable[[], BatchRecord | None]:
    leaves = _few_leaves(batch)
    try:
        versions = [
            None if isinstance(leaf, PLAIN) else leaf._version  # an array has none
            for _, leaf in leaves
        ]
    except (AttributeError, RuntimeError):
        made = BatchRecord(tuple(_leaf_record(name, leaf) for name, leaf in leaves))
        return lambda: made

    def later() -> BatchRecord | None:
        for (_, leaf), version in zip(leaves, versions, strict=True):
            if version is not None and leaf._version != version:
                return None
        return BatchRecord(tuple(_leaf_record(name, leaf) for name, leaf in leaves))

    return later


def _leaf_record(name: str, leaf: Any) -> LeafRecord:
    data = _bytes_of(leaf, whole=False)
    return leaf_records.leaf_record(name, leaf, form=_form(leaf), data=data)


def _form(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor | np.ndarray):
        return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
    return type(leaf).__name__


def _bytes_of(leaf: Any, *, whole: bool) -> Any:
    if isinstance(leaf, torch.Tensor):
        return _tensor_bytes(leaf.detach(), whole=whole)
    return leaf_records.bytes_of(leaf, whole=whole)


def _tensor_bytes(tensor: torch.Tensor, *, whole: bool) -> Any:
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
        parts = (tensor.indices(), tensor.values())
        return b"".join(bytes(_tensor_bytes(part, whole=whole)) for part in parts)
    if members := members_of(tensor):
        return b"".join(bytes(_tensor_bytes(each, whole=whole)) for each in members.values())
    if tensor.layout is not torch.strided or not tensor.numel() or tensor.is_quantized:
        return b""
    tensor = tensor.resolve_conj().resolve_neg()
    if not whole and tensor.nbytes > WHOLE_BYTES_MAX:
        tensor = _as_it_lies(tensor)
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    return (flat if whole else spread(flat)).contiguous().cpu().numpy()


def _as_it_lies(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a view whose elements follow each other as in memory, channels last or not."""
    steps = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda axis: -steps[axis]))
