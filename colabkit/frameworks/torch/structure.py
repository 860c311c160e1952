"""Loading modules and optimizers whose form has changed since they were made."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from colabkit.checkpoint import members_of
from colabkit.errors import StateError
from colabkit.frameworks.torch.alignment import realigned
from colabkit.frameworks.torch.backend import address_of, has_shared_elements
from colabkit.frameworks.torch.metrics import grow_rows

_SAMPLE_MAX = 256


def load_module(
    name: str, module: nn.Module, kept: Mapping[str, Any], *, noted: Collection[str] = ()
) -> None:
    """Loads what ``state_dict`` gave, its tensors with the sizes that training gave them.

    Args:
        name: What the run calls the module.
        module: The module as it was made.
        kept: Tensors and other state by key.
        noted: Keys of what is not kept and is known to be there already.

    Raises:
        StateError: The module cannot be given this state; names what stands against it.
    """
    _turn_to_dtypes(module, kept)
    grow_rows(module, kept)
    _prune_as(module, kept)
    constant = _make_room(module, kept)
    try:
        missing = module.load_state_dict(dict(kept), strict=not noted)
        _require_only(noted, missing)
    except (RuntimeError, KeyError) as error:
        # A module may leave parts out of its state, or add to it what it does not load.
        _load_leniently(module, kept)
        if (wrong := _differing(module, kept, noted)) is not None:
            where = f"{name}.{wrong}"
            message = f"{where} cannot be loaded from the checkpoint: {error}"
            hint = (
                "A layer changed in mid-run must be changed again before the run is made;"
                " resume=False starts anew beside the old checkpoints."
            )
            raise StateError(message, where=where, hint=hint) from error
    _put_back(constant)


def load_what_fits(module: nn.Module, kept: Mapping[str, Any]) -> None:
    """Loads tensors whose names and shapes a module has, and leaves all others as they are."""
    own = module.state_dict()
    constant = _make_room(module, {k: v for k, v in kept.items() if _fits(own.get(k), v)})
    module.load_state_dict(dict(kept), strict=False)
    _put_back(constant)


def _put_back(constant: Sequence[tuple[nn.Module, str, torch.Tensor]]) -> None:
    for owner, own_name, expanded in constant:
        owner._buffers[own_name] = expanded


def _load_leniently(module: nn.Module, kept: Mapping[str, Any]) -> None:
    with contextlib.suppress(TypeError, RuntimeError):
        module.load_state_dict(dict(kept), strict=False)
    own = module.state_dict()
    with torch.no_grad():
        for key, value in kept.items():
            there: Any = own.get(key)
            if _fits(there, value) and not is_same(there, value):
                there.copy_(value)


def _require_only(noted: Collection[str], left: Any) -> None:
    """Raises KeyError where loading has left out more than what is there already."""
    # A module with a load_state_dict of its own need not say what it left out.
    missing, unexpected = getattr(left, "missing_keys", ()), getattr(left, "unexpected_keys", ())
    if noted and (wrong := [*unexpected, *(key for key in missing if key not in noted)]):
        raise KeyError(wrong[0])


def _differing(
    module: nn.Module, kept: Mapping[str, Any], noted: Collection[str] = ()
) -> str | None:
    own = module.state_dict()
    for key in dict.fromkeys([*kept, *own]):
        if key in noted:
            continue
        value: Any = kept.get(key)
        there: Any = own.get(key)
        if isinstance(value, torch.Tensor) or isinstance(there, torch.Tensor):
            if not _fits(there, value) or not is_same(there, value):
                return key
        elif (key in kept) != (key in own):
            return key
    return None


def _fits(there: Any, value: Any) -> bool:
    is_both = isinstance(there, torch.Tensor) and isinstance(value, torch.Tensor)
    return is_both and (there.shape, there.dtype) == (value.shape, value.dtype)


def is_same(there: Any, value: Any) -> bool:
    """Whether two tensors have the same bits, those made of others in all parts."""
    if hasattr(there, "__tensor_flatten__"):
        names = there.__tensor_flatten__()[0]
        pairs = ((getattr(there, name), getattr(value, name, None)) for name in names)
        return all(type(a) is type(b) and is_same(a, b) for a, b in pairs)
    if members := members_of(there):
        others = members_of(value)
        is_of_form = (there.layout, there.shape) == (value.layout, value.shape)
        return is_of_form and all(is_same(each, others[name]) for name, each in members.items())
    if there.shape != value.shape or members_of(value):
        return False
    mine, other = (t.detach().cpu().contiguous().view(-1) for t in (there, value))
    return torch.equal(mine.view(torch.uint8), other.view(torch.uint8))


def owner_of(module: nn.Module, key: str) -> tuple[Any, str]:
    """Returns what holds a tensor, and its name there."""
    *path, name = key.split(".")
    owner: Any = module
    for part in path:
        owner = getattr(owner, part, None)
    return owner, name


def _make_room(
    module: nn.Module, kept: Mapping[str, Any]
) -> list[tuple[nn.Module, str, torch.Tensor]]:
    """Gives buffers the size they had; returns expanded ones, to be put back after loading."""
    expanded = []
    for key, buffer in list(module.named_buffers(remove_duplicate=False)):
        value = kept.get(key)
        if not isinstance(value, torch.Tensor):
            continue
        owner, name = owner_of(module, key)
        if not _fits(buffer, value) or _has_other_places(buffer, value):
            owner._buffers[name] = realigned(value.to(buffer.device).clone())
        elif has_shared_elements(buffer):
            # Nothing can be copied to it.
            owner._buffers[name] = buffer.detach().clone(memory_format=torch.contiguous_format)
            one = tuple(slice(0, 1) if step == 0 else slice(None) for step in buffer.stride())
            again = value.to(buffer.device)[one].clone().expand(buffer.shape)
            if is_same(again, value):
                expanded.append((owner, name, again))
    return expanded


def _has_other_places(there: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether one is sparse and has values at other places, or in another layout."""
    if torch.strided in {there.layout, value.layout}:
        return there.layout is not value.layout
    members, others = members_of(there), members_of(value)
    return members.keys() != others.keys() or any(
        not is_same(each, others[name]) for name, each in members.items() if name != "values"
    )


def _turn_to_dtypes(module: nn.Module, kept: Mapping[str, Any]) -> None:
    """Gives weights the precision that they were given in mid-run."""
    for key, weight in module.named_parameters():
        there, value = weight.dtype, kept.get(key)
        if type(weight) is nn.Parameter and isinstance(value, torch.Tensor):
            is_other = value.dtype != there and value.is_floating_point()
            if is_other and there.is_floating_point:
                weight.data = weight.data.to(value.dtype)


def _prune_as(module: nn.Module, kept: Mapping[str, Any]) -> None:
    """Prunes the weights that were pruned in mid-run."""
    own = dict(module.named_parameters(remove_duplicate=False))
    for key, mask in kept.items():
        if not key.endswith("_mask"):
            continue
        weight = key.removesuffix("_mask")
        if weight in own and weight not in kept and f"{weight}_orig" in kept:
            owner, name = owner_of(module, weight)
            make: Any = prune.custom_from_mask
            make(owner, name, mask.to(own[weight].device))


def made_in_training(
    module: nn.Module, state: Mapping[str, Any], at_start: Collection[str]
) -> dict[str, str]:
    """Returns which tensors a module has registered since it was made: parameters and buffers."""
    new = [key for key in state if key not in at_start]
    if not new:
        return {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {key: "parameter" if key in parameters else "buffer" for key in new}


def register_made(module: nn.Module, kept: Mapping[str, Any], made: Mapping[str, str]) -> None:
    """Registers them again, where what they belong to is there."""
    near = next((each.device for each in module.parameters()), torch.device("cpu"))
    own = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for key, kind in made.items():
        owner, name = owner_of(module, key)
        is_pruned = key.removesuffix("_orig").removesuffix("_mask") in own
        if not isinstance(owner, nn.Module) or _holds(owner, name) or is_pruned:
            continue
        vars(owner).pop(name, None)  # a plain attribute, in whose place training put it
        value = kept[key].to(near, copy=True)
        if kind == "parameter":
            owner.register_parameter(
                name, nn.Parameter(value, requires_grad=value.is_floating_point())
            )
        else:
            owner.register_buffer(name, value)


def _holds(owner: nn.Module, name: str) -> bool:
    """Whether a module has a weight, buffer or part of that name."""
    held = (owner._parameters, owner._buffers, owner._modules)
    return any(each.get(name) is not None for each in held)


def gone_since(state: Mapping[str, Any], at_start: Collection[str]) -> list[str]:
    """Returns the tensors that a module has no more; pruned ones have only other names."""
    return [key for key in at_start if key not in state and f"{key}_orig" not in state]


def left_out(
    own: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> dict[str, dict[str, torch.Tensor]]:
    """Returns those of a module's own parameters that its ``state_dict`` leaves out.

    Those that are trained are returned whole, and of the frozen ones a sample to know them by.
    """
    trained: dict[str, torch.Tensor] = {}
    frozen: dict[str, torch.Tensor] = {}
    if own.keys() <= state.keys():
        return {"trained": trained, "frozen": frozen}
    held = {address_of(t) for t in state.values() if isinstance(t, torch.Tensor)} - {0}
    for key, parameter in own.items():
        if key in state or address_of(parameter) in held:
            continue
        if parameter.requires_grad:
            trained[key] = parameter.detach()
        else:
            frozen[key] = _sample(parameter)
    return {"trained": trained, "frozen": frozen}


def load_left_out(name: str, module: nn.Module, kept: Mapping[str, Any]) -> None:
    """Loads the trained ones, and checks that the frozen ones are those of the checkpoint."""
    own = dict(module.named_parameters())
    with torch.no_grad():
        for key, value in kept["trained"].items():
            if _fits(own.get(key), value):
                own[key].copy_(value)
    for key, sample in kept["frozen"].items():
        if key in own and not own[key].requires_grad and not is_same(_sample(own[key]), sample):
            message = (
                f"{name}.{key} is left out of the state_dict, and is not what the run trained with."
            )
            hint = "Load the same frozen weights before the run, or leave them in the state_dict."
            raise StateError(message, where=f"{name}.{key}", hint=hint)


def _sample(parameter: torch.Tensor) -> torch.Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, -(-flat.numel() // _SAMPLE_MAX))].clone()


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Returns what an optimizer trains, group after group."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def names_in_groups(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> list[list[str]]:
    """Returns the parameters of each group by the name the run gives them, "" for others."""
    return [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]


def trained_module(module: nn.Module) -> nn.Module:
    """Returns the module that compilers and wrappers for several devices are around."""
    inner = getattr(module, "_orig_mod", module)
    if isinstance(inner, nn.DataParallel | nn.parallel.DistributedDataParallel):
        inner = inner.module
    return inner if inner is module else trained_module(inner)


def shapes_of(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Returns the shapes of those that have one: those of lazy layers have none yet."""
    lazy = nn.UninitializedParameter
    return {key: each.shape for key, each in parameters.items() if not isinstance(each, lazy)}
