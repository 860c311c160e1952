"""Looks at what the first step of a loop of one's own used, for what no checkpoint holds."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from colabkit.frameworks.keras.graphs import draws_unseen
from colabkit.frameworks.keras.state import KerasState
from colabkit.frameworks.keras.variables import backend_name, steps_of

_COMPARED_BYTES_MAX = 1 << 20


class LoopInspector:
    """Finds what a step draws, trains and changes beside the run's objects.

    What a loop does lies in functions that nobody handed over. After the first step, those
    that were traced for it are in memory, and so are optimizers that train the run's weights.

    Args:
        state: The run's objects.
    """

    def __init__(self, state: KerasState) -> None:
        self._state = state
        self._known: dict[int, int] | None = None
        self._steps_before: dict[int, int] = {}
        self._reasons: tuple[str, ...] = ()
        self._watched: list[tuple[str, Any, Any]] = []
        self.is_over = False

    def begin_step(self) -> None:
        """Before the first step, and once more behind it."""
        if self._known is None:
            live = _live()
            self._known = {id(f): f.experimental_get_tracing_count() for f in _functions(live)}
            self._steps_before = {id(each): steps_of(each) for each in _optimizers(live)}
        else:
            self.finish()

    def finish(self) -> None:
        """Looks, where a step lies behind."""
        if self.is_over or self._known is None:
            return
        self.is_over = True
        live, held = _live(), self._state.held_ids()
        reasons = list(self._left_out(live, held))
        for graph in self._graphs_of_the_step(_functions(live), held):
            if draws_unseen(graph):
                reasons.append(_DRAWS)
            unheld = (v for v in graph.variables if id(v) not in held)
            self._watched += [(v.name, v, v.value()) for v in unheld if _is_small(v)]
        self._reasons = tuple(dict.fromkeys(reasons))

    def reasons(self) -> tuple[str, ...]:
        """Returns what was found up to now."""
        changed = [each for each in self._watched if _has_changed(*each[1:])]
        if changed and not any("optimizer" in reason for reason in self._reasons):
            names = ", ".join(dict.fromkeys(name.partition(":")[0] for name, *_ in changed[:3]))
            way_on = "pass what keeps it: Run(..., name=it)"
            reason = f"the loop changes {names}, which no object of the run holds ({way_on})"
            self._reasons += (reason,)
            self._watched = []
        return self._reasons

    def _left_out(self, live: Iterable[Any], held: set[int]) -> Iterator[str]:
        inner = {id(getattr(o, "inner_optimizer", None)) for o in self._state.optimizers.values()}
        known = {id(o) for o in self._state.optimizers.values()} | inner
        for each in _optimizers(live):
            # One that took no step is of an earlier phase, say.
            if steps_of(each) > self._steps_before.get(id(each), 0) and id(each) not in known:
                trained = getattr(each, "_trainable_variables", None) or ()
                if any(id(variable) in held for variable in trained):
                    yield (
                        f"the optimizer {type(each).__name__} is none of the run's objects, so a"
                        " resume begins it anew (pass it: Run(..., optimizer=optimizer))"
                    )

    def _graphs_of_the_step(self, functions: Iterable[Any], held: set[int]) -> Iterator[Any]:
        known = self._known or {}
        for function in functions:
            traced = function.experimental_get_tracing_count()
            if not traced:
                continue
            is_new = traced > known.get(id(function), 0)
            for concrete in function._list_all_concrete_functions():  # public nowhere
                if is_new or any(id(v) in held for v in concrete.graph.variables):
                    yield concrete.graph


_DRAWS = (
    "a compiled step draws from tf.random, whose place nothing can save (draw with keras.random"
    " and a keras.random.SeedGenerator, or tf.random.Generator, and pass it to Run)"
)


def _live() -> list[Any]:
    kinds = (keras.optimizers.Optimizer, *_function_class())
    return [each for each in gc.get_objects() if issubclass(type(each), kinds)]


def _optimizers(live: Iterable[Any]) -> Iterator[Any]:
    return (each for each in live if issubclass(type(each), keras.optimizers.Optimizer))


def _functions(live: Iterable[Any]) -> Iterator[Any]:
    kinds = _function_class()
    return (each for each in live if issubclass(type(each), kinds))


def _function_class() -> tuple[type, ...]:
    if backend_name() != "tensorflow":
        return ()
    import tensorflow as tf  # imported where it is the backend

    return (type(tf.function(lambda: None)),)


def _is_small(variable: Any) -> bool:
    shape = variable.shape
    return bool(shape.is_fully_defined()) and (
        shape.num_elements() * variable.dtype.size <= _COMPARED_BYTES_MAX
    )


def _has_changed(variable: Any, then: Any) -> bool:
    return bool(variable.numpy().tobytes() != then.numpy().tobytes())
