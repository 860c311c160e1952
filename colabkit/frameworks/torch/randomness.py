"""PyTorch's, NumPy's and Python's global random streams: seeded, captured, restored."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from colabkit.frameworks.generators import (
    find_generators,
    generator_state,
    reseed,
    restore_generator,
)

# Each save searches, and training waits for it.
_SEARCHED_DEEPLY_MAX = 64
_OF_ANY_MODULE = frozenset(vars(torch.nn.Module()))

_cuda_runs: Callable[[], bool] = torch.cuda.is_initialized
_xpu_runs: Callable[[], bool] = torch.xpu.is_initialized
_HAS_MPS = torch.backends.mps.is_available()
# Asked at each step, where a call would be a twentieth of the seeding.
_MAY_HAVE_OTHERS = _HAS_MPS or torch.xpu._is_compiled()


def seed_everything(seed: int) -> None:
    """Puts every global random stream where a seed names, in about 6 microseconds."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # users draw from the global stream
    torch.default_generator.manual_seed(seed)
    if _cuda_runs():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    if _MAY_HAVE_OTHERS:
        for generator in _others():
            generator.manual_seed(seed)


def global_states() -> dict[str, Any]:
    """Returns the states of all global random streams."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }
    if _cuda_runs():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if others := [generator.get_state() for generator in _others()]:
        states["others"] = others
    return states


def _others() -> Sequence[torch.Generator]:
    """Returns the global generators of accelerators other than CUDA that are in use."""
    if _HAS_MPS:
        return (torch.mps._get_default_mps_generator(),)
    return torch.xpu.default_generators if _xpu_runs() else ()


def restore_global_states(states: dict[str, Any]) -> None:
    """Restores what ``global_states`` gave; CUDA states only where the GPUs are as many."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if _cuda_runs() and len(states.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    for generator, state in zip(_others(), states.get("others", ()), strict=False):
        generator.set_state(state)


def reseed_generator(generator: object, seed: int) -> None:
    """Reseeds a user's own generator of any of the three kinds."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    else:
        reseed(generator, seed)


def generators_in(
    modules: Sequence[torch.nn.Module], those_with_more: Sequence[torch.nn.Module] | None = None
) -> list[object]:
    """Returns the generators that modules keep.

    Args:
        modules: A module and those within it.
        those_with_more: Those that keep more than numbers and words, None where nobody knows.
    """
    found = find_generators(list(modules[:_SEARCHED_DEEPLY_MAX]), (torch.Generator,))
    kinds = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
    for each in modules if those_with_more is None else those_with_more:
        own = (value for name, value in vars(each).items() if name not in _OF_ANY_MODULE)
        found += [value for value in own if isinstance(value, kinds)]
    return list({id(generator): generator for generator in found}.values())


def own_generator_state(generator: object) -> object:
    """Returns the state of a user's own generator of any of the three kinds."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator_state(generator)


def restore_own_generator(generator: object, state: Any) -> None:
    """Restores what ``own_generator_state`` gave."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        restore_generator(generator, state)
