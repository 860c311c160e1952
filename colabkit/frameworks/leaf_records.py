"""What is kept of the arrays and values in a batch of any nesting, whatever framework made it."""

from __future__ import annotations

import functools
import os
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xxhash

from colabkit.frameworks.batch_records import LeafRecord
from colabkit.frameworks.users_own import attributes_of, carries_attributes

PLAIN = (str, bytes, int, float, bool, complex, np.generic, type(None))
LEAVES_MAX = 64
_DEPTH_MAX = 8
_OBJECT_DEPTH_MAX = 5
# Not all that can be called: so can batches of graphs.
_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
# More of an array than this is looked at in blocks, spread evenly: a save must not wait for it.
WHOLE_BYTES_MAX = 1 << 20
_BLOCK_BYTES, _BLOCKS = 4096, 256


def named_leaves(
    value: Any, arrays: tuple[type, ...], name: str = "batch", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Yields the arrays and plain values of a batch, each with how one would reach it.

    Args:
        value: The batch.
        arrays: The classes of arrays and tensors.
        name: How one would reach the batch.
        depth: How deep in a batch it lies.
    """
    if isinstance(value, (*arrays, *PLAIN)):
        yield name, value
    elif depth >= _DEPTH_MAX:
        return
    elif isinstance(value, Mapping):
        for key in value:
            yield from named_leaves(value[key], arrays, f"{name}[{key!r}]", depth + 1)
    elif isinstance(value, set | frozenset):
        yield from named_leaves(sorted(value, key=repr), arrays, name, depth + 1)
    elif isinstance(value, list | tuple | deque):
        for place, item in enumerate(value):
            yield from named_leaves(item, arrays, f"{name}[{place}]", depth + 1)
    elif isinstance(value, os.PathLike):
        yield name, str(value)
    elif carries_attributes(value) and not isinstance(value, _CODE):
        yield from _arrays_in_object(value, arrays, name, depth=0)


def _arrays_in_object(
    value: Any, arrays: tuple[type, ...], name: str, *, depth: int
) -> Iterator[tuple[str, Any]]:
    """Yields the arrays of a batch that is an object: a batch of graphs, say."""
    if isinstance(value, arrays):
        yield name, value
    elif depth < _OBJECT_DEPTH_MAX:
        inner = value if isinstance(value, Mapping) else attributes_of(value)
        for key in inner:
            yield from _arrays_in_object(inner[key], arrays, f"{name}.{key}", depth=depth + 1)


def leaf_record(name: str, leaf: Any, *, form: str, data: Any) -> LeafRecord:
    """Returns what is kept of an array or value, of which ``data`` are bytes."""
    return LeafRecord(
        name=name,
        form=form,
        digest=xxhash.xxh3_64_hexdigest(data),
        unordered=_unordered(leaf, data),
    )


def bytes_of(leaf: Any, *, whole: bool) -> Any:
    """Returns the bytes of an array of NumPy or of a plain value; else a spread sample of them."""
    if isinstance(leaf, np.ndarray):
        if leaf.dtype.hasobject:
            return repr(leaf.tolist()).encode()
        flat = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) if leaf.size else b""
        return flat if whole or not leaf.size else np.ascontiguousarray(spread(flat))
    if isinstance(leaf, str) and not whole:
        # The folder may be another one on another machine.
        return leaf.rsplit("/", 1)[-1].encode()
    return repr(leaf).encode()


def spread(flat: Any) -> Any:
    """Returns a vector of bytes, or blocks of it where it is long."""
    if len(flat) <= WHOLE_BYTES_MAX:
        return flat
    blocks = flat[: len(flat) // _BLOCK_BYTES * _BLOCK_BYTES].reshape(-1, _BLOCK_BYTES)
    return blocks[:: -(-len(blocks) // _BLOCKS)].reshape(-1)


def _unordered(leaf: Any, data: Any) -> str:
    """Returns a hash of the samples that their order does not change, "" where there is none."""
    shape = tuple(getattr(leaf, "shape", ()))
    samples, nbytes = (shape[0] if shape else 0), getattr(leaf, "nbytes", 0)
    if samples < 2 or not len(data) or len(data) % samples or nbytes > WHOLE_BYTES_MAX:
        return ""
    rows = np.frombuffer(bytes(data), np.dtype((np.void, len(data) // samples)))
    return xxhash.xxh3_64_hexdigest(np.sort(rows).tobytes())
