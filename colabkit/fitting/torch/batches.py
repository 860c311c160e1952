"""What a batch is to a model: its inputs, its target, its number of samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from colabkit.errors import ArgumentError

_TARGET_NAMES = ("labels", "label", "targets", "target", "y", "label_ids")


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
    message = f"A batch came as {type(batch).__name__}; a model cannot be called with it."
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


def caller_for(model: Callable[..., Any], inputs: Any) -> Callable[[Any], Any]:
    """Returns how a model is called with inputs of this form."""
    if isinstance(inputs, Mapping):
        return lambda named: model(**named)
    if isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence):
        return lambda several: model(*several)
    return model


def names_for(model: nn.Module, inputs: Any) -> Callable[[Any], Any] | None:
    """Returns what gives a mapping the names that a model takes, None where it has them.

    As collators of Transformers do: a target of another name gets the model's own, or is left out
    where the model takes none; text is left out that the model has no name for.
    """
    if not isinstance(inputs, Mapping):
        return None
    forward = getattr(model, "_orig_mod", model).forward
    parameters = inspect.signature(forward).parameters.values()
    taken = {p.name for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}}
    if not taken:
        return None
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    own = next((name for name in _TARGET_NAMES if name in taken), None)
    renamed: dict[str, str | None] = {}
    for name in inputs:
        if name in taken:
            continue
        if _is_text(inputs[name]):
            renamed[name] = None
        elif name in _TARGET_NAMES and own not in inputs and (own or not takes_any):
            renamed[name] = own
    if not renamed:
        return None

    def named_as_taken(batch: Any) -> dict[str, Any]:
        names = ((key, renamed.get(key, key)) for key in batch)
        return {name: batch[key] for key, name in names if name is not None}

    return named_as_taken


def _is_text(value: Any) -> bool:
    several = isinstance(value, tuple | list) and bool(value)
    return isinstance(value, str) or (several and all(isinstance(each, str) for each in value))


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
