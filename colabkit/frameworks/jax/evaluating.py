"""What the trees of a run were where a pass ended, for a pass behind it that only evaluates."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from colabkit.checkpoint import Section
from colabkit.frameworks.jax.backend import is_key
from colabkit.frameworks.jax.trees import MODES, NnxParts
from colabkit.frameworks.plain import Parts

_PLAIN = bool | int | float | complex | str | bytes
# Counts and means of an evaluation are this share of all at most; what trains changes more.
_SHARE_MAX = 0.1


class _Seen:
    """The very array of one moment, which is not kept for that."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = weakref.ref(array)

    def __eq__(self, other: object) -> bool:
        array = self._array()
        return isinstance(other, _Seen) and array is not None and other._array() is array

    __hash__ = None  # type: ignore[assignment]


class _Sums:
    """What arrays add up to, bit for bit: a module of NNX has new ones after each compiled call."""

    __slots__ = ("_sums",)

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._sums = _sums_of([jax.random.key_data(a) if is_key(a) else a for a in arrays])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Sums):
            return NotImplemented
        return [int(s) for s in self._sums] == [int(s) for s in other._sums]

    __hash__ = None  # type: ignore[assignment]


def _all_sums(arrays: Sequence[Any]) -> list[Any]:
    return [_sum_of(array) for array in arrays]


def _sum_of(array: Any) -> Any:
    if jnp.iscomplexobj(array):
        return _sum_of(array.real) * jnp.uint32(3) + _sum_of(array.imag)
    if array.dtype != bool:
        kind = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
        array = jax.lax.bitcast_convert_type(array, kind)
    bits = array.reshape(-1).astype(jnp.uint32)
    places = jax.lax.iota(jnp.uint32, bits.size)
    return (bits * (jnp.uint32(2654435761) * (2 * places + 1))).sum(dtype=jnp.uint32)


_sums_of: Callable[[Sequence[Any]], list[Any]] = jax.jit(_all_sums)


@dataclasses.dataclass(frozen=True, eq=False)
class TreesAtEnd:
    """The trees of a run at one moment; a later one is equal where none but small ones changed.

    Attributes:
        held: Small trees as they were, by name.
        seen: What all others were, which must be the same.
        stored: Returns what is stored of a tree.
    """

    held: Mapping[str, Parts]
    seen: Mapping[str, Any]
    stored: Callable[[Parts], tuple[dict[str, Any], dict[str, Any]]]

    @classmethod
    def of(cls, trees: Mapping[str, Parts], stored: Any) -> TreesAtEnd | None:
        """Returns what trees are now, None where arrays of NumPy could change in place."""
        sizes = {}
        for name, parts in trees.items():
            if not all(isinstance(leaf, jax.Array | _PLAIN) for leaf in parts.leaves.values()):
                return None
            sizes[name] = sum(getattr(leaf, "nbytes", 8) for leaf in parts.leaves.values())
        small, total = [], 0
        for name in sorted(sizes, key=lambda each: sizes[each]):
            total += sizes[name]
            small += [name] if total <= _SHARE_MAX * sum(sizes.values()) else []
        others = {name: trees[name].leaves for name in trees if name not in small}
        seen: dict[str, Any] = {
            name: {p: _Seen(v) if isinstance(v, jax.Array) else v for p, v in leaves.items()}
            for name, leaves in others.items()
        }
        for name in (each for each in others if isinstance(trees[each], NnxParts)):
            plain = {p: v for p, v in others[name].items() if not isinstance(v, jax.Array)}
            arrays = [v for v in others[name].values() if isinstance(v, jax.Array)]
            seen[name] = ([*others[name]], _Sums(arrays), _without_modes(plain))
        return cls({name: trees[name] for name in small}, seen, stored)

    def __eq__(self, now: object) -> bool:
        """Whether what has changed since is held."""
        if not isinstance(now, TreesAtEnd):
            return NotImplemented
        arrays = [leaf for parts in self.held.values() for leaf in parts.leaves.values()]
        is_whole = not any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in arrays)
        return is_whole and self.held.keys() == now.held.keys() and self.seen == now.seen

    __hash__ = None  # type: ignore[assignment]

    def over(self, sections: Sequence[Section]) -> list[Section]:
        """Returns the sections of a save with the small trees as they were."""
        then = {name: self.stored(parts) for name, parts in self.held.items()}
        found = []
        for section in sections:
            if section.name in then:
                section = dataclasses.replace(section, state=then[section.name][0])
            elif section.name == "objects":
                trees = section.state["trees"] | {name: kept for name, (_, kept) in then.items()}
                section = dataclasses.replace(section, state={**section.state, "trees": trees})
            found.append(section)
        return found


def _without_modes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns plain values but those that eval() sets, which stands between two passes."""
    return {p: v for p, v in values.items() if p.rpartition(".")[2] not in MODES}
