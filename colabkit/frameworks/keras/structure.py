"""What users call data for a Keras model, taken apart: x, y, weights of samples and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError
from colabkit.frameworks.keras.sparse import is_ragged, is_sparse

_ROWS_TOLD = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """A batch, or all the data: inputs, targets, and weights of samples."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @classmethod
    def of(cls, data: Any) -> Parts:
        """Takes x, (x, y) or (x, y, sample_weight) apart; lists in them become tuples."""
        if isinstance(data, tuple):
            if not 1 <= len(data) <= 3:
                message = f"data is a tuple of {len(data)}."
                hint = "Pass x, (x, y) or (x, y, sample_weight); several inputs as a list or dict."
                raise ArgumentError(message, argument="data", hint=hint)
            return cls(*map(tupled, data))
        return cls(tupled(data))

    def packed(self) -> Any:
        """Returns them as Keras hands them to ``train_step``."""
        return keras.utils.pack_x_y_sample_weight(self.x, self.y, self.sample_weight)

    def as_tuple(self) -> Any:
        """Returns them as the user could have passed them."""
        return (self.x, self.y, self.sample_weight)

    def cut(self, piece: slice) -> Parts:
        """Returns some of the samples."""
        return Parts(*(_cut(part, piece) for part in self.as_tuple()))


def tupled(value: Any) -> Any:
    """Returns nested values with tuples for lists, which TensorFlow would stack into one."""
    if isinstance(value, Mapping):
        return {key: tupled(item) for key, item in value.items()}
    return tuple(map(tupled, value)) if type(value) in {list, tuple} else value


def is_array(value: object) -> bool:
    """Whether a value is an array or tensor, sparse ones among them, or a table of numbers."""
    shape = getattr(value, "shape", None)
    if shape is None or getattr(shape, "rank", 1) is None or not len(shape):
        return False
    return hasattr(value, "__array__") or is_sparse(value) or is_ragged(value)


def is_arrays(data: object) -> bool:
    """Whether data is arrays: x, or a tuple of x, y and weights, each of any nesting.

    A list of arrays is x of several inputs, as Keras takes it; one of tuples or dicts is a
    list of batches.
    """
    if isinstance(data, list):
        return bool(data) and all(map(is_array, data))
    if isinstance(data, tuple):
        given = [part for part in data if part is not None]
        return bool(given) and all(map(_is_part, given))
    return _is_part(data)


def _is_part(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_part, value.values()))
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_part, value))
    return is_array(value)


def split_off(parts: Parts, share: float) -> tuple[Parts, Parts]:
    """Splits the last share of the samples off, as Keras' ``validation_split`` does."""
    if not 0 < share < 1:
        message = f"validation_split is {share!r}."
        raise ArgumentError(
            message, argument="validation_split", hint="Pass a share between 0 and 1."
        )
    samples = int(keras.tree.flatten(parts.x)[0].shape[0])
    kept = int(samples * (1.0 - share))
    if not 0 < kept < samples:
        message = f"validation_split={share} leaves an empty part of {samples} samples."
        raise ArgumentError(message, argument="validation_split", hint="Pass another share.")

    return parts.cut(slice(None, kept)), parts.cut(slice(kept, None))


def _cut(part: Any, piece: slice) -> Any:
    return None if part is None else keras.tree.map_structure(lambda array: array[piece], part)


class ClassWeights:
    """Turns the weights of classes into weights of samples.

    Args:
        weights: By class number, from 0 on.
    """

    def __init__(self, weights: Mapping[int, float]) -> None:
        if not weights or any(not isinstance(k, int | np.integer) or k < 0 for k in weights):
            message = f"class_weight is {weights!r}."
            hint = "Pass a dict of class number: weight, {0: 1.0, 1: 5.0} for example."
            raise ArgumentError(message, argument="class_weight", hint=hint)
        # A class that is not named counts as it would without weights.
        self.table = np.ones(max(weights) + 1, "float32")
        for number, weight in weights.items():
            self.table[int(number)] = weight

    def apply(self, batch: Any) -> Any:
        """Returns a batch, or all the data, with the weights as its third part."""
        parts = Parts.of(batch)
        if parts.sample_weight is not None:
            message = "Both class_weight and sample weights are given."
            hint = "Multiply the class weights into the sample weights."
            raise ArgumentError(message, argument="class_weight", hint=hint)
        if parts.y is None or isinstance(parts.y, Mapping | list | tuple):
            message = "class_weight needs data with one array of targets."
            hint = "Pass sample weights as the third part of data."
            raise ArgumentError(message, argument="class_weight", hint=hint)
        return Parts(parts.x, parts.y, self._of(parts.y)).packed()

    def _of(self, y: Any) -> Any:
        ops = keras.ops
        classes = ops.squeeze(y, -1) if len(y.shape) > 1 and y.shape[-1] == 1 else y
        if len(classes.shape) > 1:
            classes = ops.argmax(classes, axis=-1)
        classes = ops.cast(classes, "int32")
        last = len(self.table) - 1
        found = ops.take(ops.convert_to_tensor(self.table), ops.minimum(classes, last), axis=0)
        return ops.where(classes > last, ops.ones_like(found), found)
