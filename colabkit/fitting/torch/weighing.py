"""Whether several devices pay: a look at some steps on copies, before anything is trained."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from colabkit.fitting.torch.ddp_step import PartsStep
from colabkit.fitting.torch.first_look import copied, looked
from colabkit.fitting.torch.schedules import Schedule
from colabkit.fitting.torch.step import TrainConfig, TrainStep
from colabkit.frameworks.base import Start
from colabkit.frameworks.torch.parts import PartsFeed, Share
from colabkit.frameworks.torch.world import World

Clock = Callable[[], float]
# Steps before the time is taken, how many it is taken of, and how long that goes on.
_WARM, _LEAST, _MOST, _LONG_S = 2, 3, 20, 1.0


class OneDeviceError(Exception):
    """All processes end by it where one device is to train alone; the text says why."""


class Pace(NamedTuple):
    """How fast batches are trained.

    Attributes:
        steps: Of how many the time was taken.
        step_s: What one of them took.
    """

    steps: int
    step_s: float


def require_gain(
    config: TrainConfig, feed: Any, share: Share, world: World, *, clock: Clock
) -> None:
    """Raises OneDeviceError in all processes where one takes no longer than all together.

    Process 0 trains on whole batches while the others wait, then all train on their parts; on
    copies, so that nothing of it is left. Where that cannot be done, nothing is raised.

    Args:
        config: Everything that decides what a step does.
        feed: What gives whole batches.
        share: Which parts this process takes.
        world: The processes.
        clock: Seconds that only grow.
    """
    own = _copied(config)
    # Workers fetch ahead: how long that lasts, few steps do not show.
    can_look = own is not None and bool(feed.length) and not getattr(feed, "has_workers", False)
    if not all(world.gather(can_look, at="a look at the devices")) or own is None:
        return
    alone = looked(own, lambda: _alone(own, feed, clock)) if world.leads else None
    alone = world.share(alone, at="a look at one device")
    if alone is None:
        return
    parts = PartsFeed(feed, share)
    found = looked(own, lambda: _together(own, parts, share, world, alone.steps, clock))
    together_s = max(world.gather(found.step_s, at="a look at all devices"))
    if together_s >= alone.step_s:
        message = (
            f"a step takes {alone.step_s * 1e3:.3g} ms there, and {together_s * 1e3:.3g} ms on"
            f" {world.size} (devices={world.size} takes them)"
        )
        raise OneDeviceError(message)


def _copied(config: TrainConfig) -> TrainConfig | None:
    """Returns it with copies of all that a step changes; None where there are none to be had."""
    if any("_orig_mod" in each._modules for each in config.model.modules()):
        return None  # copies would be compiled once more
    plain = dataclasses.replace(config, schedule=Schedule())
    return copied(plain, "model", "loss", "optimizer", "metrics")


def _alone(config: TrainConfig, feed: Any, clock: Clock) -> Pace | None:
    """Returns the pace of one device; None where it cannot train so, for want of memory say."""
    try:
        # As much as several devices need besides, to sum gradients in: these have no room to fail.
        room = [torch.empty_like(each) for each in config.model.parameters()]
        step = TrainStep(config)
        step.begin_epoch(None)
        pace = _pace(step, _without_end(feed), config.device, clock, least=_LEAST, most=_MOST)
        del room
    except Exception:  # noqa: BLE001  # training meets it where it is one
        return None
    return pace


def _together(
    config: TrainConfig, feed: PartsFeed, share: Share, world: World, steps: int, clock: Clock
) -> Pace:
    """Returns the pace of this process among all, each of which takes as many steps."""
    step = PartsStep(TrainStep(config), config, share, world, lambda: None)
    step.begin_epoch(None)
    return _pace(step, _without_end(feed), config.device, clock, least=steps, most=steps)


def _without_end(feed: Any) -> Iterator[Any]:
    while True:
        yield from feed.batches(Start(key=0, epoch=0))


def _pace(
    step: Callable[[Any], object],
    batches: Iterator[Any],
    device: torch.device,
    clock: Clock,
    *,
    least: int,
    most: int,
) -> Pace:
    """Takes the time of at least and at most so many steps, fetching included."""
    for batch in itertools.islice(batches, _WARM):
        step(batch)
    _wait_for(device)
    began_s = clock()
    steps, passed_s = 0, 0.0
    while steps < least or (steps < most and passed_s < _LONG_S):
        step(next(batches))
        steps += 1
        # One step's end is not waited for, as in training: the device is to be kept busy.
        passed_s = clock() - began_s
    _wait_for(device)
    return Pace(steps, (clock() - began_s) / steps)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
