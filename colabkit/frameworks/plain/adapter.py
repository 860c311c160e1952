"""A run without a framework behind the loop's one protocol."""

from __future__ import annotations

import copy
import os
import platform
import random
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import Section, TensorBackend, TensorSpec, encode
from colabkit.errors import ArgumentError, StateError
from colabkit.frameworks.attributes import has_state
from colabkit.frameworks.base import Feed, Owned
from colabkit.frameworks.batch_records import BatchRecord
from colabkit.frameworks.batch_watches import SampledWatch, Watch
from colabkit.frameworks.begun_anew import begun_anew, is_row_of
from colabkit.frameworks.estimators import EstimatorState
from colabkit.frameworks.exposed import Exposed
from colabkit.frameworks.generators import (
    find_generators,
    generator_state,
    is_unseedable,
    restore_generator,
)
from colabkit.frameworks.plain.backend import PlainBackend
from colabkit.frameworks.plain.parts import Parts, TreeParts
from colabkit.frameworks.plain.records import record
from colabkit.frameworks.plain.sources import feed_of
from colabkit.frameworks.second_names import Arrays, SecondNames
from colabkit.frameworks.small_copies import small_copies
from colabkit.storage import Bytes, hash_of

_NAMED_MAX = 4


class PlainAdapter:
    """What the loop needs of a framework, for trees of arrays and objects with a state.

    Args:
        objects: By name, as attributes of the run, where the loop puts new ones.
        save_base: Without meaning here: all is written.
    """

    _backend: Callable[[], TensorBackend] = PlainBackend

    def __init__(self, objects: Exposed, *, save_base: bool = False) -> None:  # noqa: ARG002
        self.backend = self._backend()
        self._objects = objects
        self._others = tuple(name for name, value in objects.items() if _has_state(value))
        self._trees = tuple(name for name in objects if name not in self._others)
        self._made = {name: self._checked(name, objects[name]) for name in self._trees}
        self._has_changed = not self._trees
        self._first = {name: _digest_of(parts) for name, parts in self._made.items()}
        self._steps = 0
        # Until the first step, the states of small objects that a checkpoint has.
        self._again: Mapping[str, Any] = {}

    def _apart(self, value: Any) -> Parts:
        """Takes an object apart."""
        return TreeParts.of(value)

    def _checked(self, name: str, value: Any) -> Parts:
        try:
            parts = self._apart(value)
            for state in self._stored(parts):
                _, arrays = encode(state, self.backend.is_tensor)
                for each in filter(self.backend.is_tensor, arrays.values()):
                    self.backend.describe(each)
        except StateError as error:
            raise ArgumentError(error.message, argument=name, hint=error.hint) from error
        if not parts.leaves:
            message = f"{name} is a {type(value).__name__} that holds nothing to save."
            hint = (
                "Pass what training changes: arrays, trees of arrays, objects with state_dict and"
                f" load_state_dict; a loop's variables are kept by run.state({name}=...)."
            )
            raise ArgumentError(message, argument=name, hint=hint)
        return parts

    def _stored(self, parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the arrays of an object by path, and all else that is stored of it."""
        arrays = {p: v for p, v in parts.leaves.items() if isinstance(v, np.ndarray)}
        return arrays, {"values": {p: v for p, v in parts.leaves.items() if p not in arrays}}

    def _leaves_of(
        self, arrays: Mapping[str, Any], kept: Mapping[str, Any], parts: Parts
    ) -> dict[str, Any]:
        """Returns the leaves that ``_stored`` gave of an object, for one like ``parts``."""
        own = {p: v.copy("K") for p, v in arrays.items() if p in parts.leaves}
        return own | {p: v for p, v in kept["values"].items() if p in parts.leaves}

    def open(self, before_optimizer_step: Callable[[], None]) -> None:
        """Nothing to watch."""

    def close(self) -> None:
        """Nothing to stop."""

    def begin_step(self) -> None:
        """Counts the steps."""
        self._steps, self._again = self._steps + 1, {}

    def has_stepped(self) -> bool:
        """Nobody can tell."""
        return True

    def is_mid_group(self) -> bool:
        """Nobody gathers gradients but in a tree that a checkpoint holds."""
        return False

    def evaluation_mark(self, *, at_end: bool = False) -> object | None:  # noqa: ARG002
        """Nobody can tell."""
        return None

    def weights_mark(self) -> object | None:
        """Returns None: a place behind a pass holds them, or nobody can tell."""

    def sections(self) -> list[Section]:
        """Returns all that a checkpoint holds of the user's objects."""
        weights, trees = [], {}
        for name in self._trees:
            parts = self._now(name)
            arrays, trees[name] = self._stored(parts)
            weights.append(Section(name, arrays, weights=True))
        others = {name: _state_of(self._objects[name]) for name in self._others}
        return [*weights, Section("objects", {"trees": trees, "others": others}, weights=False)]

    def _now(self, name: str) -> Parts:
        parts = self._apart(self._objects[name])
        if not self._has_changed:
            made = self._made[name].leaves
            is_another = any(v is not made.get(p) for p, v in parts.leaves.items())
            # Arrays of NumPy are changed in place, as often as not.
            self._has_changed = is_another or _digest_of(parts) != self._first.get(name)
        return parts

    def _note_made(self, name: str) -> None:
        self._made[name] = parts = self._apart(self._objects[name])
        self._first[name] = _digest_of(parts)

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts a checkpoint back: into objects that can be changed, else in their place."""
        objects = sections["objects"]
        for name in self._trees:
            parts = self._made[name]
            leaves = self._leaves_of(sections[name], objects["trees"][name], parts)
            _require_all(name, leaves, parts)
            self._objects.replace(name, parts.rebuilt(leaves))
            self._has_changed = False
            self._note_made(name)
        self._again = self._small_of(objects["others"])
        for name in self._others:
            if name in objects["others"]:
                _give_state(self._objects[name], objects["others"][name])

    def restore_again(self, *, all_of_it: bool = False) -> None:
        """Puts objects with a state back; no tree is reset as an epoch begins."""
        if all_of_it:
            again, self._again = self._again, {}
            for name, state in again.items():
                _give_state(self._objects[name], state)

    def small_state(self, *, with_weights: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """Returns copies of the states of small objects: metrics, schedules."""
        return self._small_of({name: _state_of(self._objects[name]) for name in self._others})

    def _small_of(self, states: Mapping[str, Any]) -> dict[str, Any]:
        own = {
            name: each
            for name, each in states.items()
            if name in self._others and not isinstance(self._objects[name], EstimatorState)
        }
        return small_copies(own, self.backend.is_tensor)

    def put_small(self, state: Mapping[str, Any]) -> None:
        """Puts what ``small_state`` gave into the objects, until all is put back."""
        for name in self._again.keys() & state.keys():
            _give_state(self._objects[name], copy.deepcopy(state[name]))

    def begin_epoch(self) -> tuple[str, ...]:
        """Nothing comes back at the head of an epoch."""
        return ()

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Takes what fits; returns how many arrays did, of how many."""
        fitted = total = 0
        trees = sections.get("objects", {}).get("trees", {})
        for name in self._trees:
            parts, kept = self._made[name], trees.get(name)
            total += len(parts.leaves)
            if kept is None:
                continue
            now = self._forms(parts)
            found = self._leaves_of(sections.get(name, {}), kept, parts)
            fits = {p: v for p, v in found.items() if self._form(v) == now[p]}
            fitted += len(fits)
            self._objects.replace(name, parts.rebuilt({**parts.leaves, **fits}))
            self._note_made(name)
        return fitted, total

    def guard(self) -> Callable[[TensorSpec], bool]:
        """Nothing tells when an array of NumPy is changed."""
        return lambda _: False

    def unchanged(self) -> Callable[[Mapping[int, Bytes]], bool]:
        """Nothing is copied later."""
        return lambda _: True

    def feed(self, data: Any, *, batch_size: int = 32, shuffle: bool = True) -> Feed:
        """Returns the source of batches for whatever the user passed."""
        return feed_of(data, batch_size=batch_size, shuffle=shuffle)

    def record(self, batch: Any) -> BatchRecord:
        """Returns what tells later whether another batch is the same."""
        return record(batch)

    def watch(self, *, first: int = 0) -> Watch:
        """Returns what takes down some of the batches of one pass."""
        return SampledWatch(self.record, first=first)

    def seed(self, seed: int) -> None:
        """Puts every global random stream where a seed names."""
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # users draw from the global stream
        if "torch" in sys.modules:
            # A DataLoader, and the transforms of a Dataset, draw from it.
            sys.modules["torch"].default_generator.manual_seed(seed)

    def to_floats(self, values: Sequence[Any]) -> list[float]:
        """Reads scalars."""
        return [float(value) for value in values]

    def _form(self, leaf: Any) -> str:
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
            return f"{leaf.dtype} {list(leaf.shape)}"
        return type(leaf).__name__

    def _forms(self, parts: Parts) -> dict[str, str]:
        return {path: self._form(leaf) for path, leaf in parts.leaves.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        return {
            f"{name}.{path}": form
            for name in self._trees
            for path, form in self._forms(self._apart(self._objects[name])).items()
        }

    def parts(self) -> dict[str, str]:
        """Returns what is trained, in phrases."""
        return {n: f"{type(self._objects[n]).__name__} {n}" for n in self._trees}

    def owned(self) -> Owned:
        """Nothing: trees are replaced at each step, and so are no mark of a call."""
        return Owned(())

    def unwritten_bytes(self) -> int:
        """Returns 0: all is written."""
        return 0

    def changed_base(self, _sections: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
        """Returns nothing: all is written."""
        return {}

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        """Whether the trees hold, bit for bit, what ``sections`` gave."""
        trees = sections.get("objects", {}).get("trees", {})
        for name in self._trees:
            parts = self._apart(self._objects[name])
            arrays, kept = self._stored(parts)
            then = sections.get(name, {})
            if name not in trees or trees[name]["values"] != kept["values"]:
                return False
            if arrays.keys() != then.keys() or not all(_same(arrays[p], then[p]) for p in then):
                return False
        return True

    def passed(self) -> dict[str, Any]:
        """Returns nothing: rates and schedules lie in functions that nobody can read."""
        return {}

    def left(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def take_changes(self, then: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG002
        """Takes nothing."""
        return ()

    def told(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def environment(self) -> dict[str, Any]:
        """Returns what must be the same for the same bits."""
        return {
            "device": "cpu",
            "CPU_threads": cpu_threads(),
            "numpy": np.__version__,
            "python": ".".join(platform.python_version_tuple()[:2]),
        }

    def reasons(self) -> tuple[str, ...]:
        """Nothing stands against exactness."""
        return ()

    def carried(
        self,
        variables: Mapping[str, Any],  # noqa: ARG002
        decisive: Mapping[str, Any],
        taken: Collection[str],
    ) -> tuple[str, ...]:
        """Returns what steps go by, in words."""
        return begun_anew(decisive, decisive, taken=taken)

    def watch_beside(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:
        """Nothing tells which of them are trained."""

    def trained_apart(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of those that are no leaves of the run's trees."""
        trees = (self._apart(self._objects[name]) for name in self._trees)
        own = {id(leaf) for parts in trees for leaf in parts.leaves.values()}
        return tuple(name for name, each in values.items() if not is_row_of(each, own))

    def second_names(self) -> SecondNames:
        """Returns what keeps second names; arrays of a library's own are never changed."""
        return SecondNames(dict, Arrays())

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and no checkpoint can hold."""
        others: list[Any] = [self._objects[name] for name in self._others]
        watching = [each for each in others if hasattr(each, "unsaved")]
        found = [reason for each in watching for reason in each.unsaved()]
        if self._steps and not self._has_changed:
            first = self._trees[0]
            found.append(
                f"nothing of {', '.join(self._trees)} has changed in the loop: assign what a step"
                f" returns (run.{first} = ...), for that is what is saved"
            )
        for name in self._trees:
            now, made = self._apart(self._objects[name]), self._made[name]
            new = [p for p in now.leaves if p not in made.leaves]
            gone = [p for p in made.leaves if p not in now.leaves]
            if new or gone or now.form != made.form:
                what = ", ".join([*new, *gone][:_NAMED_MAX])
                found.append(
                    f"{name} has not the structure that it was given with"
                    f"{f' ({what})' if what else ''}: it must be so before the run is made"
                )
        return tuple(found)


def _is_generator(value: object) -> bool:
    return find_generators(value, ()) == [value] and not is_unseedable(value)


def _has_state(value: object) -> bool:
    return has_state(value) or _is_generator(value)


def _state_of(value: Any) -> object:
    return generator_state(value) if _is_generator(value) else value.state_dict()


def _give_state(value: Any, state: Any) -> None:
    if _is_generator(value):
        restore_generator(value, state)
    else:
        value.load_state_dict(state)


def _require_all(name: str, leaves: Mapping[str, Any], parts: Parts) -> None:
    missing = [path for path in parts.leaves if path not in leaves]
    if missing:
        what = ", ".join(missing[:_NAMED_MAX])
        message = f"The checkpoint holds no {what} of {name}."
        hint = "Make it as it was when the run began."
        raise StateError(message, where=name, hint=hint)


def _same(one: Any, other: Any) -> bool:
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def cpu_threads() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _digest_of(parts: Parts) -> str:
    """Returns a hash of the arrays of NumPy, which are changed in place as often as not."""
    arrays = [each for each in parts.leaves.values() if isinstance(each, np.ndarray)]
    plain = [each for each in arrays if each.size and not each.dtype.hasobject]
    return hash_of(*(np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in plain))
