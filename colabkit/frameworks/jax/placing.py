"""Where arrays lie: taken in parts from the devices, put back onto those that are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from colabkit.errors import StateError

Axes = tuple[tuple[str, int], ...]


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


def layout_of(array: Any) -> dict[str, Any] | None:
    """Returns how an array lies on a mesh, in plain values; None where it lies on none."""
    sharding = array.sharding
    if not isinstance(sharding, NamedSharding):
        return None
    parts = [list(part) if isinstance(part, tuple) else part for part in sharding.spec]
    if not all(part is None or isinstance(part, list | str) for part in parts):
        return None
    return {"mesh": [list(axis) for axis in _axes_of(sharding.mesh)], "spec": parts}


def meshes_of(arrays: Iterable[Any]) -> dict[Axes, Any]:
    """Returns the meshes that arrays lie on, by names and sizes of their axes."""
    found = (each.sharding for each in arrays if isinstance(each, jax.Array))
    return {_axes_of(each.mesh): each.mesh for each in found if isinstance(each, NamedSharding)}


def _axes_of(mesh: Any) -> Axes:
    return tuple(mesh.shape.items())


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an array is put, and how.

    Attributes:
        there: What stands in its place, an array or not.
        is_weak: Whether its type gave way to others in arithmetic.
        layout: How it lay on its mesh, None where it lay on none.
        meshes: Those of the run's state as it is now.
    """

    there: Any
    is_weak: bool = False
    layout: Mapping[str, Any] | None = None
    meshes: Mapping[Axes, Any] = dataclasses.field(default_factory=dict)

    def sharding(self) -> Any:
        """Returns how it is to lie, None where nobody has said.

        A step lays out what it returns as it likes, also what it was given on one device: where
        the mesh is such a one as then, it lies so again.
        """
        is_committed = isinstance(self.there, jax.Array) and _is_committed(self.there)
        if self.layout is not None:
            mesh = self.meshes.get(tuple((name, size) for name, size in self.layout["mesh"]))
            on_a_mesh = is_committed and isinstance(self.there.sharding, NamedSharding)
            if mesh is not None and (on_a_mesh or not is_committed):
                parts = [tuple(p) if isinstance(p, list) else p for p in self.layout["spec"]]
                return NamedSharding(mesh, PartitionSpec(*parts))
        return self.there.sharding if is_committed else None


def placed(stored: np.ndarray[Any, Any], place: Place) -> jax.Array:
    """Returns an array on the devices that are there, whatever these are now."""
    sharding = place.sharding()
    if sharding is not None and np.shape(place.there) == stored.shape:
        array = jax.make_array_from_callback(stored.shape, sharding, lambda at: stored[at])
    else:
        array = jnp.array(stored, copy=True)
    return _weakened(array) if place.is_weak else array


def _is_committed(array: Any) -> bool:
    """Whether somebody has said on which devices it is to lie."""
    return len(array.sharding.device_set) > 1 or bool(getattr(array, "_committed", False))


def _weakened(array: jax.Array) -> jax.Array:
    """Returns an array whose type gives way to others, which JAX makes nowhere in public."""
    from jax._src.lax.lax import _convert_element_type

    weak: jax.Array = _convert_element_type(array, None, weak_type=True)
    return weak
