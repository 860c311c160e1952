"""What a loop of one's own keeps of Keras and TensorFlow besides models, taken apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from colabkit.errors import ArgumentError
from colabkit.frameworks.detect import KERAS
from colabkit.frameworks.keras.variables import backend_name
from colabkit.frameworks.users_own import attributes_of, carries_attributes

_DEPTH_MAX = 6
_ITERATOR = (
    "where {} stands is in no checkpoint, and a resume begins it anew: loop over its data with"
    " run.batches(data)"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """The parts of a run's objects, each by the way one would reach it.

    Attributes:
        layers: Models, and layers that are trained without one.
        optimizers: Optimizers.
        variables: Variables, those of metrics and of random generators among them.
        others: Objects with ``state_dict`` and ``load_state_dict``.
        left_out: What of them no checkpoint has, in words.
    """

    layers: dict[str, Any]
    optimizers: dict[str, Any]
    variables: dict[str, Any]
    others: dict[str, Any]
    left_out: list[str]


def taken_apart(objects: Mapping[str, Any]) -> Held:
    """Returns the parts of what the user gave a run, those within lists and modules too.

    Raises:
        ArgumentError: One of the objects has no state that can be saved.
    """
    held = Held({}, {}, {}, {}, [])
    seen: set[int] = set()
    # What has a name of its own keeps it, wherever else it is part of something.
    for name, value in sorted(objects.items(), key=lambda item: not _is_part(item[1])):
        if value is None:
            continue
        if not _is_of_framework(value):
            _check_can_be_saved(name, value)
            held.others[name] = value
            continue
        for path, part in _parts(name, value, seen, 0):
            _sort_in(held, path, part)
    order = list(objects)
    for kind in (held.layers, held.optimizers, held.variables):
        ordered = sorted(kind.items(), key=lambda item: order.index(_root(item[0], order)))
        kind.clear()
        kind.update(ordered)
    return held


def _sort_in(held: Held, path: str, part: Any) -> None:
    if _is_iterator(part):
        held.left_out.append(_ITERATOR.format(path))
    elif isinstance(part, keras.layers.Layer):
        held.layers[path] = part
    elif isinstance(part, keras.optimizers.Optimizer):
        held.optimizers[path] = part
    else:
        held.variables.update(_variables_of(path, part))


def _variables_of(path: str, part: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(part, keras.metrics.Metric):
        yield from ((f"{path}.{place}", variable) for place, variable in enumerate(part.variables))
    elif isinstance(part, variable_kinds()):
        yield path, part
    else:
        yield path, part.state  # a generator's


def _parts(path: str, value: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if id(value) in seen or depth > _DEPTH_MAX:
        return
    seen.add(id(value))
    if _is_part(value) or _is_iterator(value):
        yield path, value
        return
    if isinstance(value, Mapping):
        children = [(f"{path}.{key}", each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        children = [(f"{path}.{place}", each) for place, each in enumerate(value)]
    elif KERAS.claims(value) and carries_attributes(value):
        own = attributes_of(value)
        kept = {n: v for n, v in own.items() if not n.startswith(("_self_", "_keras_"))}
        children = [(f"{path}.{name}", each) for name, each in kept.items()]
    else:
        return
    for inner, each in children:
        yield from _parts(inner, each, seen, depth + 1)


def _is_part(value: Any) -> bool:
    """Whether it is of a kind whose state is known, and no container of such."""
    kinds = (
        keras.layers.Layer,
        keras.optimizers.Optimizer,
        keras.metrics.Metric,
        keras.random.SeedGenerator,
        *variable_kinds(),
        *_tensorflow_generators(),
    )
    return isinstance(value, kinds)


def _is_of_framework(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_of_framework, value.values()))
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_of_framework, value))
    return KERAS.claims(value) and not _is_data(value)


def _is_iterator(value: Any) -> bool:
    if backend_name() != "tensorflow":
        return False
    import tensorflow as tf  # imported where it is the backend

    return isinstance(value, tf.data.Iterator)


def _is_data(value: Any) -> bool:
    if backend_name() != "tensorflow":
        return False
    import tensorflow as tf  # imported where it is the backend

    return isinstance(value, tf.data.Dataset | tf.data.Iterator | tf.Tensor)


def variable_kinds() -> tuple[type, ...]:
    """Returns the classes of variables that the backend has."""
    if backend_name() != "tensorflow":
        return (keras.Variable,)
    import tensorflow as tf  # imported where it is the backend

    return (keras.Variable, tf.Variable)


def _tensorflow_generators() -> tuple[type, ...]:
    if backend_name() != "tensorflow":
        return ()
    import tensorflow as tf  # imported where it is the backend

    return (tf.random.Generator,)


def _root(path: str, names: list[str]) -> str:
    return path if path in names else path.partition(".")[0]


def _check_can_be_saved(name: str, value: Any) -> None:
    if not (hasattr(value, "state_dict") and hasattr(value, "load_state_dict")):
        message = f"{name} is a {type(value).__name__}, which has no state_dict."
        hint = (
            "Give it state_dict and load_state_dict, or leave it out; a loop's variables are kept"
            f" by run.state({name}=...)."
        )
        raise ArgumentError(message, argument=name, hint=hint)
