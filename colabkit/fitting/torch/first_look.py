"""What a first batch says before anything is written: whether the losses of its parts add up."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.ddp_step import PartsForward
from colabkit.fitting.torch.loss_reduction import weighing_of
from colabkit.fitting.torch.step import TrainConfig
from colabkit.frameworks.base import Start
from colabkit.frameworks.torch.code_memory import variables_kept
from colabkit.frameworks.torch.parts import PartsFeed, Share
from colabkit.frameworks.torch.pieces import has_pieces
from colabkit.frameworks.torch.rollback import isolated
from colabkit.frameworks.torch.world import World


def require_adding_up(config: TrainConfig, feed: PartsFeed, share: Share, world: World) -> None:
    """Raises ArgumentError in all processes where the loss of one's first part does not add up.

    The step would find it too, but only behind the first checkpoint, which says that batches are
    taken in parts: one device could not go on from there. It goes forward on copies of model and
    loss, and only for a loss of which PyTorch does not say what it makes of the samples.
    """
    if config.loss is None or weighing_of(config.loss).is_known or has_pieces(config.model):
        return
    own = copied(config, "model", "loss")
    complaint = "" if own is None else looked(own, lambda: _complaint(own, feed, share))
    told = [each for each in world.gather(complaint, at="a first look at the loss") if each]
    if told:
        hint = "Pass one of PyTorch's own losses, or train in one process."
        raise ArgumentError(told[0], argument="loss", hint=hint)


def looked(config: TrainConfig, look: Callable[[], Any]) -> Any:
    """Returns what a look at copies gives, and leaves random streams and variables as they are."""
    with variables_kept([config.model], [config.loss, *config.metrics.functions]):
        return isolated(look)


def copied(config: TrainConfig, *names: str) -> TrainConfig | None:
    """Returns it with copies of what is named, as one; None where they cannot be copied."""
    # What a compiled model is a copy of would be compiled once more.
    model = getattr(config.model, "_orig_mod", config.model)
    config = dataclasses.replace(config, model=model)
    with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
        copies = copy.deepcopy({name: getattr(config, name) for name in names})
        return dataclasses.replace(config, **copies)
    return None


@torch.no_grad()
def _complaint(config: TrainConfig, feed: PartsFeed, share: Share) -> str:
    """Returns what is wrong with the loss in this process's first part, "" where nothing is."""
    first = next(feed.batches(Start(key=0, epoch=0)), None)
    try:
        if first is not None:
            PartsForward(config, share, None).look_at(first)
    except ArgumentError as error:
        return error.message
    return ""
