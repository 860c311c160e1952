"""A framework of NumPy arrays in a page: all that a run asks of one, for tests of the seam."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import Section, TensorSpec
from colabkit.frameworks.base import Owned, Start
from colabkit.frameworks.batch_records import BatchRecord
from colabkit.frameworks.batch_watches import SampledWatch
from colabkit.frameworks.leaf_records import bytes_of, leaf_record, named_leaves
from colabkit.frameworks.second_names import Arrays, SecondNames
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor


class Model:
    """Weights by name, each changed in place."""

    def __init__(self, **weights: np.ndarray) -> None:
        self.weights = {name: Tensor(values) for name, values in weights.items()}

    def load(self, weights: Mapping[str, Tensor]) -> int:
        for name, tensor in weights.items():
            self.weights[name].values[...] = tensor.values
        return len(weights)


class ArraysFeed:
    """Batches of one array, in an order that the key of the pass alone decides."""

    def __init__(self, data: np.ndarray, batch_size: int, *, shuffle: bool) -> None:
        self._data, self._batch_size, self._shuffle = data, batch_size, shuffle
        self.length: int | None = -(-len(data) // batch_size)

    def batches(self, start: Start) -> Iterator[np.ndarray]:
        order = np.arange(len(self._data))
        if self._shuffle:
            np.random.default_rng(start.key).shuffle(order)
        for begin in range(start.skip * self._batch_size, len(order), self._batch_size):
            yield self._data[order[begin : begin + self._batch_size]]

    def state(self) -> object:
        return None

    def describe(self) -> Mapping[str, Any]:
        return {"samples": len(self._data), "batch_size": self._batch_size}

    def reasons(self) -> tuple[str, ...]:
        return ()

    notices = reasons


class NumpyAdapter:
    """Models by name; they are changed at any time, so every copy is made at once."""

    def __init__(self, objects: Mapping[str, Model], *, save_base: bool = False) -> None:
        self.backend = NumpyBackend()
        self._models = dict(objects)

    def open(self, before_optimizer_step: Callable[[], None]) -> None: ...

    def close(self) -> None: ...

    begin_step = close

    def small_state(self, *, with_weights: bool = False) -> dict[str, Any]:
        return {}

    def put_small(self, state: Mapping[str, Any]) -> None: ...

    def restore_again(self, *, all_of_it: bool = False) -> None: ...

    def evaluation_mark(self, *, at_end: bool = False) -> object | None: ...
    def weights_mark(self) -> object | None: ...

    def has_stepped(self) -> bool:
        return True

    def is_mid_group(self) -> bool:
        return False

    def sections(self) -> list[Section]:
        streams = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
        models = [Section(n, dict(m.weights), weights=True) for n, m in self._models.items()]
        return [*models, Section("objects", streams, weights=False)]

    def restore(self, sections: Mapping[str, Any]) -> None:
        self.restore_weights(sections)
        random.setstate(sections["objects"]["python"])
        np.random.set_state(sections["objects"]["numpy"])

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        taken = sum(model.load(sections[name]) for name, model in self._models.items())
        return taken, taken

    def guard(self) -> Callable[[TensorSpec], bool]:
        return lambda _: False

    def unchanged(self) -> Callable[[Mapping[int, Any]], bool]:
        return lambda _: True

    def feed(self, data: Any, *, batch_size: int = 32, shuffle: bool = True) -> ArraysFeed:
        return ArraysFeed(data, batch_size, shuffle=shuffle)

    def watch(self, *, first: int = 0) -> SampledWatch:
        return SampledWatch(_record, first=first)

    def seed(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)

    def to_floats(self, values: Sequence[Any]) -> list[float]:
        return [float(value) for value in values]

    def fingerprint(self) -> dict[str, Any]:
        pairs = ((n, m.weights.items()) for n, m in self._models.items())
        return {f"{n}.{w}": list(t.values.shape) for n, each in pairs for w, t in each}

    def parts(self) -> dict[str, str]:
        return {name: f"{len(model.weights)} arrays" for name, model in self._models.items()}

    def owned(self) -> Owned:
        return Owned(tuple(self._models.values()))

    def unwritten_bytes(self) -> int:
        return 0

    def changed_base(self, sections: Mapping[str, Any], /) -> dict[str, tuple[object, object]]:
        return {}

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        pairs = [(t, sections[n][w]) for n, m in self._models.items() for w, t in m.weights.items()]
        return all(np.array_equal(mine.values, saved.values) for mine, saved in pairs)

    def passed(self) -> dict[str, Any]:
        return {}

    left = told = passed

    def take_changes(self, then: Mapping[str, Any]) -> tuple[str, ...]:
        return ()

    def environment(self) -> dict[str, Any]:
        return {"numpy": np.__version__}

    def reasons(self) -> tuple[str, ...]:
        return ()

    unsaved = begin_epoch = reasons

    def watch_beside(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:
        """Nothing tells which of them are trained."""

    def second_names(self) -> SecondNames:
        return SecondNames(dict, Arrays())

    def trained_apart(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(values)

    def carried(
        self, variables: Mapping[str, Any], decisive: Mapping[str, Any], taken: Collection[str]
    ) -> tuple[str, ...]:
        return tuple(
            f"the loop's {n}" for n, each in variables.items() if isinstance(each, np.ndarray)
        )


def _record(batch: Any) -> BatchRecord:
    leaves = named_leaves(batch, (np.ndarray,))
    data = [(name, each, bytes_of(each, whole=False)) for name, each in leaves]
    return BatchRecord(tuple(leaf_record(n, e, form=str(e.dtype), data=d) for n, e, d in data))
