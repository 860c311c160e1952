"""Putting kept tensors and states back into modules, optimizers and what else a run holds."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colabkit.errors import StateError
from colabkit.frameworks.torch.alignment import realigned
from colabkit.frameworks.torch.backend import axes_of
from colabkit.frameworks.torch.pieces import cut_like, has_pieces, is_piece
from colabkit.frameworks.torch.randomness import own_generator_state, restore_own_generator
from colabkit.frameworks.torch.replaced import regroup, share_among, tie_as
from colabkit.frameworks.torch.structure import (
    load_left_out,
    load_module,
    owner_of,
    parameters_of,
    register_made,
)

_MATRIX_NDIM = 2


def restore_tensors(
    name: str, module: nn.Module, weights: Mapping[str, Any], kept: Mapping[str, Any]
) -> None:
    """Puts back all parameters and buffers of a module.

    Args:
        name: What the run calls the module.
        module: The module.
        weights: The tensors of its ``state_dict``.
        kept: What else a checkpoint holds of it.

    Raises:
        StateError: The module cannot be given this state; names what stands against it.
    """
    if "tied" in kept and not has_pieces(module):
        tie_as(module, kept["tied"])
    register_made(module, weights, kept.get("made", {}))
    if has_pieces(module):
        weights = cut_like(module.state_dict(), weights)
    load_module(name, module, {**weights, **kept["extra"]}, noted=kept.get("noted", ()))
    if "left_out" in kept:
        load_left_out(name, module, kept["left_out"])
    for key, value in kept["buffers"].items():
        _restore_buffer(module, key, value)


def _restore_buffer(module: nn.Module, key: str, value: torch.Tensor) -> None:
    """Puts a buffer back, which a module may have made or made larger in its first steps."""
    owner, name = owner_of(module, key)
    vars(owner).pop(name, None)  # a plain attribute, in whose place training put it
    there = getattr(owner, name, None)
    if isinstance(there, torch.Tensor) and there.shape == value.shape:
        with torch.no_grad():
            there.copy_(value)
        return
    near = next((t for t in (there, *module.parameters()) if t is not None), value)
    owner.register_buffer(name, realigned(value.to(near.device)), persistent=False)


def state_of(value: Any) -> object:
    """Returns what a checkpoint holds of an object that is neither module nor optimizer."""
    return value.state_dict() if hasattr(value, "state_dict") else own_generator_state(value)


def load_other(value: Any, state: Any) -> None:
    """Puts it back."""
    if not hasattr(value, "load_state_dict"):
        restore_own_generator(value, state)
    elif state or not isinstance(state, dict):
        value.load_state_dict(realigned(state))
    if isinstance(value, torch.amp.GradScaler):
        # Only scaling makes the scale it has loaded exist, and an epoch's rest may step without.
        value.scale(torch.zeros((), device=value._device))


def _moved(value: Any, device: torch.device) -> Any:
    """Returns a state with its tensors on a device, each in the form in which it was kept."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        for key, each in value.items():
            value[key] = _moved(each, device)
    elif isinstance(value, list | collections.deque):
        for place, each in enumerate(value):
            value[place] = _moved(each, device)
    elif isinstance(value, tuple):
        return tuple.__new__(type(value), (_moved(each, device) for each in value))
    return value


def restore_optimizers(
    optimizers: Mapping[str, torch.optim.Optimizer],
    modules: Mapping[str, nn.Module],
    kept: Mapping[str, Any],
) -> None:
    """Puts back what a run's optimizers hold.

    Args:
        optimizers: All by name, those within others after these.
        modules: The modules whose weights they train.
        kept: The section of the run's objects.
    """
    groups = kept.get("groups", {})
    # Earlier checkpoints tell of no tensor how it lay in memory.
    lies_as_it_did = kept.get("lies_as_it_did", False)
    # An optimizer around another shares its groups and state, which loading would part.
    lists = {name: optimizer.param_groups for name, optimizer in optimizers.items()}
    held = {name: optimizer.state for name, optimizer in optimizers.items()}
    for name, optimizer in optimizers.items():
        if name in groups:
            regroup(optimizer, modules, groups[name], kept.get("orphans", {}).get(name, {}))
        if name not in kept["optimizers"]:
            continue
        _load_or_say(name, optimizer, kept["optimizers"][name], lies_as_it_did=lies_as_it_did)
        for group, loaded in zip(lists[name], optimizer.param_groups, strict=True):
            group.update(loaded)
        loaded_state = dict(optimizer.state)
        held[name].clear()
        held[name].update(loaded_state)
    # One around another may show that one's, as properties that nobody can set.
    for name, optimizer in reversed([*optimizers.items()]):
        if optimizer.param_groups is not lists[name]:
            optimizer.param_groups = lists[name]
        if optimizer.state is not held[name]:
            optimizer.state = held[name]
    _put_resting(optimizers, modules, kept.get("resting", {}))
    share_among(optimizers, kept.get("shared", ()))


def _load_or_say(
    name: str, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, lies_as_it_did: bool
) -> None:
    try:
        load_optimizer(optimizer, state, lies_as_it_did=lies_as_it_did)
    except ValueError as error:
        message = f"{name} cannot be loaded from the checkpoint: {error}"
        hint = (
            "Groups of weights that were added or changed in mid-run must be so before the run is"
            " made; resume=False starts anew beside the old checkpoints."
        )
        raise StateError(message, where=name, hint=hint) from error


def _put_resting(
    optimizers: Mapping[str, torch.optim.Optimizer],
    modules: Mapping[str, nn.Module],
    resting: Mapping[str, Mapping[str, Any]],
) -> None:
    """Gives optimizers what they kept of weights that they did not train at the time."""
    own = {f"{m}:{key}": p for m, each in modules.items() for key, p in each.named_parameters()}
    for name, states in resting.items():
        for key, state in states.items():
            if key in own and name in optimizers:
                optimizers[name].state[own[key]] = realigned(_moved(state, own[key].device))


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], *, lies_as_it_did: bool = False
) -> None:
    """Loads what an optimizer gave, in the forms and strides its own steps would have made.

    Args:
        optimizer: The optimizer.
        state: What its ``state_dict`` gave.
        lies_as_it_did: Whether the checkpoint knew how each tensor lay in memory.
    """
    if "state" not in state:  # one around another, with a state of its own form
        optimizer.load_state_dict(realigned(state))
        return
    state = _cut_as_weights(optimizer, state)
    optimizer.load_state_dict(state)
    # load_state_dict casts to the parameter's dtype, which would lose bits of wider moments; and
    # fused kernels walk through parameter and moments abreast, axes of length one included.
    for index, parameter in enumerate(parameters_of(optimizer)):
        own = optimizer.state[parameter] if index in state["state"] else {}
        for key, kept in state["state"].get(index, {}).items():
            _put_as_kept(own, key, kept, parameter, lies_as_it_did=lies_as_it_did)


def _put_as_kept(
    own: dict[Any, Any], key: Any, kept: Any, parameter: torch.Tensor, *, lies_as_it_did: bool
) -> None:
    loaded = own.get(key)
    if isinstance(kept, dict | list | tuple | collections.deque):
        own[key] = realigned(_moved(kept, parameter.device))
    elif not isinstance(kept, torch.Tensor) or not isinstance(loaded, torch.Tensor):
        return
    elif kept.layout is not torch.strided:
        own[key] = kept.to(loaded.device)
    elif loaded.shape == parameter.shape and loaded.stride() != parameter.stride():
        laid_out = torch.empty_like(parameter, dtype=kept.dtype, device=loaded.device)
        if not lies_as_it_did or axes_of(laid_out) == axes_of(loaded):
            own[key] = laid_out.copy_(kept)
    elif loaded.dtype != kept.dtype:
        own[key] = kept.to(loaded.device)
    elif loaded.shape != parameter.shape or loaded.ndim < _MATRIX_NDIM:
        own[key] = realigned(loaded)


def _cut_as_weights(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Returns an optimizer's state with what belongs to a weight in pieces cut as that is."""
    weights = {i: p for i, p in enumerate(parameters_of(optimizer)) if is_piece(p)}
    if not weights:
        return state
    moments = {
        index: {key: cut_like(weights.get(index), each) for key, each in kept.items()}
        for index, kept in state["state"].items()
    }
    return {**state, "state": moments}


@torch.no_grad()
def copy_where_it_fits(tensors: Mapping[str, torch.Tensor], kept: Mapping[str, Any]) -> None:
    """Writes kept values into the tensors of their names that have their form."""
    for key, value in kept.items():
        there = tensors.get(key)
        if there is not None and (there.shape, there.dtype) == (value.shape, value.dtype):
            there.copy_(value)
