"""What lies in a batch of any nesting: bitwise comparison, digests, and records to keep."""

from __future__ import annotations

import functools
import os
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import xxhash

from colabkit.training.same_data import BatchRecord, LeafRecord

_PLAIN = (str, bytes, int, float, bool, complex, np.generic, type(None))
_LEAVES = (torch.Tensor, np.ndarray, *_PLAIN)
_DEPTH_MAX = 8
_OBJECT_DEPTH_MAX = 5
_LEAVES_MAX = 64
# Not all that can be called: so can batches of graphs.
_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
# More of a tensor than this is looked at in blocks, spread evenly: a save must not wait for it.
_WHOLE_BYTES_MAX, _BLOCK_BYTES, _BLOCKS = 1 << 20, 4096, 256


def named_leaves(value: Any, name: str = "batch", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields the tensors, arrays and plain values of a batch, each with how one would reach it."""
    if isinstance(value, _LEAVES):
        yield name, value
    elif depth >= _DEPTH_MAX:
        return
    elif isinstance(value, Mapping):
        for key in value:
            yield from named_leaves(value[key], f"{name}[{key!r}]", depth + 1)
    elif isinstance(value, set | frozenset):
        yield from named_leaves(sorted(value, key=repr), name, depth + 1)
    elif isinstance(value, list | tuple | deque):
        for place, item in enumerate(value):
            yield from named_leaves(item, f"{name}[{place}]", depth + 1)
    elif isinstance(value, os.PathLike):
        yield name, str(value)
    elif hasattr(value, "__dict__") and not isinstance(value, _CODE):
        yield from _arrays_in_object(value, name, depth=0)


def _arrays_in_object(value: Any, name: str, *, depth: int) -> Iterator[tuple[str, Any]]:
    """Yields the tensors of a batch that is an object: a batch of graphs, say."""
    if isinstance(value, torch.Tensor | np.ndarray):
        yield name, value
    elif depth < _OBJECT_DEPTH_MAX:
        inner = value if isinstance(value, Mapping) else getattr(value, "__dict__", {})
        for key in inner:
            yield from _arrays_in_object(inner[key], f"{name}.{key}", depth=depth + 1)


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
        if len(leaves) == _LEAVES_MAX:
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
            None if isinstance(leaf, _PLAIN) else leaf._version  # an array has none
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
    return LeafRecord(
        name=name,
        form=_form(leaf),
        digest=xxhash.xxh3_64_hexdigest(data),
        unordered=_unordered(leaf, data),
    )


def _form(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor | np.ndarray):
        return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"
    return type(leaf).__name__


def _bytes_of(leaf: Any, *, whole: bool) -> Any:
    if isinstance(leaf, torch.Tensor):
        return _tensor_bytes(leaf.detach(), whole=whole)
    if isinstance(leaf, np.ndarray):
        if leaf.dtype.hasobject:
            return repr(leaf.tolist()).encode()
        flat = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) if leaf.size else b""
        return flat if whole or not leaf.size else np.ascontiguousarray(_spread(flat))
    if isinstance(leaf, str) and not whole:
        # The folder may be another one on another machine.
        return leaf.rsplit("/", 1)[-1].encode()
    return repr(leaf).encode()


def _tensor_bytes(tensor: torch.Tensor, *, whole: bool) -> Any:
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
        parts = (tensor.indices(), tensor.values())
        return b"".join(bytes(_tensor_bytes(part, whole=whole)) for part in parts)
    if tensor.layout is not torch.strided or not tensor.numel() or tensor.is_quantized:
        return b""
    tensor = tensor.resolve_conj().resolve_neg()
    if not whole and tensor.nbytes > _WHOLE_BYTES_MAX:
        tensor = _as_it_lies(tensor)
    flat = tensor.contiguous().reshape(-1).view(torch.uint8)
    return (flat if whole else _spread(flat)).contiguous().cpu().numpy()


def _as_it_lies(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a view whose elements follow each other as in memory, channels last or not."""
    steps = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda axis: -steps[axis]))


def _spread(flat: Any) -> Any:
    """Returns a vector of bytes, or blocks of it where it is long."""
    if len(flat) <= _WHOLE_BYTES_MAX:
        return flat
    blocks = flat[: len(flat) // _BLOCK_BYTES * _BLOCK_BYTES].reshape(-1, _BLOCK_BYTES)
    return blocks[:: -(-len(blocks) // _BLOCKS)].reshape(-1)


def _unordered(leaf: Any, data: Any) -> str:
    """Returns a hash of the samples that their order does not change, "" where there is none."""
    shape = tuple(getattr(leaf, "shape", ()))
    samples, nbytes = (shape[0] if shape else 0), getattr(leaf, "nbytes", 0)
    if samples < 2 or not len(data) or len(data) % samples or nbytes > _WHOLE_BYTES_MAX:
        return ""
    rows = np.frombuffer(bytes(data), np.dtype((np.void, len(data) // samples)))
    return xxhash.xxh3_64_hexdigest(np.sort(rows).tobytes())
