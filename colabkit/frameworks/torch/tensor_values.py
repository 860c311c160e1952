"""Plain values with tensors among them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from colabkit.frameworks.generators import generator_state, generator_with, is_own_generator
from colabkit.frameworks.plain_values import PlainValues, stands_for
from colabkit.frameworks.torch.backend import address_of, can_be_stored, has_shared_elements
from colabkit.frameworks.torch.pieces import cut_like
from colabkit.frameworks.torch.randomness import restore_own_generator

# An activation lives until the next forward makes it anew; more of it than this is not saved.
_ACTIVATION_BYTES_MAX = 16 << 20
# Stands in checkpoints, with its number, for a weight of the run that is a key.
_WEIGHT = "colabkit: weight"


def _with_keys(mapping: dict[Any, Any], key_for: Callable[[Any], Any]) -> dict[Any, Any]:
    made = copy.copy(mapping)
    made.clear()
    made.update({key_for(key): value for key, value in mapping.items()})
    return made


class TensorValues(PlainValues):
    """What a checkpoint can hold of the attributes that PyTorch's objects have."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: Mapping[int, torch.Tensor] = {}
        """By identity, the weights of the run, which it saves by another way."""

    def mark(self, value: Any, depth: int = 0) -> Any:
        """Returns what differs once a value has changed, None for a value that is not plain."""
        if not isinstance(value, torch.Tensor):
            return super().mark(self._by_number(value), depth)
        if id(value) in self.of_run:
            return type(value), id(value)
        if id(value) in self.weights or not can_be_stored(value):
            return None
        if value.grad_fn is not None and value.numel() * value.itemsize > _ACTIVATION_BYTES_MAX:
            return None
        # What inference mode makes counts no changes, and is taken to be another each time.
        version = object() if value.is_inference() else value._version
        return id(value), version, address_of(value)

    def generator_state(self, value: Any) -> Any:
        """Returns where a random generator is; None for what is none, or no user's own."""
        if isinstance(value, torch.Generator):
            return None if value is torch.default_generator else value.get_state().numpy()
        return generator_state(value) if is_own_generator(value) else None

    def restored_generator(self, generator: Any, state: Any) -> Any:
        """Returns one that is there: the one that stands in its place, where it can be."""
        if not isinstance(state, np.ndarray):
            return generator_with(state, generator)
        found = generator if isinstance(generator, torch.Generator) else torch.Generator()
        restore_own_generator(found, torch.from_numpy(state))
        return found

    def place_of(self, owner: Any) -> Any:
        """Returns the device of a module's first weights."""
        parameters = owner.parameters() if isinstance(owner, nn.Module) else ()
        return next((each.device for each in parameters), None)

    def may_be_replaced(self, owner: Any, name: str, there: Any) -> bool:
        """Whether what stands under a name now is neither a module nor a module's own tensor."""
        if isinstance(there, nn.Module):
            return False
        return not isinstance(owner, nn.Module) or name in vars(owner) or not hasattr(owner, name)

    def is_saved_elsewhere(self, value: Any) -> bool:
        """Whether it is a weight of the run, or a random generator."""
        return id(value) in self.weights or isinstance(value, torch.Generator)

    def is_open(self, value: Any) -> bool:
        """Whether it is such, or a sampler, whose weights or indices a callback may choose anew."""
        return isinstance(value, torch.utils.data.Sampler) or super().is_open(value)

    def is_whole(self, value: Any) -> bool:
        """Whether it is a tensor, of a class of the user's own perhaps."""
        return isinstance(value, torch.Tensor)

    def detached(self, value: Any) -> Any:
        """Returns what goes into the checkpoint for a value."""
        if isinstance(value, torch.Tensor) and id(value) not in self.of_run:
            return value.detach()
        return super().detached(self._by_number(value))

    def _by_number(self, value: Any) -> Any:
        """Returns a mapping that has weights of the run for keys with their numbers instead."""
        if not isinstance(value, dict) or not any(id(key) in self.weights for key in value):
            return value
        numbers = {own: number for number, own in enumerate(self.weights)}
        return _with_keys(
            value, lambda key: (_WEIGHT, numbers[id(key)]) if id(key) in numbers else key
        )

    def put(self, there: Any, value: Any, near: Any = None) -> Any:
        """Returns a restored value, in the object that is there where others may hold it too."""
        if isinstance(value, dict) and any(stands_for(_WEIGHT, key) for key in value):
            weights = list(self.weights.values())
            value = _with_keys(
                value, lambda key: weights[key[1]] if stands_for(_WEIGHT, key) else key
            )
        if not isinstance(value, torch.Tensor):
            return super().put(there, value, near)
        if isinstance(there, torch.Tensor):
            value = cut_like(there, value)
            fits = (there.shape, there.dtype) == (value.shape, value.dtype)
            is_own = there.is_leaf and not there.is_inference()
            is_dense = there.layout is value.layout is torch.strided
            if fits and is_own and is_dense and not has_shared_elements(there):
                there.detach().copy_(value)
                return there
            near = there.device
        return value.clone() if near is None else value.to(near, copy=True)
