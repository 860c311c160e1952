"""Tensors of which each process holds a piece: DTensors, as ``fully_shard`` makes of parameters.

Checkpoints hold them whole, so that any number of processes goes on with them.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colabkit.errors import StateError

_DICTS = frozenset({dict, collections.OrderedDict})


def is_piece(value: object) -> bool:
    """Whether a process holds but a piece of a tensor; no DTensor is imported to know."""
    return isinstance(value, torch.Tensor) and hasattr(value, "device_mesh")


def has_pieces(module: nn.Module) -> bool:
    """Whether any parameter of a module is in pieces, also while layers hold it together."""
    return bool(sharded_layers(module)) or any(map(is_piece, module.parameters()))


def sharded_layers(module: nn.Module) -> list[Any]:
    """Returns the layers on which ``fully_shard`` was called, the module itself among them."""
    return [each for each in module.modules() if _is_of_fsdp(type(each))]


def _is_of_fsdp(kind: type) -> bool:
    return any(each.__name__ == "FSDPModule" for each in kind.__mro__)


def reshard(module: nn.Module) -> list[Any]:
    """Gives back the whole weights that a forward pass without gradients has left there.

    Returns:
        The layers on which ``fully_shard`` was called, the module itself among them.
    """
    layers = sharded_layers(module)
    for layer in layers:
        layer.reshard()
    return layers


def whole(state: Any, put: Any) -> Any:
    """Returns a state with its pieces put together; all processes take part, in one order.

    Args:
        state: Dicts, lists and tuples, nested.
        put: Called with each tensor that was put together; what it returns takes its place.
    """
    if is_piece(state):
        return put(state.detach().full_tensor())
    if type(state) in _DICTS:
        return type(state)((key, whole(each, put)) for key, each in state.items())
    if type(state) in {list, tuple}:
        return type(state)(whole(each, put) for each in state)
    return state


def local(state: Any) -> Any:
    """Returns a state with its pieces as plain tensors."""
    if is_piece(state):
        return state.detach().to_local()
    if type(state) in _DICTS:
        return type(state)((key, local(each)) for key, each in state.items())
    if type(state) in {list, tuple}:
        return type(state)(map(local, state))
    return state


def cut_like(there: Any, kept: Any) -> Any:
    """Returns what is kept with those tensors cut whose places hold pieces: this process's own.

    Args:
        there: The state as the objects give it now.
        kept: The same with whole tensors.
    """
    if is_piece(there):
        fits = isinstance(kept, torch.Tensor) and kept.shape == there.shape
        return _own_piece(there, kept) if fits else kept
    if isinstance(there, Mapping) and isinstance(kept, Mapping):
        return {key: cut_like(there.get(key), each) for key, each in kept.items()}
    if isinstance(there, list | tuple) and type(there) is type(kept) and len(there) == len(kept):
        return type(kept)(map(cut_like, there, kept))
    return kept


def _own_piece(there: Any, kept: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(
        kept.shape, there.device_mesh, there.placements
    )
    box = tuple(slice(at, at + size) for at, size in zip(offset, shape, strict=True))
    return DTensor.from_local(
        kept[box].to(there.device, copy=True),
        there.device_mesh,
        there.placements,
        run_check=False,
        shape=there.shape,
        stride=there.stride(),
    )


def require_form_of_weights(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Raises StateError for an optimizer whose pieces nobody could cut again."""
    for name, optimizer in optimizers.items():
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if is_piece(value) and value.shape != parameter.shape:
                    message = f"{name} keeps {key} in pieces of another form than the weights."
                    hint = "Take an optimizer whose moments have the form of the weights: AdamW."
                    raise StateError(message, where=f"{name}.{key}", hint=hint)
