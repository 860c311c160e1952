"""Tensors put where PyTorch would have put them."""

from __future__ import annotations

import collections
from typing import Any

import torch

_ALIGNMENT_BYTES = 64


def realigned(value: Any) -> Any:
    """Returns a state whose tensors lie where PyTorch would have put them.

    A checkpoint's tensors follow each other without a gap, and BLAS adds in another order
    where memory begins at another place. What is only multiplied element by element, as
    moments are, may stay there, and costs no copy.
    """
    if isinstance(value, torch.Tensor):
        is_one = value.layout is torch.strided
        return value if is_one and not value.data_ptr() % _ALIGNMENT_BYTES else value.clone()
    if isinstance(value, dict):
        for key, each in value.items():
            value[key] = realigned(each)
    elif isinstance(value, list | collections.deque):
        for place, each in enumerate(value):
            value[place] = realigned(each)
    elif isinstance(value, tuple):
        return tuple.__new__(type(value), (realigned(each) for each in value))
    return value
