"""Which variables of a loop hold what no checkpoint has, in words."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping, Set
from typing import Any

import numpy as np
import torch

from colabkit.frameworks.begun_anew import begun_anew, left_out
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.structure import parameters_of
from colabkit.frameworks.users_own import attributes_of, is_of_users_class


def carried(
    state: TorchState,
    variables: Mapping[str, Any],
    decisive: Mapping[str, Any],
    taken: Collection[str],
) -> tuple[str, ...]:
    """Returns which variables hold tensors or arrays from step to step: a hidden state, say.

    A lone number is a sum for the eye, unless steps go by it.
    """
    modules = tuple(state.modules.values())
    held = {id(each) for m in modules for each in (*m.parameters(), *m.buffers())}
    parts = (*state.optimizers.values(), *state.others.values())
    held |= {id(each) for each in (*parts, *(e for m in modules for e in m.modules()))}
    without = {n: e for n, e in decisive.items() if hasattr(type(e), "load_state_dict")}
    decisive = {name: each for name, each in decisive.items() if name not in without}
    left = tuple(
        left_out(name, trains_others=trains_others(each, held))
        for name, each in without.items()
        if id(each) not in held and not _is_wrapper(each, held)
    )
    if not (state.optimizers or state.modules):
        # What trains, if anything, is none of PyTorch's.
        return (*left, *begun_anew(decisive, decisive, taken=taken))
    arrays = (
        name
        for name, value in variables.items()
        if any(
            isinstance(each, torch.Tensor | np.ndarray)
            and math.prod(each.shape) > 1
            and id(each) not in held
            for each in (value if isinstance(value, list | tuple) else (value,))
        )
    )
    others = (name for name, value in decisive.items() if id(value) not in held)
    names, values = dict.fromkeys((*arrays, *others)), {**variables, **decisive}
    return (*left, *begun_anew(names, values, taken, of_pieces=state.is_sharded))


def _is_wrapper(value: Any, held: Set[int]) -> bool:
    """Whether a library's object gives as its own the state of one that a run was given."""
    if is_of_users_class(type(value)):
        return False  # it may count beside that
    within = [each for each in attributes_of(value).values() if id(each) in held]
    with contextlib.suppress(Exception):  # what a state is made of may not compare
        return any(value.state_dict() == each.state_dict() for each in within)
    return False


def trains_others(value: Any, held: Set[int]) -> bool:
    """Whether an optimizer trains tensors of other modules than a run was given."""
    is_one = isinstance(value, torch.optim.Optimizer)
    return is_one and any(id(each) not in held for each in parameters_of(value))
