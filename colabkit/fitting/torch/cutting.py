"""How a call's batches are cut among processes, and what that says of exactness."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.batch_statistics import takes_statistics
from colabkit.fitting.torch.microbatch import SplitStep
from colabkit.fitting.torch.optimizers import own_weights
from colabkit.fitting.torch.step import Cut, TrainConfig, TrainStep
from colabkit.frameworks.base import Feed
from colabkit.frameworks.differences import differences
from colabkit.frameworks.torch.parts import Share
from colabkit.frameworks.torch.pieces import has_pieces
from colabkit.frameworks.torch.randomness import generators_in
from colabkit.frameworks.torch.world import World
from colabkit.frameworks.torch.wrapped import require_public_sharding, require_whole_optimizers
from colabkit.runs.verdict import ResumeVerdict


@dataclasses.dataclass(frozen=True, slots=True)
class Cutting:
    """How batches are cut from now on.

    Attributes:
        cut: What a checkpoint keeps of it.
        share: What this process takes.
        verdict: What it says on how exactly the run resumes.
        words: The sentence for the user.
    """

    cut: Cut
    share: Share
    verdict: ResumeVerdict
    words: str


def cut_among(then: Cut, world: World | None, config: TrainConfig) -> Cutting:
    """Returns how batches are cut: in as many parts as there are processes, or once were.

    Args:
        then: How the run's checkpoint was, or a new one would be.
        world: The processes, None where there is one.
        config: Everything that decides what a step does.
    """
    processes = 1 if world is None else world.size
    parts = max(then.parts, processes)
    if parts % processes and has_pieces(config.model):
        # The layers meet for their weights in each part: all processes take as many.
        parts = processes
    rank = 0 if world is None else world.rank
    words = f"Trains in {processes} processes, each batch in {parts} parts."
    if world is None:
        words = f"Each batch is taken in {parts} parts, as in the processes that began this run."
    verdict = ResumeVerdict(
        reasons=_reasons(then, parts, processes, config), notices=_notices(parts, processes, config)
    )
    # BatchNorm may refuse to take its statistics of a single sample.
    least = 2 if takes_statistics(config.model) else 1
    return Cutting(Cut(parts, processes), Share(parts, rank, processes, least), verdict, words)


def _reasons(then: Cut, parts: int, processes: int, config: TrainConfig) -> tuple[str, ...]:
    found = []
    if then.is_loaded and then.parts != parts:
        found.append(f"each batch was taken in {then.parts} parts, is taken in {parts}")
    if then.is_loaded and then.processes != processes and max(then.parts, parts) > 2:
        found.append(
            f"{then.processes} processes summed the gradients, now {processes}: in another order"
        )
    if parts > processes and _has(config, SyncBatchNorm):
        found.append("SyncBatchNorm takes its statistics of fewer parts than there are")
    if parts > processes and generators_in(list(config.model.modules())):
        found.append("the model draws from a generator of its own, once for each part")
    loss = config.loss
    keeps_own = isinstance(loss, nn.Module) and any(True for _ in loss.buffers())
    if parts > processes and keeps_own and not type(loss).__module__.startswith("torch.nn."):
        found.append(f"{type(loss).__name__} keeps buffers of its own in each process")
    if processes > 1 and config.device.type == "cuda":
        found.append("nobody has seen whether several GPUs repeat their sums bit for bit")
    return tuple(found)


def _notices(parts: int, processes: int, config: TrainConfig) -> tuple[str, ...]:
    found = []
    if parts > 2:
        found.append(f"provided {processes} processes go on")
    if takes_statistics(config.model):
        found.append("BatchNorm takes its statistics of each part, not of the whole batch")
    return tuple(found)


def _has(config: TrainConfig, kind: type) -> bool:
    return any(isinstance(each, kind) for each in config.model.modules())


def require_cuttable(step: TrainStep, feed: Feed, options: Any) -> None:
    """Raises ArgumentError for what parts of batches cannot be combined with."""
    if isinstance(step, SplitStep):
        message = "microbatch is given, and batches are cut among processes already."
        hint = "Leave microbatch out; more processes, or accumulate, make the parts smaller."
        raise ArgumentError(message, argument="microbatch", hint=hint)
    if options.accumulate > 1 and feed.length is None:
        message = "accumulate is given, and the data does not say how many batches it has."
        hint = "Give its sampler __len__, so that all processes know the last group."
        raise ArgumentError(message, argument="accumulate", hint=hint)


def agree_on_call(world: World, config: TrainConfig, feed: Feed, options: Any) -> None:
    """Raises ArgumentError where the processes ask for different trainings, or one none can do.

    Args:
        world: The processes.
        config: Everything that decides what a step does.
        feed: The training data.
        options: The arguments of ``fit``.
    """
    _require_plain(config.model)
    require_whole_optimizers({"optimizer": config.optimizer})
    if config.precision.name == "fp16" and has_pieces(config.model):
        message = "precision is fp16, whose scale each process would find for its own pieces."
        hint = "Pass precision='bf16' or 'fp32' with fully_shard."
        raise ArgumentError(message, argument="precision", hint=hint)
    if own_weights(config.loss, config.model):
        message = f"{type(config.loss).__name__} has weights of its own, and trains in one process."
        hint = "Make it part of the model, which then computes its loss itself; or start one."
        raise ArgumentError(message, argument="loss", hint=hint)
    held = {id(parameter) for parameter in config.model.parameters()}
    groups = config.optimizer.param_groups
    if any(id(each) not in held for group in groups for each in group["params"]):
        message = "The optimizer trains tensors that are not the model's."
        hint = "Make them its parameters, so that the processes can sum their gradients."
        raise ArgumentError(message, argument="optimizer", hint=hint)
    asked, sample = _asked(config, feed, options), _first_sample_of(feed)
    for rank, (other, seen) in enumerate(world.gather((asked, sample), at="a call of fit")):
        names = dict.fromkeys(differences(asked, other))
        if sample and seen and sample != seen:
            names["other data"] = None
        if names:
            message = (
                f"Process {rank} was called otherwise than process {world.rank}:"
                f" {', '.join(names)}."
            )
            hint = "Let all processes pass the same arguments, and the same data."
            raise ArgumentError(message, argument="data", hint=hint)


def _require_plain(model: nn.Module) -> None:
    """Raises ArgumentError for a model that is shared out among processes already."""
    if isinstance(model, DistributedDataParallel):
        message = "model is wrapped in DistributedDataParallel, which fit does itself."
        raise ArgumentError(message, argument="model", hint="Pass model.module.")
    require_public_sharding("model", model)


def _asked(config: TrainConfig, feed: Feed, options: Any) -> dict[str, Any]:
    names = [
        "epochs",
        "batch_size",
        "accumulate",
        "eval_every",
        "seed",
        "max_steps",
        "resume",
        "phase",
    ]
    return {
        **{name: getattr(options, name) for name in names},
        **{f"data {name}": value for name, value in feed.describe().items()},
        **{name: _form_of(each) for name, each in config.model.named_parameters()},
    }


def _first_sample_of(feed: Any) -> str:
    can_be_cut = hasattr(feed, "parts") and not getattr(feed, "uncut", str)()
    return feed.first_sample() if can_be_cut else ""


def _form_of(parameter: torch.Tensor) -> str:
    is_trained = " trained" if parameter.requires_grad else ""
    return f"{parameter.dtype} {list(parameter.shape)}{is_trained}"
