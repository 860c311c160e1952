"""Modules that the user has wrapped in DistributedDataParallel, to train in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.frameworks.processes import require_one_process
from colabkit.frameworks.torch.compare import batch_digest


def unwrapped(value: Any) -> Any:
    """Returns the module inside DistributedDataParallel, under whose names one process saves it."""
    parallel = getattr(nn.parallel, "DistributedDataParallel", None)
    return value.module if parallel is not None and isinstance(value, parallel) else value


def require_wrapped(objects: Mapping[str, Any]) -> None:
    """Raises ArgumentError for a module whose gradients nobody would sum over the processes."""
    for name, value in objects.items():
        if not isinstance(value, nn.Module):
            continue
        if is_sharded(value):
            message = f"The weights of {name} are sharded (FSDP), which is not saved yet."
            hint = "Wrap it in DistributedDataParallel: each process then holds a copy of it."
            raise ArgumentError(message, argument=name, hint=hint)
        if unwrapped(value) is value and any(p.requires_grad for p in value.parameters()):
            message = f"{name} trains in several processes, and nothing sums its gradients."
            line = f"{name} = torch.nn.parallel.DistributedDataParallel({name})"
            hint = f"Write, before its optimizer is made and before Run:  {line}"
            raise ArgumentError(message, argument=name, hint=hint)
    if all(unwrapped(value) is value for value in objects.values()):
        require_one_process("a loop over colabkit.Run without a wrapped module")


def is_sharded(module: nn.Module) -> bool:
    """Whether a process holds but a part of the weights: fully_shard, or its predecessor."""
    kinds = {type(each).__name__ for each in module.modules()}
    has_pieces = any(hasattr(each, "device_mesh") for each in module.parameters())
    return has_pieces or "FullyShardedDataParallel" in kinds


def weights_digest(objects: Mapping[str, Any]) -> str:
    """Returns a hash of all weights, which must be the same in each process."""
    modules = [value for value in objects.values() if isinstance(value, nn.Module)]
    return batch_digest([list(module.parameters()) for module in modules])


def reasons_against(objects: Mapping[str, Any], processes: int) -> tuple[str, ...]:
    """Returns why several processes would not repeat their sums bit for bit."""
    found = []
    wrapped = {name: value for name, value in objects.items() if unwrapped(value) is not value}
    for name, value in wrapped.items() if processes > 2 else ():
        if not (value.find_unused_parameters or value.static_graph):
            found.append(
                f"{name} lays its buckets out anew after the first step of each session"
                " (DistributedDataParallel(..., find_unused_parameters=True) keeps them)"
            )
    if any(each.is_cuda for value in wrapped.values() for each in value.parameters()):
        found.append("nobody has seen whether several GPUs repeat their sums bit for bit")
    return tuple(found)


def device_of(objects: Mapping[str, Any]) -> torch.device:
    """Returns where the first module's weights are."""
    for value in objects.values():
        if isinstance(value, nn.Module):
            for parameter in value.parameters():
                return parameter.device
    return torch.device("cpu")
