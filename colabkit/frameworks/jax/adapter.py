"""JAX behind the loop's one protocol."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from colabkit.checkpoint import TensorBackend, TensorSpec
from colabkit.frameworks.batch_records import BatchRecord
from colabkit.frameworks.begun_anew import begun_anew, changes
from colabkit.frameworks.exposed import Exposed
from colabkit.frameworks.jax.backend import JaxBackend, deleted_error, is_key
from colabkit.frameworks.jax.evaluating import TreesAtEnd
from colabkit.frameworks.jax.modules_beside import ModulesBeside
from colabkit.frameworks.jax.placing import (
    Place,
    joined,
    layout_of,
    meshes_of,
    parts_by_place,
    placed,
)
from colabkit.frameworks.jax.trees import has_nodes, is_spread, parts_of
from colabkit.frameworks.plain import Parts, PlainAdapter
from colabkit.frameworks.plain.adapter import cpu_threads
from colabkit.frameworks.plain.records import record

_CARRIED = (
    "the loop's {0} begins anew at a resume: keep it as an object of the run"
    " (Run(..., {0}={0}), then run.{0})"
)
_FLAG = "--xla_gpu_deterministic_ops=true"


class JaxAdapter(PlainAdapter):
    """What the loop needs of a framework, for pytrees of JAX and modules of NNX.

    Args:
        objects: By name, as attributes of the run, where the loop puts new ones.
        save_base: Without meaning here: all is written.
    """

    _backend: Callable[[], TensorBackend] = JaxBackend

    def __init__(self, objects: Exposed, *, save_base: bool = False) -> None:
        super().__init__(objects, save_base=save_base)
        self._beside = ModulesBeside(objects)

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and no checkpoint holds."""
        return (*super().unsaved(), *self._beside.reasons())

    def _apart(self, value: Any) -> Parts:
        """Takes an object apart."""
        return parts_of(value)

    def _stored(self, parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the arrays of an object by path, and all else that is stored of it."""
        arrays: dict[str, Any] = {}
        kept: dict[str, Any] = {"values": {}, "keys": {}, "weak": [], "numpy": []}
        kept |= {"spread": {}, "layouts": {}}
        for path, leaf in parts.leaves.items():
            if isinstance(leaf, np.ndarray):
                arrays[path] = leaf
                kept["numpy"].append(path)
            elif not isinstance(leaf, jax.Array):
                kept["values"][path] = leaf
            elif leaf.is_deleted():
                raise deleted_error(of=path)
            else:
                self._note_array(path, leaf, arrays, kept)
        return arrays, kept

    @staticmethod
    def _note_array(path: str, leaf: Any, arrays: dict[str, Any], kept: dict[str, Any]) -> None:
        if is_key(leaf):
            kept["keys"][path] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        elif leaf.weak_type:
            kept["weak"].append(path)
        if (layout := layout_of(leaf)) is not None:
            kept["layouts"][path] = layout
        if not is_spread(leaf):
            arrays[path] = leaf
            return
        places = []
        for number, (begins, part) in enumerate(parts_by_place(leaf).items()):
            arrays[f"{path}@{number}"] = part
            places.append(list(begins))
        kept["spread"][path] = [list(leaf.shape), places]

    def _leaves_of(
        self, arrays: Mapping[str, Any], kept: Mapping[str, Any], parts: Parts
    ) -> dict[str, Any]:
        """Returns the leaves that ``_stored`` gave of an object, on the devices of ``parts``."""
        spread = kept.get("spread", {})
        parted = {f"{p}@{n}" for p, (_, places) in spread.items() for n in range(len(places))}
        whole = {path: value for path, value in arrays.items() if path not in parted}
        for path, (shape, places) in spread.items():
            pieces = {tuple(b): arrays[f"{path}@{n}"] for n, b in enumerate(places)}
            whole[path] = joined(pieces, tuple(shape))
        found = {p: v for p, v in kept["values"].items() if p in parts.leaves}
        meshes = meshes_of(leaf for made in self._made.values() for leaf in made.leaves.values())
        for path, value in whole.items():
            if path not in parts.leaves:
                continue
            there, layout = parts.leaves[path], kept.get("layouts", {}).get(path)
            if path in kept.get("numpy", ()):
                found[path] = value.copy("K")
            elif path in kept.get("keys", {}):
                key_data = jax.random.key_data(there) if is_key(there) else None
                data = placed(value, Place(key_data, layout=layout, meshes=meshes))
                found[path] = jax.random.wrap_key_data(data, impl=kept["keys"][path])
            else:
                is_weak = path in kept.get("weak", ())
                found[path] = placed(value, Place(there, is_weak, layout, meshes))
        return found

    def evaluation_mark(self, *, at_end: bool = False) -> object | None:  # noqa: ARG002
        """Returns what is equal while a loop that only evaluates goes on, None of any other."""
        if self._others:
            return None
        trees = {name: self._apart(self._objects[name]) for name in self._trees}
        return TreesAtEnd.of(trees, self._stored)

    def guard(self) -> Callable[[TensorSpec], bool]:
        """All are held as they are; a lone number may be infinite, and no weight has diverged."""
        return lambda spec: bool(spec.shape)

    def record(self, batch: Any) -> BatchRecord:
        """Returns what tells later whether another batch is the same."""
        return record(batch, (np.ndarray, jax.Array))

    def to_floats(self, values: Sequence[Any]) -> list[float]:
        """Reads scalars, all in one transfer."""
        return floats_of(values)

    def carried(
        self, variables: Mapping[str, Any], decisive: Mapping[str, Any], taken: Collection[str]
    ) -> tuple[str, ...]:
        """Returns which variables are keys or arrays that no object of the run holds.

        And those that steps go by, in words.
        """
        held = {
            id(leaf)
            for name in self._trees
            for leaf in self._apart(self._objects[name]).leaves.values()
        }
        arrays = [
            name
            for name, value in variables.items()
            if any(
                isinstance(leaf, jax.Array) and (is_key(leaf) or leaf.ndim) and id(leaf) not in held
                for leaf in jax.tree.leaves(value)
            )
        ]
        trees = {name: [id(leaf) for leaf in jax.tree.leaves(e)] for name, e in decisive.items()}
        others = [n for n, ids in trees.items() if n not in arrays and not (ids and held >= {*ids})]
        modules = [name for name in others if has_nodes(decisive[name])]
        plain = begun_anew((name for name in others if name not in modules), decisive, taken=taken)
        return (*(_CARRIED.format(name) for name in arrays), *map(changes, modules), *plain)

    def watch_beside(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:  # noqa: ARG002
        """Takes down what of NNX the run has not."""
        self._beside.watch(reached)

    def environment(self) -> dict[str, Any]:
        """Returns what must be the same for the same bits."""
        return {
            **jax_environment(),
            "numpy": np.__version__,
            "python": ".".join(platform.python_version_tuple()[:2]),
        }

    def reasons(self) -> tuple[str, ...]:
        """Returns what of the framework's settings stands against exactness."""
        return nondeterminism()


def floats_of(values: Sequence[Any]) -> list[float]:
    """Reads scalars, all in one transfer."""
    return [float(value) for value in jax.device_get(list(values))]


def jax_environment() -> dict[str, Any]:
    """Returns what of JAX must be the same for the same bits."""
    device = jax.devices()[0]
    found = {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "jaxlib": jax.lib.__version__,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
    }
    return found | ({"CPU_threads": cpu_threads()} if device.platform == "cpu" else {})


def nondeterminism() -> tuple[str, ...]:
    """Returns what of JAX's settings stands against exactness."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return ()
    if device.platform in {"gpu", "cuda", "rocm"}:
        if _FLAG in os.environ.get("XLA_FLAGS", "").lower().split():
            return ()
        said = (
            f"GPU kernels may add in any order (XLA_FLAGS={_FLAG}, set before jax is imported,"
            " makes them exact)"
        )
        return (said,)
    return (f"nobody has seen whether {device.device_kind} repeats its sums bit for bit",)
