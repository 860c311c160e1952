"""Where arrays lie: taken in parts from the devices, put back onto those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from colabkit.errors import StateError


def parts_by_place(array: Any) -> dict[tuple[int, ...], Any]:
    """Returns each part of a spread array once, by where in the array it begins.

    Raises:
        StateError: Some of it lies on devices of other processes.
    """
    if not array.is_fully_addressable:
        message = "An array lies in part on devices of other processes."
        hint = "Train in one process, or pass a state that this process holds whole."
        raise StateError(message, where="", hint=hint)
    found: dict[tuple[int, ...], Any] = {}
    for shard in array.addressable_shards:
        begins = tuple(part.indices(n)[0] for part, n in zip(shard.index, array.shape, strict=True))
        found.setdefault(begins, shard.data)
    return found


def joined(parts: Mapping[tuple[int, ...], Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Returns the whole array on the host.

    Raises:
        StateError: The parts do not cover it.
    """
    first = next(iter(parts.values()))
    whole = np.empty(shape, first.dtype)
    covered = 0
    for begins, part in parts.items():
        ends = (b + n for b, n in zip(begins, part.shape, strict=True))
        whole[tuple(slice(b, e) for b, e in zip(begins, ends, strict=True))] = part
        covered += part.size
    if covered != whole.size:
        message = f"A checkpoint holds {covered:,} of the {whole.size:,} numbers of an array."
        raise StateError(message, where="", hint="")
    return whole


def placed(stored: np.ndarray[Any, Any], there: Any, *, is_weak: bool) -> jax.Array:
    """Returns an array on the devices of the one that it replaces, whatever these are now.

    Args:
        stored: Its values.
        there: What stands in its place, an array or not.
        is_weak: Whether its type gave way to others in arithmetic.
    """
    if isinstance(there, jax.Array) and there.shape == stored.shape and _is_committed(there):
        return jax.make_array_from_callback(stored.shape, there.sharding, lambda at: stored[at])
    array = jnp.array(stored, copy=True)
    return _weakened(array) if is_weak else array


def _is_committed(array: Any) -> bool:
    """Whether somebody has said on which devices it is to lie."""
    return len(array.sharding.device_set) > 1 or bool(getattr(array, "_committed", False))


def _weakened(array: jax.Array) -> jax.Array:
    """Returns an array whose type gives way to others, which JAX makes nowhere in public."""
    from jax._src.lax.lax import _convert_element_type

    weak: jax.Array = _convert_element_type(array, None, weak_type=True)
    return weak
