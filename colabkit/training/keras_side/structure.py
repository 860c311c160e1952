"""What users call data for a Keras model, taken apart: x, y, weights of samples and classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """A batch, or all the data: inputs, targets, and weights of samples."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @classmethod
    def of(cls, data: Any) -> Parts:
        """Takes x, (x, y) or (x, y, sample_weight) apart."""
        if isinstance(data, tuple):
            if not 1 <= len(data) <= 3:
                message = f"data is a tuple of {len(data)}."
                hint = "Pass x, (x, y) or (x, y, sample_weight); several inputs as a list or dict."
                raise ArgumentError(message, argument="data", hint=hint)
            return cls(*data)
        return cls(data)

    def packed(self) -> Any:
        """Returns them as Keras hands them to ``train_step``."""
        return keras.utils.pack_x_y_sample_weight(self.x, self.y, self.sample_weight)

    def as_tuple(self) -> Any:
        """Returns them as the user could have passed them."""
        return (self.x, self.y, self.sample_weight)

    def cut(self, piece: slice) -> Parts:
        """Returns some of the samples."""
        return Parts(*(_cut(part, piece) for part in self.as_tuple()))

    def first(self, samples: int) -> Parts:
        """Returns the first samples."""
        return self.cut(slice(None, samples))


def is_array(value: object) -> bool:
    """Whether a value is an array or tensor, or a table of numbers."""
    return hasattr(value, "__array__") and hasattr(value, "shape") and len(value.shape) > 0


def is_arrays(data: object) -> bool:
    """Whether data is arrays, or dicts, lists and tuples of them."""
    if isinstance(data, Mapping):
        return bool(data) and all(is_arrays(value) for value in data.values())
    if isinstance(data, list | tuple):
        # A list of arrays of unlike length is a list of batches.
        return bool(data) and all(value is None or is_arrays(value) for value in data)
    return is_array(data)


def split_off(parts: Parts, share: float) -> tuple[Parts, Parts]:
    """Splits the last share of the samples off, as Keras' ``validation_split`` does."""
    if not 0 < share < 1:
        message = f"validation_split is {share!r}."
        raise ArgumentError(
            message, argument="validation_split", hint="Pass a share between 0 and 1."
        )
    samples = len(keras.tree.flatten(parts.x)[0])
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
