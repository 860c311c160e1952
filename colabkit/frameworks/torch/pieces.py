"""Tensors of which each process holds a piece: DTensors, as ``fully_shard`` makes of parameters.

Checkpoints hold them whole or by their places, so that any number of processes goes on with them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from colabkit.checkpoint import Box, Cut, Cutter, Piece, TensorSpec
from colabkit.errors import StateError

_DICTS = frozenset({dict, collections.OrderedDict})
_ways: dict[tuple[Any, ...], _Way] = {}


def is_piece(value: object) -> bool:
    """Whether a process holds but a piece of a tensor; no DTensor is imported to know."""
    return isinstance(value, torch.Tensor) and hasattr(value, "device_mesh")


def has_pieces(module: nn.Module) -> bool:
    """Whether any parameter of a module is in pieces, also while layers hold it together."""
    return bool(sharded_layers(module)) or any(map(is_piece, module.parameters()))


def sharded_layers(module: nn.Module) -> list[Any]:
    """Returns the layers on which ``fully_shard`` was called, the module itself among them."""
    return [each for each in module.modules() if _is_of_fsdp(type(each))]


def class_of(module: nn.Module) -> type:
    """Returns a module's class as the user knows it, which ``fully_shard`` derives another from."""
    kind = type(module)
    names = [each.__name__ for each in kind.__mro__]
    return kind.__mro__[names.index("FSDPModule") + 1] if _is_of_fsdp(kind) else kind


def _is_of_fsdp(kind: type) -> bool:
    return any(each.__name__ == "FSDPModule" for each in kind.__mro__)


def holds_unsummed(module: nn.Module) -> bool:
    """Whether layers in pieces keep gradients that a later backward pass is to sum."""
    states = (layer._get_fsdp_state() for layer in sharded_layers(module))
    return any(_waits(group) for state in states for group in _groups_of(state))


def _groups_of(state: Any) -> list[Any]:
    # Older versions have one at most.
    found = getattr(state, "_fsdp_param_groups", None)
    return [e for e in (found or [state._fsdp_param_group]) if e is not None]


def _waits(group: Any) -> bool:
    wholes = (getattr(each, "_unsharded_param", None) for each in group.fsdp_params)
    return (
        getattr(group, "_partial_reduce_output", None) is not None
        or any(whole is not None and whole.grad is not None for whole in wholes)
        or any(each.unsharded_accumulated_grad is not None for each in group.fsdp_params)
    )


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
    return _changed(state, lambda each: put(each.detach().full_tensor()))


def left(state: Any, put: Any) -> Any:
    """Returns a state with its pieces as checkpoints hold them: those of this process, and where.

    Args:
        state: Dicts, lists and tuples, nested.
        put: Called with each tensor that had to be put together, as all processes do then.
    """

    def piece(tensor: Any) -> Any:
        found = _in_place(tensor)
        return put(tensor.detach().full_tensor()) if found is None else found

    return _changed(state, piece)


def holds_pieces(state: Any) -> bool:
    """Whether anything in a state is a piece."""
    found: list[Any] = []
    _changed(state, found.append)
    return bool(found)


def without(state: Any) -> Any:
    """Returns a state with None in the place of pieces, of which each process has others."""
    return _changed(state, lambda _: None)


def local(state: Any) -> Any:
    """Returns a state with its pieces as plain tensors."""
    return _changed(state, _local_of)


def _local_of(tensor: Any) -> torch.Tensor:
    # Where gradients are recorded, it would make another one by way of their graph.
    with torch.no_grad():
        found: torch.Tensor = tensor.to_local().detach()
    return found


def _changed(state: Any, change: Callable[[Any], Any]) -> Any:
    if is_piece(state):
        return change(state)
    if type(state) in _DICTS:
        return type(state)((key, _changed(each, change)) for key, each in state.items())
    if type(state) in {list, tuple}:
        return type(state)(_changed(each, change) for each in state)
    return state


class _Way(NamedTuple):
    """How a tensor is dealt out, and what a process has of it.

    Attributes:
        is_plain: Whether each process knows that alone.
        box: Where its piece lies; None where it has a copy.
        is_own: Whether the piece is its own to write, rather than a copy of another's.
    """

    is_plain: bool
    box: Box | None
    is_own: bool


def _in_place(tensor: Any) -> Piece | torch.Tensor | None:
    """Returns what a process holds, and of what; None where nobody can say without the others."""
    mesh, shape = tensor.device_mesh, tuple(tensor.shape)
    # It follows from these alone, and to find it out takes as long as all else of a save.
    known = (shape, tensor.placements, tuple(mesh.shape), tuple(mesh.get_coordinate() or ()))
    way = _ways.get(known)
    if way is None:
        way = _ways[known] = _way_of(tensor)
    local = _local_of(tensor)
    is_stored = local.dtype is not torch.complex128  # which files hold by its parts alone
    if not (way.is_plain and is_stored) or hasattr(local, "__tensor_flatten__"):
        return None
    if 0 in shape:
        return local.new_empty(shape)
    return local if way.box is None else Piece(local, way.box, is_own=way.is_own)


def _way_of(tensor: Any) -> _Way:
    from torch.distributed.tensor import Replicate, Shard

    kinds = {type(each) for each in tensor.placements}
    if not kinds <= {Replicate, Shard}:
        return _Way(is_plain=False, box=None, is_own=False)
    if Shard not in kinds:
        return _Way(is_plain=True, box=None, is_own=True)
    at = tensor.device_mesh.get_coordinate()
    copies = [n for n, each in enumerate(tensor.placements) if type(each) is Replicate]
    is_own = at is not None and not any(at[n] for n in copies)
    _, offset = _place_of(tensor)
    return _Way(is_plain=True, box=Box(tuple(tensor.shape), tuple(offset)), is_own=is_own)


def _place_of(tensor: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the form of a process's piece, and where in the tensor it begins."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    return compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )


def cut_like(there: Any, kept: Any) -> Any:
    """Returns what is kept with those tensors cut whose places hold pieces: this process's own.

    Args:
        there: The state as the objects give it now.
        kept: The same with whole tensors.
    """
    if is_piece(there):
        fits = isinstance(kept, torch.Tensor) and kept.shape == there.shape
        if fits and is_piece(kept):
            return _own_copy(there, kept)
        return _own_piece(there, kept) if fits else kept
    if is_piece(kept) and isinstance(there, torch.Tensor):
        return kept.detach().full_tensor()
    if isinstance(there, Mapping) and isinstance(kept, Mapping):
        return {key: cut_like(there.get(key), each) for key, each in kept.items()}
    if isinstance(there, list | tuple) and type(there) is type(kept) and len(there) == len(kept):
        return type(kept)(map(cut_like, there, kept))
    return kept


def _own_copy(there: Any, kept: Any) -> Any:
    """Returns a piece that was read as such, with memory of its own."""
    if (there.device_mesh, there.placements) == (kept.device_mesh, kept.placements):
        return kept.detach().clone()
    return _own_piece(there, kept.detach().full_tensor())


def cutter(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> Cutter:
    """Returns what this process needs of weights and moments that lie in pieces."""
    weights: dict[str, dict[str, Any]] = {n: each.state_dict() for n, each in modules.items()}
    # What no tensor stands for yet is cut as weights of its form, moments above all; what has the
    # form of none, as all weights are; where two are cut otherwise, none is.
    ways: dict[tuple[int, ...], dict[Any, Any]] = collections.defaultdict(dict)
    every: dict[Any, Any] = {}
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for each in group["params"]:
                way = (each.device_mesh, each.placements) if is_piece(each) else None
                ways[tuple(each.shape)][way] = every[way] = each

    def cut(section: str, key: str, spec: TensorSpec) -> Cut | None:
        there = weights.get(section, {}).get(key)
        if section == "objects":
            found = ways.get(spec.shape) or every
            there = next(iter(found.values())) if len(found) == 1 else None
        elif there is not None and tuple(there.shape) != spec.shape:
            return None
        return _cut_as(there, spec.shape) if is_piece(there) else None

    return cut


def _cut_as(there: Any, whole: tuple[int, ...]) -> Cut:
    """Returns what a process needs of a tensor that it is to hold as it holds another.

    Args:
        there: The other one, perhaps of another form.
        whole: The tensor's form.
    """
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements = there.device_mesh, there.placements
    shape, offset = compute_local_shape_and_global_offset(whole, mesh, placements)
    is_like = tuple(there.shape) == whole
    strides = there.stride() if is_like else torch.empty(whole, device="meta").stride()

    def made(local: torch.Tensor) -> Any:
        return DTensor.from_local(
            local.to(there.device),
            mesh,
            placements,
            run_check=False,
            shape=torch.Size(whole),
            stride=strides,
        )

    return Cut(tuple(offset), tuple(shape), made)


def _own_piece(there: Any, kept: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import DTensor

    shape, offset = _place_of(there)
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
