"""Looks into a tf.data pipeline for what a second reading would not repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

_RANDOM = (
    "Random",
    "StatelessRandom",
    "Multinomial",
    "ParameterizedTruncatedNormal",
    "TruncatedNormal",
    "SampleDistortedBoundingBox",
)
_WRITES = (
    "Assign",
    "LookupTableInsert",
    "ResourceScatter",
    "RngReadAndSkip",
    "RngSkip",
    "StatefulRandomBinomial",
    "StatefulStandardNormal",
    "StatefulTruncatedNormal",
    "StatefulUniform",
)
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What a pipeline is made of.

    Attributes:
        reasons: Why a pass cannot be repeated bitwise.
        notices: What a resume costs.
        first_pass_is_kept: Whether a cache in memory keeps draws of the first pass.
    """

    reasons: tuple[str, ...]
    notices: tuple[str, ...]
    first_pass_is_kept: bool


def look_into(dataset: Any, *, replayed: bool) -> Look:
    """Examines a pipeline without reading from it.

    Args:
        dataset: The pipeline.
        replayed: Whether it was made before the run, so that its seeds must be fixed in it.
    """
    reasons: list[str] = []
    stages = list(_stages(dataset))
    draws_in_map = False
    for stage in stages:
        draws = _draws(stage)
        draws_in_map |= draws
        if draws and _is_parallel(stage):
            reasons.append(
                "a parallel map in the tf.data pipeline draws random numbers in no fixed order"
                " (draw with tf.random.stateless_* and a counter, or leave out"
                " num_parallel_calls)"
            )
        if draws and replayed and _has_free_seed(stage):
            reasons.append(_UNSEEDED)
        if _is_shuffle(stage) and replayed and _shuffle_is_unseeded(stage):
            reasons.append(_UNSEEDED)
        if _writes_variables(stage):
            reasons.append(
                "the tf.data pipeline changes a variable, a Keras layer's seed or a"
                " tf.random.Generator for example, which a resume begins anew (put random"
                " layers into the model, or draw with tf.random.uniform and the like)"
            )
        if _calls_python(stage):
            reasons.append("the tf.data pipeline calls Python, whose random draws nothing can see")
    if not dataset.options().deterministic and dataset.options().deterministic is not None:
        reasons.append("the tf.data pipeline's options allow any order (deterministic=False)")
    random = draws_in_map or any(map(_is_shuffle, stages))
    cached = any(_random_before_cache(stage) for stage in stages)
    costly = draws_in_map or not _is_plain(dataset)
    notices = ("a resume runs the tf.data pipeline over the batches before again",)
    return Look(
        reasons=tuple(dict.fromkeys(reasons)),
        notices=notices if random or costly else (),
        first_pass_is_kept=cached,
    )


_UNSEEDED = (
    "the tf.data pipeline draws from no fixed seed (call keras.utils.set_random_seed(0) before"
    " building it, or pass the function that builds it)"
)


def _stages(dataset: Any) -> Iterator[Any]:
    seen: set[int] = set()
    pending = [dataset]
    while pending:
        stage = pending.pop()
        if id(stage) not in seen:
            seen.add(id(stage))
            yield stage
            pending.extend(stage._inputs())  # the one way to walk a pipeline


def _graphs(stage: Any) -> Iterator[Any]:
    for function in stage._functions():
        concrete = getattr(function, "function", None)
        graph = getattr(concrete, "graph", None)
        if graph is not None:
            yield graph


def _operations(stage: Any) -> Iterator[Any]:
    pending = list(_graphs(stage))
    while pending:
        graph = pending.pop()
        yield from graph.get_operations()
        # Functions called from within: branches, loops, nested tf.functions.
        for inner in graph._get_function_def_names() if _shows_functions(graph) else ():
            found = graph._get_function(inner)
            if found is not None and getattr(found, "graph", None) is not None:
                pending.append(found.graph)


def _shows_functions(graph: Any) -> bool:
    return hasattr(graph, "_get_function_def_names") and hasattr(graph, "_get_function")


def _draws(stage: Any) -> bool:
    return any(_draws_statefully(op) for op in _operations(stage))


def _draws_statefully(operation: Any) -> bool:
    stateful: bool = operation.op_def.is_stateful
    return stateful and operation.type.startswith(_RANDOM)


def _has_free_seed(stage: Any) -> bool:
    return any(
        _draws_statefully(op) and not _attribute(op, "seed") and not _attribute(op, "seed2")
        for op in _operations(stage)
    )


def _attribute(operation: Any, name: str) -> int:
    try:
        return int(operation.get_attr(name))
    except ValueError:
        return 0


def _writes_variables(stage: Any) -> bool:
    return any(op.type.startswith(_WRITES) for op in _operations(stage))


def _calls_python(stage: Any) -> bool:
    return any(op.type in _PYTHON for op in _operations(stage))


def _is_parallel(stage: Any) -> bool:
    return type(stage).__name__.lstrip("_").startswith(("ParallelMap", "ParallelInterleave"))


def _is_shuffle(stage: Any) -> bool:
    return type(stage).__name__.lstrip("_").startswith("Shuffle")


def _shuffle_is_unseeded(stage: Any) -> bool:
    seeds = (getattr(stage, "_seed", None), getattr(stage, "_seed2", None))
    return all(seed is not None and int(tf.get_static_value(seed)) == 0 for seed in seeds)


def _random_before_cache(stage: Any) -> bool:
    if not type(stage).__name__.lstrip("_").startswith("Cache"):
        return False
    before = list(_stages(stage))[1:]
    return any(_is_shuffle(s) or _draws(s) for s in before)


def _is_plain(dataset: Any) -> bool:
    return not any(list(_graphs(stage)) for stage in _stages(dataset))
