"""Modules that the user has wrapped in DistributedDataParallel, to train in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.frameworks.code_variables import CodeVariables
from colabkit.frameworks.paths import UNCHANGING
from colabkit.frameworks.processes import require_one_process
from colabkit.frameworks.torch.compare import batch_digest
from colabkit.frameworks.torch.pieces import has_pieces, is_piece, reshard, sharded_layers

# Of a hook that has no state but where it sums; there is none where PyTorch was built without.
_GROUP: Any = getattr(torch.distributed, "ProcessGroup", ())


def wrapper_of(value: Any) -> Any:
    """Returns the DistributedDataParallel that a module is, compiled or not; None for another."""
    parallel = getattr(nn.parallel, "DistributedDataParallel", None)
    inner = value
    # A scripted module keeps its own elsewhere, and nobody compiles it once more.
    if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        inner = value._modules.get("_orig_mod", value)
    return inner if parallel is not None and isinstance(inner, parallel) else None


def unwrapped(value: Any) -> Any:
    """Returns the module inside DistributedDataParallel, under whose names one process saves it."""
    wrapper = wrapper_of(value)
    return value if wrapper is None else wrapper.module


def require_wrapped(objects: Mapping[str, Any]) -> None:
    """Raises ArgumentError for a module whose gradients nobody would sum over the processes."""
    optimizers = {n: o for n, o in objects.items() if isinstance(o, torch.optim.Optimizer)}
    require_whole_optimizers(optimizers)
    groups = [group for each in optimizers.values() for group in each.param_groups]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    summed = {id(p) for each in _wrappers(objects).values() for p in each.parameters()}
    for name, value in objects.items():
        if not isinstance(value, nn.Module):
            continue
        # Where optimizers are passed, what none of them holds is trained by nobody: averages, say.
        if any(
            p.requires_grad
            and not is_piece(p)
            and (not held or id(p) in held)
            and id(p) not in summed
            for p in value.parameters()
        ):
            message = f"{name} trains in several processes, and nothing sums its gradients."
            line = f"{name} = torch.nn.parallel.DistributedDataParallel({name})"
            hint = (
                "Where it is wrapped, pass the wrapper and not its .module; else write, before its"
                f" optimizer is made and before Run:  {line}"
            )
            raise ArgumentError(message, argument=name, hint=hint)
    modules = [value for value in objects.values() if isinstance(value, nn.Module)]
    if not (summed or any(map(has_pieces, modules))):
        require_one_process("a loop over colabkit.Run without a wrapped module")


def require_whole_optimizers(optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Raises ArgumentError for an optimizer of which each process holds a part by itself."""
    for name, optimizer in optimizers.items():
        if any(kind.__name__ == "ZeroRedundancyOptimizer" for kind in type(optimizer).__mro__):
            message = f"{name} is a ZeroRedundancyOptimizer, of which each process holds a part."
            hint = "Take a plain optimizer, or deal weights and moments out with fully_shard."
            raise ArgumentError(message, argument=name, hint=hint)


def require_public_sharding(name: str, module: nn.Module) -> None:
    """Raises ArgumentError for a module in pieces that ``fully_shard`` has not made, or not all.

    Args:
        name: What the user calls the module.
        module: The module, in pieces or not.
    """
    reshard(module)
    is_older = any(type(each).__name__ == "FullyShardedDataParallel" for each in module.modules())
    trained = [each for each in module.parameters() if each.requires_grad]
    pieces = [each for each in trained if is_piece(each)]
    if is_older or (pieces and not sharded_layers(module)):
        message = f"The weights of {name} are in pieces, and not by fully_shard."
    elif 0 < len(pieces) < len(trained):
        message = f"Some weights of {name} are in pieces, and nothing sums the gradients of others."
    else:
        return
    line = f"torch.distributed.fsdp.fully_shard({name})"
    hint = f"Write, behind those of its layers and before its optimizer is made:  {line}"
    raise ArgumentError(message, argument=name, hint=hint)


def weights_digest(objects: Mapping[str, Any]) -> str:
    """Returns a hash of all weights that must be the same in each process."""
    modules = [value for value in objects.values() if isinstance(value, nn.Module)]
    return replicas_digest(*modules)


def replicas_digest(*modules: nn.Module) -> str:
    """Returns a hash of the weights of which each process has a copy, and not a piece."""
    for module in modules:
        reshard(module)  # or NumPy would look at whole weights, which can then not be given back
    return batch_digest([[p for p in each.parameters() if not is_piece(p)] for each in modules])


def reasons_against(objects: Mapping[str, Any], processes: int) -> tuple[str, ...]:
    """Returns why several processes would not repeat their sums bit for bit."""
    found = []
    wrapped = _wrappers(objects)
    for name, value in wrapped.items():
        lays_anew = value.static_graph or not value.find_unused_parameters
        hooks = getattr(value, "_comm_hooks", ())
        if lays_anew and (processes > 2 or any(_remembers(hook) for hook, _ in hooks)):
            without = ", and no static_graph," if value.static_graph else ""
            found.append(
                f"{name} lays its buckets out anew after the first step of each session"
                f" (DistributedDataParallel(..., find_unused_parameters=True){without} keeps them)"
            )
        if any(state is not None and not isinstance(state, _GROUP) for _, state in hooks):
            found.append(f"{name} sums by a hook whose state no checkpoint holds")
    if any(each.is_cuda for value in wrapped.values() for each in value.parameters()):
        found.append("nobody has seen whether several GPUs repeat their sums bit for bit")
    return tuple(found)


def with_names_of_wrappers(objects: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns which modules hold a wrapped one, whose names another number would not find."""
    modules = {n: unwrapped(each) for n, each in objects.items() if isinstance(each, nn.Module)}
    return tuple(
        f"{name} holds a wrapped module, whose names no other number finds: {_instead(name, each)}"
        for name, each in modules.items()
        if any(map(wrapper_of, each.modules()))
    )


def _instead(name: str, module: nn.Module) -> str:
    if isinstance(module, torch.optim.swa_utils.AveragedModel):
        return "wrap none, AveragedModel(model.module)"
    return f"wrap {name} as a whole"


def _remembers(hook: Any) -> bool:
    """Whether a hook of the user's may keep something of the buckets that it sums."""
    kept = CodeVariables([hook]).variables().values()
    return not all(type(each) in UNCHANGING or isinstance(each, _GROUP) for each in kept)


def hooks_of_sums(objects: Mapping[str, Any]) -> list[Any]:
    """Returns the functions by which wrappers sum, which may remember what rounding left over."""
    every = (getattr(each, "_comm_hooks", ()) for each in _wrappers(objects).values())
    return [hook for hooks in every for hook, _ in hooks]


def _wrappers(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the wrappers by name: those passed, and those within what was passed."""
    found: dict[str, Any] = {}
    for name, value in objects.items():
        if (wrapper := wrapper_of(value)) is not None:
            found[name] = wrapper
        elif isinstance(value, nn.Module):
            named = value.named_modules(prefix=name)
            found |= {at: each for at, each in named if wrapper_of(each) is each}
    return found


def device_of(objects: Mapping[str, Any]) -> torch.device:
    """Returns where the first module's weights are."""
    for value in objects.values():
        if isinstance(value, nn.Module):
            for parameter in value.parameters():
                return parameter.device
    return torch.device("cpu")
