"""What a batch is to a model: its inputs, its target, its number of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from colabkit.errors import ArgumentError

_TARGET_NAMES = ("labels", "label", "targets", "target", "y")


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Returns (inputs, target) of a batch; the target is None where there is none.

    A tuple or list is (input, ..., target); a mapping goes to the model by its names.

    Raises:
        ArgumentError: The batch has no form that a model could be called with.
    """
    if isinstance(batch, torch.Tensor | Mapping | PackedSequence):
        return batch, None
    if _is_of_samples(batch):
        message = "A batch is a list of samples, or has one dict for each sample as its target."
        hint = (
            "Detection models take those: write the loop with colabkit.Run, losses ="
            " model(images, targets), loss = sum(losses.values()). For fit, let collate_fn stack"
            " the samples into tensors."
        )
        raise ArgumentError(message, argument="data", hint=hint)
    if isinstance(batch, tuple | list) and batch and not _is_of_plain_numbers(batch[0]):
        if len(batch) == 1:
            return batch[0], None
        return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]
    message = f"A batch is a {type(batch).__name__}; a model cannot be called with it."
    hint = (
        "Let the data give tensors, (input, target) tuples, or dicts of tensors; a loop of your own"
        " over colabkit.Run takes batches of any form."
    )
    if isinstance(batch, tuple | list) and batch:
        message = f"A batch is a {type(batch).__name__} of plain numbers, without any tensor."
        hint = 'If data is lists, pass arrays: (np.array(x, dtype="float32"), np.array(y)).'
    elif hasattr(batch, "to_numpy"):
        hint = 'If data is tables, pass arrays: (x.to_numpy("float32"), y.to_numpy()).'
    raise ArgumentError(message, argument="data", hint=hint)


def _is_of_samples(batch: object) -> bool:
    """Whether a batch is a list of dicts, or lists of inputs and of dicts, as in detection."""
    if not isinstance(batch, tuple | list) or not batch:
        return False
    if all(isinstance(each, Mapping) for each in batch):
        return isinstance(batch, list) or len(batch) > 2
    last = batch[-1]
    are_dicts = isinstance(last, tuple | list) and bool(last) and isinstance(last[0], Mapping)
    return are_dicts and isinstance(batch[0], tuple | list) and len(batch[0]) == len(last)


def _is_of_plain_numbers(value: object) -> bool:
    while isinstance(value, tuple | list) and value:
        value = value[0]
    return isinstance(value, int | float)


def caller_for(model: nn.Module, inputs: Any) -> Callable[[Any], Any]:
    """Returns how a model is called with inputs of this form."""
    if isinstance(inputs, Mapping):
        return lambda named: model(**named)
    if isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence):
        return lambda several: model(*several)
    return model


def target_in(inputs: Any) -> Any:
    """Returns the target inside a mapping, by the field's names, or None."""
    if isinstance(inputs, Mapping):
        for name in _TARGET_NAMES:
            if name in inputs:
                return inputs[name]
    return None


def without_target(inputs: Any) -> Any:
    """Returns a mapping without its target; anything else as it is."""
    if isinstance(inputs, Mapping):
        return {key: value for key, value in inputs.items() if key not in _TARGET_NAMES}
    return inputs


def count_samples(batch: Any) -> int:
    """Returns the length of the first tensor in a batch, 1 where there is none."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    values = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(batch, Mapping | list | tuple):
        for value in values:
            if isinstance(value, torch.Tensor | Mapping | list | tuple):
                return count_samples(value)
    return 1
