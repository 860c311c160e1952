"""What the operations of a TensorFlow graph do, those of all functions it calls among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_DRAWS = (
    "Multinomial",
    "ParameterizedTruncatedNormal",
    "Random",
    "SampleDistortedBoundingBox",
    "TruncatedNormal",
)


def nodes_of(graph: Any) -> Iterator[Any]:
    """Yields every node, at whatever depth."""
    definition = graph.as_graph_def()
    yield from definition.node
    for function in definition.library.function:
        yield from function.node_def


def draws_unseen(graph: Any) -> bool:
    """Whether operations are among them that keep the state of their draws to themselves."""
    return any(is_draw(node) for node in nodes_of(graph))


def is_draw(node: Any) -> bool:
    """Whether a node draws random numbers, of a state that is its own."""
    # RandomShuffle draws; the queue and the dataset of that name do not.
    return node.op.startswith(_DRAWS) and not node.op.startswith(("RandomShuffleQueue",))
