"""Models that take statistics over the samples of a batch, of which one sample alone has none."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.batch_parts import parts_of
from colabkit.fitting.torch.batches import count_samples
from colabkit.fitting.torch.first_look import copied, looked
from colabkit.fitting.torch.step import Forward, TrainConfig
from colabkit.frameworks.base import Start
from colabkit.frameworks.torch.parts import Parts
from colabkit.frameworks.torch.pieces import has_pieces

_FUNCTIONS_MAX = 64
_OVER_BATCHES = (_BatchNorm, "batch_norm")
# Of as many groups as channels, and a single place, GroupNorm has one value in each as well.
_REFUSING_ONE = {"BatchNorm": _OVER_BATCHES, "GroupNorm": (nn.GroupNorm, "group_norm")}


def takes_statistics(model: nn.Module) -> bool:
    """Whether a model normalises over its batches: with a BatchNorm, or by code of its own.

    Example:
        >>> takes_statistics(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
        True
        >>> takes_statistics(nn.GroupNorm(1, 3))
        False
    """
    return _normalises(model, *_OVER_BATCHES)


def _normalises(model: nn.Module, layer: type[nn.Module], function: str) -> bool:
    kinds = {base for each in model.modules() for base in type(each).__mro__}
    if any(issubclass(kind, layer) for kind in kinds):
        return True
    own = (kind for kind in kinds if kind.__module__.partition(".")[0] not in {"torch", "builtins"})
    return any(_calls(code, function) for kind in own for code in _codes_in(kind))


def _calls(code: types.CodeType, function: str) -> bool:
    """Whether a code names a function of that name, which is no attribute of its own object."""
    if function not in code.co_names:
        return False
    found = [*dis.get_instructions(code)]
    own = code.co_varnames[:1]
    named = (n for n, each in enumerate(found) if each.argval == function)
    return any(n == 0 or (found[n - 1].argval,) != own for n in named)


def _codes_in(kind: type) -> Iterator[types.CodeType]:
    """Yields the codes of the methods of a class, and of the functions of a module they call."""
    waiting = [each for each in vars(kind).values() if isinstance(each, types.FunctionType)]
    known = {each.__code__ for each in waiting}
    while waiting:
        function = waiting.pop()
        codes = [function.__code__]
        for code in codes:
            yield code
            codes += (each for each in code.co_consts if isinstance(each, types.CodeType))
            for each in map(function.__globals__.get, code.co_names):
                if not isinstance(each, types.FunctionType) or len(known) > _FUNCTIONS_MAX:
                    continue
                if each.__code__ not in known:
                    known.add(each.__code__)
                    waiting.append(each)


def require_last_batch(
    config: TrainConfig, feed: Any, options: Any, say: Callable[[str], object]
) -> None:
    """Says before the first step what the last batch of an epoch would end in.

    Args:
        config: Everything that decides what a step does.
        feed: The training data.
        options: The arguments of ``fit``.
        say: Says a sentence, where a callback or a limit may turn it away until then.

    Raises:
        ArgumentError: That batch is of one sample, and the model cannot train on one.
    """
    samples = getattr(feed, "samples_of_last", int)() or 0
    size = options.microbatch if isinstance(options.microbatch, int) else None
    is_one = samples == 1 or (size and samples and samples // -(-samples // size) == 1)
    if not is_one or has_pieces(config.model):
        return
    names = [name for name, of in _REFUSING_ONE.items() if _normalises(config.model, *of)]
    own = copied(config, "model", "loss") if names else None
    if own is None or not looked(own, lambda: _refuses_one(own, feed)):
        return
    what = "has 1 sample" if samples == 1 else f"of {samples} samples has a part of 1"
    message = f"The last batch of an epoch {what}, and {names[0]} cannot train on one sample alone."
    hint = "Pass another batch_size, or a DataLoader with drop_last=True."
    if samples > 1:
        hint = "Pass another microbatch."
    if options.callbacks or options.max_steps or options.max_time:
        say(f"{message} {hint}")
        return
    raise ArgumentError(message, argument="data", hint=hint)


@torch.no_grad()
def _refuses_one(config: TrainConfig, feed: Any) -> bool:
    config.model.train()
    batch = next(feed.batches(Start(key=0, epoch=0)), None)
    batch = batch.local[0].batch if isinstance(batch, Parts) else batch
    try:
        Forward(config).pass_through(parts_of(batch, count_samples(batch))[0])
    except ArgumentError as error:
        return "more than 1 value per channel" in str(error.__cause__)
    return False
