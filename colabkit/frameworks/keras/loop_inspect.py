"""Looks at what the steps of a loop of one's own use, for what no checkpoint holds."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.begun_anew import changes, name_of
from colabkit.frameworks.bystanders import Bystander, Bystanders
from colabkit.frameworks.keras.graphs import draws_unseen
from colabkit.frameworks.keras.randomness import generator_kinds
from colabkit.frameworks.keras.reach import variables_within
from colabkit.frameworks.keras.state import KerasState
from colabkit.frameworks.keras.variables import (
    backend_name,
    ids_of,
    variable_kinds,
)
from colabkit.storage import hash_of

_WHOLE_MAX, _SAMPLES = 1 << 18, 4096  # elements
_NAMED_MAX, _ROW_MAX = 3, 256


class LoopInspector:
    """Finds what steps draw, train and change beside the run's objects.

    What a loop does lies in functions that nobody handed over. But optimizers, variables, and
    functions that were traced for a step are in memory.

    Args:
        state: The run's objects.
    """

    def __init__(self, state: KerasState) -> None:
        self._state = state
        self._traced_before: dict[int, int] | None = None
        self._optimizers = Bystanders(_steps_of)
        self._variables = Bystanders(_mark_of)
        self._reasons: dict[str, None] = {}
        self.is_over = False

    def begin_step(self) -> None:
        """Before the first step, and once more behind it."""
        if self._traced_before is None:
            live = _Living()
            self._traced_before = {id(f): _traces_of(f) for f in live.functions}
            self._take_down(live, set())
        else:
            self.finish()

    def finish(self) -> None:
        """Looks, where a step lies behind."""
        if not self.is_over and self._traced_before is not None:
            self.is_over = True
            live = _Living()
            self._take_down(live, self._in_graphs(live.functions, self._traced_before))

    def _take_down(self, live: _Living, in_graphs: set[int]) -> None:
        """Takes down what is in memory, whatever leads to it."""
        held = self._held()
        others = [each for each in live.optimizers() if held.isdisjoint(_ids(each.variables))]
        self._optimizers.take_down(("", each) for each in others)
        # What is summed up for the eye is seen in the source where it is for more.
        left = _ids(live.metric_variables()) - in_graphs
        left |= held | _ids(variable for each in others for variable in each.variables)
        found = (each for each in live.variables if left.isdisjoint(ids_of(each)))
        self._variables.take_down(("", each) for each in found)

    def watch(self, reached: Mapping[str, Any]) -> None:
        """Takes down what the loop reaches, by path, and the run does not hold."""
        metrics = [e for e in reached.values() if isinstance(e, keras.metrics.Metric)]
        held = self._held() | _ids(each for metric in metrics for each in metric.variables)
        for path, value in reached.items():
            left_out = [e for e in variables_of(value) if held.isdisjoint(ids_of(e))]
            if not isinstance(value, keras.optimizers.Optimizer):
                self._variables.take_down((path, each) for each in left_out)
            elif len(left_out) == len(value.variables):
                self._optimizers.take_down([(path, value)])

    def reasons(self) -> tuple[str, ...]:
        """Returns what was found up to now."""
        optimizers, variables = self._optimizers.changed(), self._variables.changed()
        if optimizers or variables:
            held = self._held()
            left_out = [e for e in optimizers if held.isdisjoint(_ids(e.value.variables))]
            self._reasons |= dict.fromkeys(map(_of_optimizer, left_out))
            changed = [each for each in variables if held.isdisjoint(ids_of(each.value))]
            self._reasons |= dict.fromkeys(_of_variables(changed))
        return tuple(self._reasons)

    def _held(self) -> set[int]:
        """Returns by id what a checkpoint holds, or an object that was passed sees to."""
        return self._state.held_ids() | _ids(variables_within(self._state.others).values())

    def _in_graphs(self, functions: Iterable[Any], before: Mapping[int, int]) -> set[int]:
        """Returns which variables the first step's graphs use; notes what these draw."""
        held, found = self._held(), set[int]()
        for function in functions:
            is_new = _traces_of(function) > before.get(id(function), 0)
            for concrete in function._list_all_concrete_functions():  # public nowhere
                graph = concrete.graph
                if is_new or any(id(v) in held for v in graph.variables):
                    found |= _ids(graph.variables)
                    if draws_unseen(graph):
                        self._reasons[_DRAWS] = None
        return found


class _Living:
    """What is in memory of Keras and its backend.

    Attributes:
        functions: Compiled ones, traced before.
        variables: Each once, though Keras' own wrap those of the backend.
    """

    def __init__(self) -> None:
        known = (keras.optimizers.Optimizer, keras.metrics.Metric)
        kinds = (*known, *variable_kinds(), *_function_class())
        live = gc.get_objects()
        wanted = {each for each in set(map(type, live)) if issubclass(each, kinds)}
        # A hundred thousands of objects: a loop in Python would take ten times as long.
        self._found = [*itertools.compress(live, map(wanted.__contains__, map(type, live)))]
        self.functions = [e for e in self._of(_function_class()) if _traces_of(e)]
        all_of_them = self._of(variable_kinds())
        inner = {id(getattr(each, "_value", None)) for each in all_of_them}
        # Of a variable in replicas, even of one.
        inner |= {id(part) for each in all_of_them for part in getattr(each, "_values", ())}
        self.variables = [each for each in all_of_them if id(each) not in inner]

    def _of(self, kinds: tuple[type, ...]) -> list[Any]:
        return [each for each in self._found if issubclass(type(each), kinds)]

    def optimizers(self) -> list[Any]:
        """Returns those that no other one is around, once they are whole."""
        found = [e for e in self._of((keras.optimizers.Optimizer,)) if hasattr(e, "_iterations")]
        inner = {id(getattr(each, "inner_optimizer", None)) for each in found}
        return [each for each in found if id(each) not in inner]

    def metric_variables(self) -> Iterator[Any]:
        """Yields what is summed up for the eye, unless the loop reads it, whose source tells."""
        for each in self._of((keras.metrics.Metric,)):
            yield from each.variables


_DRAWS = (
    "a compiled step draws from tf.random, whose place nothing can save (draw with keras.random"
    " and a keras.random.SeedGenerator, or tf.random.Generator, and pass it to Run)"
)


def _of_optimizer(found: Bystander) -> str:
    """Returns what is said of an optimizer that was not passed."""
    path = found.path or "optimizer"
    return (
        f"the optimizer {type(found.value).__name__} is none of the run's objects, so a resume"
        f" begins it anew (pass it: Run(..., {name_of(path)}={path}))"
    )


def _of_variables(found: Iterable[Bystander]) -> Iterator[str]:
    """Yields what is said of variables that were not passed: those of a model at once."""
    unnamed = []
    for path, each in found:
        if path:
            yield changes(path)
        else:
            unnamed.append(str(each.name).partition(":")[0])
    if unnamed:
        names = ", ".join(list(dict.fromkeys(unnamed))[:_NAMED_MAX])
        yield (
            f"the loop changes {names}, which no object of the run holds"
            " (pass what keeps it: Run(..., name=it))"
        )


def variables_of(value: Any) -> Sequence[Any]:
    """Returns the variables that something of Keras or TensorFlow is made of; rows are theirs."""
    if isinstance(value, variable_kinds()):
        return [value]
    if isinstance(value, (keras.random.SeedGenerator, *generator_kinds())):
        return variables_of(getattr(value, "state", None))
    if isinstance(value, keras.layers.Layer | keras.metrics.Metric | keras.optimizers.Optimizer):
        return list(value.variables)
    if isinstance(value, list | tuple | dict):
        parts = itertools.islice(value.values() if isinstance(value, dict) else value, _ROW_MAX)
        return [each for part in parts for each in variables_of(part)]
    return []


def _ids(variables: Iterable[Any]) -> set[int]:
    return {part for each in variables for part in ids_of(each)}


def _steps_of(optimizer: Any) -> int | None:
    with contextlib.suppress(Exception):  # in mid-step it cannot be read on JAX
        # Of its own count, also where only some of its steps change what it trains.
        counted = getattr(optimizer, "inner_optimizer", optimizer)._iterations
        return int(keras.ops.convert_to_numpy(counted.value))
    return None


def _mark_of(variable: Any) -> str | None:
    """Returns a hash of its value, of a large one that of a sample."""
    with contextlib.suppress(Exception):  # of a graph, or yet to be made, it cannot be read
        value = keras.ops.convert_to_tensor(variable)
        size = math.prod(value.shape)
        if size > _WHOLE_MAX:
            value = keras.ops.reshape(value, (-1,))[:: size // _SAMPLES]
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
        return None if array.dtype.hasobject else hash_of(array.reshape(-1).view(np.uint8))
    return None


def _traces_of(function: Any) -> int:
    return int(function.experimental_get_tracing_count())


def _function_class() -> tuple[type, ...]:
    if backend_name() != "tensorflow":
        return ()
    import tensorflow as tf  # imported where it is the backend

    return (type(tf.function(lambda: None)),)
