"""Tensors and arrays of complex128, which safetensors lacks, as pairs of float64 in their place."""

from __future__ import annotations

from typing import Any

import numpy as np

from colabkit.checkpoint.named_classes import at_place


def pairs_of(value: Any) -> Any | None:
    """Returns its real and imaginary parts along a last axis; of NumPy's and PyTorch's in place.

    None of what is no tensor and no array, or has another type.
    """
    if isinstance(value, np.ndarray):
        return value[..., np.newaxis].view(np.float64) if value.dtype == np.complex128 else None
    kind = str(getattr(value, "dtype", ""))
    if kind == "complex128" and is_of_jax(value):
        return at_place(["jax.numpy", "stack"])([value.real, value.imag], axis=-1)
    if kind != "torch.complex128":
        return None
    return at_place(["torch", "view_as_real"])(value.detach().resolve_conj())


def is_of_jax(value: Any) -> bool:
    """Whether it is an array of JAX."""
    kind = at_place(["jax", "Array"])
    return kind is not None and isinstance(value, kind)


def made_of(pairs: Any) -> Any:
    """Returns the tensor or array that ``pairs_of`` was asked of."""
    if isinstance(pairs, np.ndarray):
        return pairs.view(np.complex128)[..., 0]
    # PyTorch takes for granted that they lie at multiples of 16 bytes; what is read lies anywhere.
    return at_place(["torch", "view_as_complex"])(pairs.clone())
