"""What a first batch says before anything is written: whether the losses of its parts add up."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.ddp_step import PartsForward
from colabkit.fitting.torch.loss_reduction import weighing_of
from colabkit.fitting.torch.step import TrainConfig
from colabkit.frameworks.base import Start
from colabkit.frameworks.torch.code_memory import memory_of_given, variables_kept
from colabkit.frameworks.torch.own_states import own_states, state_digest
from colabkit.frameworks.torch.parts import PartsFeed, Share
from colabkit.frameworks.torch.pieces import has_pieces
from colabkit.frameworks.torch.rollback import isolated
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.world import World
from colabkit.runs.own_states import name_of


def require_adding_up(
    config: TrainConfig, feed: PartsFeed, share: Share, world: World | None
) -> bool:
    """Raises ArgumentError in all processes where the loss of one's first part does not add up.

    The step would find it too, but only behind the first checkpoint, which says that batches are
    taken in parts: one device could not go on from there. It goes forward on copies of model and
    loss, and only for a loss of which PyTorch does not say what it makes of the samples.

    Returns:
        Whether all was looked at: else the step looks, and calls the loss three times for it.
    """
    if config.loss is None or weighing_of(config.loss).is_known or has_pieces(config.model):
        return False
    own = copied(config, "model", "loss")
    found: str | None = None
    if own is not None:
        found = looked(own, lambda: _complaint(own, feed, share))
    every = [found] if world is None else world.gather(found, at="a first look at the loss")
    told = [each for each in every if each]
    if told:
        hint = "Pass one of PyTorch's own losses, or train in one process."
        raise ArgumentError(told[0], argument="loss", hint=hint)
    return None not in every


def looked(config: TrainConfig, look: Callable[[], Any]) -> Any:
    """Returns what a look at copies gives, and leaves random streams and variables as they are."""
    with variables_kept([config.model], [config.loss, *config.metrics.functions]):
        return isolated(look)


def copied(config: TrainConfig, *names: str) -> TrainConfig | None:
    """Returns it with copies of what is named, as one; None where they cannot be copied."""
    # What a compiled model is a copy of would be compiled once more.
    model = getattr(config.model, "_orig_mod", config.model)
    config = dataclasses.replace(config, model=model)
    with contextlib.suppress(Exception):  # objects of anybody's, which refuse in ways of their own
        copies = copy.deepcopy({name: getattr(config, name) for name in names})
        return dataclasses.replace(config, **copies)
    return None


def what_remembers(config: TrainConfig, feed: PartsFeed, share: Share) -> str:
    """Returns what may change in each forward pass of which one process takes several, or "".

    In processes of their own each pass would find what its own ones have left; buffers do here,
    too. Of a model in pieces, which nobody can copy, another number is never called exact.
    """
    if has_pieces(config.model):
        return ""
    own = copied(config, "model", "loss")
    if own is None:
        return "what a model or loss that cannot be copied remembers of its calls"
    return ", ".join(looked(own, lambda: _changed_by_a_pass(own, feed, share)))


def _changed_by_a_pass(config: TrainConfig, feed: PartsFeed, share: Share) -> tuple[str, ...]:
    first = next(feed.batches(Start(key=0, epoch=0)), None)
    if first is None:
        return ()
    loss = config.loss
    given = {"model": config.model, "loss": loss if isinstance(loss, nn.Module) else None}
    state = TorchState({**given, **memory_of_given([loss], (), but=[config.model])})
    before, forward = _own_digests(state), PartsForward(config, share, None)
    with contextlib.suppress(ArgumentError):  # the step says so
        forward.pass_through(first.local[0].batch)
    now = _own_digests(state)
    changed = (name_of(path) for path in now if now[path] != before.get(path))
    return tuple(dict.fromkeys(changed))


def _own_digests(state: TorchState) -> dict[Any, str]:
    states = own_states(state, state.sections(of_optimizers=False), {"model"})
    # Generators are asked for elsewhere.
    return {path: state_digest(each) for path, each in states.items() if path[-1] != "generators"}


@torch.no_grad()
def _complaint(config: TrainConfig, feed: PartsFeed, share: Share) -> str:
    """Returns what is wrong with the loss in this process's first part, "" where nothing is."""
    first = next(feed.batches(Start(key=0, epoch=0)), None)
    try:
        if first is not None:
            PartsForward(config, share, None).look_at(first, lambda: _anew(config.loss))
    except ArgumentError as error:
        return error.message
    return ""


@contextlib.contextmanager
def _anew(loss: Any) -> Iterator[None]:
    """Puts a loss back, which may go by its earlier calls, behind one."""
    own = getattr(loss, "__dict__", {})
    before = copy.deepcopy(own)
    with variables_kept([], [loss]):
        yield
    own.update(before)
