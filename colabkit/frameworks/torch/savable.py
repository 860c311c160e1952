"""Which objects a run can save, refused by name before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.frameworks.attributes import has_state
from colabkit.frameworks.generators import find_generators
from colabkit.frameworks.state_pairs import has_no_state


def check_can_be_saved(name: str, value: Any) -> None:
    """Raises ArgumentError for an object that has no state, or none that can be stored yet."""
    if isinstance(value, type):
        message = f"{name} is the class {value.__name__}, which holds no weights."
        raise ArgumentError(message, argument=name, hint=f"Pass an object: {value.__name__}(...).")
    if isinstance(value, nn.Module):
        check_is_built(name, value)
    if value is None or has_state(value) or find_generators(value, (torch.Generator,)) == [value]:
        return
    message = f"{name} is of type {type(value).__name__}, without state_dict and load_state_dict."
    hint = f"Give it both, or leave it out; a loop's variables are kept by run.state({name}=...)."
    if has_no_state(value):
        hint = "Give it both, for the numbers, arrays and generators that it is made of."
    elif _holds_some_with_state(value):
        hint = "Pass each by itself: Run(folder, model=model, optimizer=optimizer, scheduler=...)."
    raise ArgumentError(message, argument=name, hint=hint)


def _holds_some_with_state(value: Any) -> bool:
    """Whether it is a nesting of such objects, as ``configure_optimizers`` returns."""
    members = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(
        has_state(each) or _holds_some_with_state(each) for each in members
    )


def check_is_built(name: str, module: nn.Module) -> None:
    """Raises ArgumentError for a module some of whose weights hold no numbers yet."""
    if any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()]):
        message = f"{name} has weights on the device meta, which hold no numbers."
        hint = "Make it without that device, or load its weights, before it is passed."
        raise ArgumentError(message, argument=name, hint=hint)
    if any(map(nn.parameter.is_lazy, [*module.parameters(), *module.buffers()])):
        message = f"{name} has lazy layers, which have no weights before a first batch."
        hint = "Call it once: model(x[:2]). Then make the optimizer and run this again."
        raise ArgumentError(message, argument=name, hint=hint)
