"""Gradients that wait for their optimizer, in the form a checkpoint stores them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def stored_gradient(gradient: torch.Tensor) -> Any:
    """Returns a gradient as dense tensors; one that is sparse in its two parts.

    Not summed up: an embedding's rows are added in the order of the batches at the end, and
    another order has other bits.
    """
    if gradient.layout is not torch.sparse_coo:
        return gradient
    return {
        "indices": gradient._indices(),
        "values": gradient._values(),
        "is_coalesced": gradient.is_coalesced(),
    }


def gradient_of(parameter: torch.Tensor, stored: Any) -> torch.Tensor | None:
    """Returns the gradient that ``stored_gradient`` gave for a parameter; None for None."""
    if stored is None:
        return None
    if isinstance(stored, Mapping):
        return torch.sparse_coo_tensor(
            stored["indices"].to(parameter.device).clone(),
            stored["values"].to(parameter.device).clone(),
            parameter.shape,
            is_coalesced=stored["is_coalesced"],
            check_invariants=True,
        )
    # In the parameter's own strides, which a checkpoint does not know.
    return torch.empty_like(parameter).copy_(stored)
