"""Weights that a program puts others in the place of in mid-run: new heads, tables that are untied.

Optimizers may go on to hold what was replaced, and know nothing of what has come for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.frameworks.torch.structure import names_in_groups, owner_of, parameters_of


def tie_as(module: nn.Module, tied: Sequence[Sequence[str]]) -> None:
    """Ties and unties the parameters of a module as a program has done in mid-run.

    Args:
        module: The module as it was made.
        tied: What ``tied_names`` gave.
    """
    first = {key: names[0] for names in tied for key in names}
    chosen: dict[str, nn.Parameter] = {}
    taken: set[int] = set()
    for key, parameter in list(module.named_parameters(remove_duplicate=False)):
        name = first.get(key, key)
        if name not in chosen:
            chosen[name] = _copied(parameter) if id(parameter) in taken else parameter
            taken.add(id(parameter))
        if chosen[name] is not parameter and chosen[name].shape == parameter.shape:
            owner, own_name = owner_of(module, key)
            owner._parameters[own_name] = chosen[name]


def _copied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), parameter.requires_grad)


def states_of(
    optimizers: Mapping[str, torch.optim.Optimizer], names: Callable[[], Mapping[int, str]]
) -> dict[str, Any]:
    """Returns what optimizers hold, as parts of a checkpoint.

    PyTorch's ``state_dict`` has no name for weights that an optimizer keeps something of and
    trains no more. Of those that a module has, that is kept apart; others were replaced.

    Args:
        optimizers: By name.
        names: Returns the names of the weights, by identity.
    """
    found: dict[str, Any] = {"optimizers": {}}
    for name, optimizer in optimizers.items():
        try:
            found["optimizers"][name] = optimizer.state_dict()
        except KeyError:
            states = _taken_out(optimizer)
            try:
                found["optimizers"][name] = optimizer.state_dict()
            finally:
                optimizer.state.update(states)
            known = names()
            resting = {known[id(key)]: each for key, each in states.items() if id(key) in known}
            found.setdefault("resting", {})[name] = resting
    if shared := _shared_among(optimizers):
        found["shared"] = shared
    return found


def _shared_among(
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> list[list[tuple[str, int, str]]]:
    """Returns where each tensor lies that several optimizers keep.

    One that was given another's ``state_dict`` goes on with the very tensors of the other.
    """
    # One around another may have its state for its own.
    apart = {id(each.state): name for name, each in optimizers.items()}
    if len(apart) == 1:
        return []
    places: dict[int, list[tuple[str, int, str]]] = {}
    for name in apart.values():
        optimizer = optimizers[name]
        states = optimizer.state if isinstance(optimizer.state, dict) else {}
        for number, parameter in enumerate(parameters_of(optimizer)):
            kept = states.get(parameter, {})
            for key, value in kept.items() if isinstance(kept, dict) else ():
                if isinstance(value, torch.Tensor):
                    places.setdefault(id(value), []).append((name, number, key))
    return [each for each in places.values() if len(each) > 1]


def share_among(
    optimizers: Mapping[str, torch.optim.Optimizer],
    shared: Sequence[Sequence[tuple[str, int, str]]],
) -> None:
    """Gives all optimizers that kept one tensor the one of the first."""
    parameters = {name: parameters_of(each) for name, each in optimizers.items()}
    for places in shared:
        kept = [
            (optimizers[name].state.get(parameters[name][number], {}), key)
            for name, number, key in places
            if name in optimizers and number < len(parameters[name])
        ]
        holding = [(state, key) for state, key in kept if key in state]
        for state, key in holding[1:]:
            first, its_key = holding[0]
            state[key] = first[its_key]


def _taken_out(optimizer: torch.optim.Optimizer) -> dict[torch.Tensor, Any]:
    keys = [key for key in optimizer.state if isinstance(key, torch.Tensor)]
    held = {id(parameter) for parameter in parameters_of(optimizer)}
    return {key: optimizer.state.pop(key) for key in keys if id(key) not in held}


def groups_of_strangers(
    groups: Mapping[str, Sequence[Sequence[str]]], made_with: Mapping[str, int]
) -> list[str]:
    """Returns what to call groups that were added in mid-run, of tensors that no module has.

    Args:
        groups: By optimizer and group, the names of the weights, "" for such tensors.
        made_with: How many groups each had at the start.
    """
    added = {name: each[made_with.get(name, 0) :] for name, each in groups.items()}
    return [f"a group of {n}" for n, each in added.items() if any("" in names for names in each)]


def regroup(
    optimizer: torch.optim.Optimizer,
    modules: Mapping[str, nn.Module],
    kept: Sequence[Sequence[str]],
    orphans: Mapping[str, torch.Tensor],
) -> None:
    """Gives an optimizer the groups that it had, where some were added or changed in mid-run.

    Args:
        optimizer: The optimizer.
        modules: Those whose weights it trains.
        kept: By group, the names of its weights, "" for what no module holds.
        orphans: The values of these, by their number among all.
    """
    own = {f"{m}:{key}": p for m, each in modules.items() for key, p in each.named_parameters()}
    named = {id(parameter): name for name, parameter in own.items()}
    now = names_in_groups(optimizer, named)
    added = kept[len(now) :]
    is_known = all(name in own for names in kept for name in names if name)
    if now == kept or not is_known or any("" in names for names in added):
        return
    groups, begins = optimizer.param_groups, 0
    for group, names in zip(groups, kept, strict=False):
        there = group["params"]
        group["params"] = [
            own[name]
            if name
            else _nameless(there[place : place + 1], named, orphans, begins + place)
            for place, name in enumerate(names)
        ]
        begins += len(names)
    # What the program has added once more is in the groups by now.
    every = {name for names in kept for name in names}
    if all(set(names) <= {*every, ""} for names in now[len(kept) :]):
        del groups[len(kept) :]
    for names in added:
        optimizer.add_param_group({"params": [own[name] for name in names]})


def _nameless(
    there: Sequence[torch.Tensor],
    named: Mapping[int, str],
    orphans: Mapping[str, torch.Tensor],
    number: int,
) -> torch.Tensor:
    """Returns what stands in a group and no module holds: it was so, or has been replaced."""
    if there and id(there[0]) not in named:
        return there[0]
    value = orphans.get(str(number), torch.zeros(0))
    near = there[0].device if there else value.device
    return nn.Parameter(value.detach().to(near, copy=True), value.is_floating_point())
