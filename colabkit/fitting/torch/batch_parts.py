"""Batches in parts: cut along the samples, and what they gave joined again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.batches import count_samples


def parts_of(batch: Any, count: int) -> list[Any]:
    """Returns a batch in ``count`` parts, whose numbers of samples differ by one at most.

    Args:
        batch: A tensor [N, ...], or tuples, lists and mappings of such. Tensors of one
            element, or of one row, go whole to each part.
        count: How many parts, N at most.

    Raises:
        ArgumentError: A tensor in it is of another length than N.

    Example:
        >>> [part.tolist() for part in parts_of(torch.arange(5), 2)]
        [[0, 1, 2], [3, 4]]
    """
    samples = count_samples(batch)
    least, larger = divmod(samples, count)
    ends = [least * number + min(number, larger) for number in range(count + 1)]
    return [_cut(batch, slice(begin, end), samples) for begin, end in itertools.pairwise(ends)]


def _cut(value: Any, place: slice, samples: int) -> Any:
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 or (len(value) == 1 and samples > 1):
            return value
        if len(value) != samples:
            message = (
                f"A batch of {samples} samples holds a tensor of {list(value.shape)}, which"
                " cannot be cut into parts."
            )
            hint = "Leave microbatch out, and take a smaller batch_size with accumulate."
            raise ArgumentError(message, argument="microbatch", hint=hint)
        return value[place]
    if isinstance(value, PackedSequence):
        message = f"A batch of {samples} samples is packed, and cannot be cut into parts."
        hint = "Leave microbatch out, and take a smaller batch_size with accumulate."
        raise ArgumentError(message, argument="microbatch", hint=hint)
    if isinstance(value, Mapping):
        return {key: _cut(each, place, samples) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cut(each, place, samples) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(_cut(each, place, samples) for each in value)
    return value


def joined(parts: list[Any], counts: list[int]) -> Any:
    """Returns the tensors of several parts one after the other, in the form of the first.

    Args:
        parts: What each part gave, all of one form.
        counts: The number of samples of each; tensors of another length are not joined.

    Example:
        >>> joined([torch.tensor([1]), torch.tensor([2, 3])], [1, 2]).tolist()
        [1, 2, 3]
    """
    first = parts[0]
    if isinstance(first, torch.Tensor):
        by_sample = all(
            part.ndim and len(part) == count for part, count in zip(parts, counts, strict=True)
        )
        return torch.cat(parts) if by_sample else first
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts], counts) for key in first}
    if isinstance(first, list | tuple):
        each = [joined(list(values), counts) for values in zip(*parts, strict=True)]
        return type(first)(*each) if hasattr(first, "_fields") else type(first)(each)
    return first


def detached(value: Any) -> Any:
    """Returns a value whose tensors hold no graph."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: detached(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(detached(each) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(detached(each) for each in value)
    return value
