"""Batches of which a replica gets no sample, where that spoils what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from colabkit.errors import ArgumentError
from colabkit.frameworks.keras.names import layers_of
from colabkit.frameworks.keras.replicas import replicas_of
from colabkit.frameworks.keras.step_inspect import graph_of_step
from colabkit.frameworks.keras.variables import components

_WRITES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


def check_parts(
    model: Any, batch: Any, roots: Mapping[str, Any], graph: Any, *, sizes: Sequence[int]
) -> None:
    """Refuses batches that leave a replica without a sample to take statistics of.

    Args:
        model: The compiled model, built.
        batch: The specs of a batch.
        roots: What takes part in a step.
        graph: That of a step, or None.
        sizes: The samples in batches, as far as they are known.

    Raises:
        ArgumentError: The statistics of no samples are NaN, and so are all weights after them.
    """
    replicas = replicas_of([model])
    size = next((size for size in sizes if leaves_one_out(size, replicas)), None)
    norms = [each for each in layers_of(model) if _has_statistics_of_parts(each)]
    if size is None or not norms:
        return
    written = set(_written(graph or graph_of_step(model, batch, roots)))
    learning = [each.name for each in norms if not written.isdisjoint(_handles(each.moving_mean))]
    if not learning:
        return
    message = (
        f"A batch of data has {size} sample{'s' if size > 1 else ''}, up to {-(-size // replicas)}"
        f" for each of {replicas} replicas: the last gets none, of which layer {learning[0]} learns"
        " NaN."
    )
    hint = (
        "Pass another batch_size, drop the last batch (drop_remainder=True in a tf.data pipeline),"
        " or make the layer with BatchNormalization(synchronized=True)."
    )
    raise ArgumentError(message, argument="data", hint=hint)


def leaves_one_out(samples: int, replicas: int) -> bool:
    """Whether the first replicas take all samples of a batch, as TensorFlow shares it out."""
    return -(-samples // replicas) * (replicas - 1) >= samples


def _has_statistics_of_parts(layer: Any) -> bool:
    is_norm = isinstance(layer, keras.layers.BatchNormalization)
    return is_norm and not getattr(layer, "synchronized", False)


def _handles(variable: Any) -> set[int]:
    return {id(each.handle) for each in components(variable)}


def _written(graph: Any) -> Iterator[int]:
    """Yields the handles of the variables that a graph writes."""
    outer = {id(inner): id(handle) for handle, inner in graph.captures}
    for operation in graph.get_operations():
        if operation.type in _WRITES:
            yield outer.get(id(operation.inputs[0]), 0)
