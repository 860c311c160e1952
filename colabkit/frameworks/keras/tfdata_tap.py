"""Takes down batches of a tf.data pipeline on their way out of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from colabkit.frameworks.batch_records import BatchRecord
from colabkit.frameworks.batch_watches import SAMPLED_EVERY, SampledWatch
from colabkit.frameworks.keras import tfdata_inspect
from colabkit.frameworks.keras.compare import record_of

_OPAQUE = (tf.variant, tf.resource)


def record(batch: Any) -> BatchRecord:
    """Returns what tells later whether another batch is the same."""
    leaves = tf.nest.flatten(batch, expand_composites=True)
    return record_of(zip(_names(batch, len(leaves)), leaves, strict=True))


def tapped(dataset: Any, watch: SampledWatch, *, first: int) -> Any:
    """Returns the same batches, some of them seen by a watch before they are handed out.

    Args:
        dataset: The pipeline.
        watch: Takes down one batch in so many.
        first: Number of its first batch.
    """
    spec = dataset.element_spec
    leaves = tf.nest.flatten(spec, expand_composites=True)
    plain = [isinstance(leaf, tf.TensorSpec) for leaf in tf.nest.flatten(spec)]
    if not any(plain) or any(getattr(leaf, "dtype", None) in _OPAQUE for leaf in leaves):
        return dataset
    names = _names(spec, len(leaves))

    def note(number: Any, *values: Any) -> Any:
        watch.take(int(number), record_of(zip(names, values, strict=True)))
        return np.bool_(True)

    def each(number: Any, batch: Any) -> Any:
        flat = tf.nest.flatten(batch, expand_composites=True)
        seen = tf.cond(
            tf.equal(number % SAMPLED_EVERY, 0),
            lambda: tf.numpy_function(note, [number, *flat], tf.bool),
            lambda: tf.constant(value=False),
        )
        # One that waits is enough; the others keep what is known of their shapes.
        parts = tf.nest.flatten(batch)
        with tf.control_dependencies([seen]):
            parts[plain.index(True)] = tf.identity(parts[plain.index(True)])
        return tf.nest.pack_sequence_as(batch, parts)

    return dataset.enumerate(first).map(each)


def may_be_read(dataset: Any) -> bool:
    """Whether to begin a pass and read of it changes nothing of those that are begun after it."""
    stages = list(tfdata_inspect.stages_of(dataset))
    within = any(
        node.op.startswith("Shuffle") for stage in stages for node in tfdata_inspect._nodes(stage)
    )
    draws = any(map(tfdata_inspect._draws, stages))
    return len(shuffles_of(dataset)) <= 1 and not (within or draws or any(map(_keeps_pass, stages)))


def shuffles_of(dataset: Any) -> list[Any]:
    """Returns the stages that draw an order for each iterator."""
    return [
        stage for stage in tfdata_inspect.stages_of(dataset) if tfdata_inspect._is_shuffle(stage)
    ]


def is_in_order(dataset: Any) -> bool:
    """Whether nothing of it is drawn."""
    return may_be_read(dataset) and not shuffles_of(dataset)


def _keeps_pass(stage: Any) -> bool:
    """Whether it keeps a pass on disk, or draws that were made in one."""
    if not type(stage).__name__.lstrip("_").startswith("Cache"):
        return False
    path = tf.get_static_value(getattr(stage, "_filename", None))
    return path != b"" or tfdata_inspect._random_before_cache(stage)


def _names(structure: Any, count: int) -> list[str]:
    names = list(_named(structure, "batch"))
    return names if len(names) == count else [f"batch[{place}]" for place in range(count)]


def _named(structure: Any, name: str) -> Iterator[str]:
    """Yields how one would reach each leaf, in the order that TensorFlow flattens them."""
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from _named(structure[key], f"{name}[{key!r}]")
    elif isinstance(structure, tuple | list):
        for place, each in enumerate(structure):
            yield from _named(each, f"{name}[{place}]")
    else:
        parts = len(tf.nest.flatten(structure, expand_composites=True))
        yield from ([name] if parts == 1 else [f"{name}.{part}" for part in range(parts)])
