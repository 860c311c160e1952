"""Looks into a tf.data pipeline for what a second reading would not repeat."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from colabkit.frameworks.keras.graphs import is_draw, nodes_of
from colabkit.frameworks.keras.places import Batching
from colabkit.frameworks.keras.tfdata_python import calls_python

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
# They make the iterator of what they read once, when their own is made. Of others it is not known.
_BEGIN_AT_ONCE = frozenset(
    {
        "AssertCardinality", "Batch", "Cache", "Filter", "FlatMap", "GroupByReducer",
        "GroupByWindow", "IgnoreErrors", "Interleave", "Map", "Options", "PaddedBatch",
        "ParallelBatch", "ParallelInterleave", "ParallelMap", "Prefetch", "Rebatch", "Scan",
        "Shard", "Skip", "Take", "TakeWhile", "Unbatch", "Unique", "Window", "Zip",
    }
)  # fmt: skip


# Of what they read, they hand on batch after batch in its order.
_KEEP_BATCHES = frozenset(
    {"AssertCardinality", "Cache", "Map", "Options", "ParallelMap", "Prefetch", "Repeat"}
)


class Depth(enum.IntEnum):
    """How far a pass must be read for the next one to draw what it would have drawn."""

    BEGUN = 0
    FIRST = 1
    WHOLE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineFindings:
    """What a pipeline is made of.

    Attributes:
        reasons: Why a pass cannot be repeated bitwise.
        notices: What a resume costs.
        depth: How far each pass before is read again.
        first_pass_is_kept: Whether a cache in memory keeps draws of the first pass.
    """

    reasons: tuple[str, ...]
    notices: tuple[str, ...]
    depth: Depth
    first_pass_is_kept: bool


def inspect_pipeline(dataset: Any, *, replayed: bool) -> PipelineFindings:
    """Examines a pipeline without reading from it.

    Args:
        dataset: The pipeline.
        replayed: Whether it was made before the run, so that its seeds must be fixed in it.
    """
    reasons: list[str] = []
    stages = list(stages_of(dataset))
    draws_in_map = False
    for stage in stages:
        draws = _draws(stage)
        draws_in_map |= draws
        if draws and _is_parallel(stage):
            reasons.append(_NO_ORDER)
        if replayed and (_has_free_seed(stage) or _shuffle_is_unseeded(stage)):
            reasons.append(_UNSEEDED)
        if _writes_variables(stage):
            reasons.append(_WRITES_VARIABLES)
        if any(map(calls_python, graphs_of(stage))):
            reasons.append("the tf.data pipeline calls Python, whose random draws nothing can see")
    if not dataset.options().deterministic and dataset.options().deterministic is not None:
        reasons.append("the tf.data pipeline's options allow any order (deterministic=False)")
    random = draws_in_map or any(map(_is_shuffle, stages))
    costly = draws_in_map or not _is_plain(dataset)
    depth = _depth(dataset)[1] if replayed else Depth.BEGUN
    notices = (_ALL_PASSES,) if depth is Depth.WHOLE else (_BATCHES,) if random or costly else ()
    return PipelineFindings(
        reasons=tuple(dict.fromkeys(reasons)),
        notices=notices,
        depth=depth,
        first_pass_is_kept=any(_random_before_cache(stage) for stage in stages),
    )


_NO_ORDER = (
    "a parallel map in the tf.data pipeline draws random numbers in no fixed order"
    " (draw with tf.random.stateless_* and a counter, or leave out num_parallel_calls)"
)
_UNSEEDED = (
    "the tf.data pipeline draws from no fixed seed (call keras.utils.set_random_seed(0) before"
    " building it, or pass the function that builds it)"
)
_WRITES_VARIABLES = (
    "the tf.data pipeline changes a variable, a Keras layer's seed or a tf.random.Generator for"
    " example, which a resume begins anew (put random layers into the model, or draw with"
    " tf.random.uniform and the like)"
)
_BATCHES = "a resume runs the tf.data pipeline over the batches before again"
_ALL_PASSES = (
    "a resume runs the tf.data pipeline over all passes before again (pass the function that"
    " builds it, and it is the pass under way alone)"
)


def batching_of(dataset: Any) -> Batching | None:
    """Returns how a pipeline makes batches, None where it does not say."""
    stage = dataset
    while _kind(stage) in _KEEP_BATCHES:
        (stage,) = stage._inputs()
    if _kind(stage) not in {"Batch", "ParallelBatch"}:
        return None
    samples = int(stage._inputs()[0].cardinality())
    size = tf.get_static_value(stage._batch_size)
    if samples < 0 or size is None:
        return None
    drops = tf.get_static_value(stage._drop_remainder)
    return Batching(samples - samples % int(size) if drops else samples, int(size))


def depth_of(dataset: Any) -> Depth:
    """Returns how far a pass must be read for the next one to draw what it would have drawn."""
    return _depth(dataset)[1]


def _depth(stage: Any) -> tuple[bool, Depth]:
    """Returns whether each pass over a stage draws, and how far it must be read for that.

    A shuffle makes the iterator of what it reads, which draws an order of its own, with its
    first element; what repeats or joins pipelines makes some in the middle of a pass.
    """
    inputs = list(map(_depth, stage._inputs()))
    depth = max((each for _, each in inputs), default=Depth.BEGUN)
    is_drawn_below = any(draws for draws, _ in inputs)
    if is_drawn_below and _is_shuffle(stage):
        depth = max(depth, Depth.FIRST)
    elif is_drawn_below and _kind(stage) not in _BEGIN_AT_ONCE:
        depth = Depth.WHOLE
    return is_drawn_below or draws_in_each_pass(stage), depth


def draws_in_each_pass(stage: Any) -> bool:
    """Whether each pass over a stage draws anew."""
    if _is_shuffle(stage):
        return getattr(stage, "_reshuffle_each_iteration", True) is not False
    return _kind(stage) == "Random"


def stages_of(dataset: Any) -> Iterator[Any]:
    """Yields a pipeline and all that it reads from."""
    seen: set[int] = set()
    pending = [dataset]
    while pending:
        stage = pending.pop()
        if id(stage) not in seen:
            seen.add(id(stage))
            yield stage
            pending.extend(stage._inputs())  # the one way to walk a pipeline


def graphs_of(stage: Any) -> Iterator[Any]:
    """Yields the graphs of the functions that a stage calls."""
    for function in stage._functions():
        concrete = getattr(function, "function", None)
        graph = getattr(concrete, "graph", None)
        if graph is not None:
            yield graph


def _nodes(stage: Any) -> Iterator[Any]:
    for graph in graphs_of(stage):
        yield from nodes_of(graph)


def _kind(stage: Any) -> str:
    return type(stage).__name__.lstrip("_").removesuffix("V2").removesuffix("Dataset")


def _draws(stage: Any) -> bool:
    return any(map(is_draw, _nodes(stage)))


def _has_free_seed(stage: Any) -> bool:
    return any(
        is_draw(node) and not node.attr["seed"].i and not node.attr["seed2"].i
        for node in _nodes(stage)
    )


def _writes_variables(stage: Any) -> bool:
    return any(node.op.startswith(_WRITES) for node in _nodes(stage))


def _is_parallel(stage: Any) -> bool:
    return _kind(stage).startswith(("ParallelMap", "ParallelInterleave"))


def _is_shuffle(stage: Any) -> bool:
    return _kind(stage).startswith("Shuffle")


def _shuffle_is_unseeded(stage: Any) -> bool:
    if not _is_shuffle(stage):
        return any(map(_shuffles_unseeded, graphs_of(stage)))
    seeds = (getattr(stage, "_seed", None), getattr(stage, "_seed2", None))
    return all(seed is not None and int(tf.get_static_value(seed)) == 0 for seed in seeds)


def _shuffles_unseeded(graph: Any) -> bool:
    """Whether a pipeline that is made for each element shuffles from no fixed seed."""
    definition = graph.as_graph_def()
    bodies = [definition.node, *(f.node_def for f in definition.library.function)]
    return any(_has_unseeded_shuffle(nodes) for nodes in bodies)


def _has_unseeded_shuffle(nodes: Any) -> bool:
    constants = {node.name: node.attr["value"].tensor for node in nodes if node.op == "Const"}
    for node in nodes:
        if not node.op.startswith("ShuffleDataset"):
            continue
        seeds = [constants.get(name.partition(":")[0]) for name in node.input[2:4]]
        if all(seed is not None and not tf.make_ndarray(seed).any() for seed in seeds):
            return True
    return False


def _random_before_cache(stage: Any) -> bool:
    if _kind(stage) != "Cache":
        return False
    before = list(stages_of(stage))[1:]
    return any(_is_shuffle(s) or _draws(s) for s in before)


def _is_plain(dataset: Any) -> bool:
    return not any(list(graphs_of(stage)) for stage in stages_of(dataset))
