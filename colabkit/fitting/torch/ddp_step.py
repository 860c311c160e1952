"""A training step whose batch is cut in parts: several processes take some each, or one takes all.

Gradients are summed by PyTorch's DistributedDataParallel, or its ``fully_shard``. What a part
computes depends on the part alone: on its samples, its own random draws, and the buffers that the
group of batches began with; 2 processes with a part each and 1 with both have the same bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.batch_parts import detached, joined, parts_of
from colabkit.fitting.torch.batches import count_samples
from colabkit.fitting.torch.loss_reduction import LossReduction, Reduction, is_of_classes
from colabkit.fitting.torch.microbatch import PartForward, target_of
from colabkit.fitting.torch.replicas import Replicas
from colabkit.fitting.torch.step import (
    ForwardResult,
    StepResult,
    TrainConfig,
    TrainStep,
    main_output,
)
from colabkit.fitting.torch.summing import Begun, InCopies, InPieces, Summing, can_carry
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.device import moved
from colabkit.frameworks.torch.parts import Part, Parts, Share
from colabkit.frameworks.torch.pieces import has_pieces
from colabkit.frameworks.torch.randomness import seed_everything
from colabkit.frameworks.torch.world import World

_HOST = torch.device("cpu")
Around = Callable[[int], contextlib.AbstractContextManager[None]]
Anew = Callable[[], contextlib.AbstractContextManager[None]]


class _Counting(NamedTuple):
    """What the targets of a batch count for.

    Attributes:
        wait: Returns by what the loss is divided, None where samples say so.
        own: What those of each part of this process count for, where that is yet to be summed.
    """

    wait: Callable[[], torch.Tensor | None] = lambda: None
    own: dict[int, torch.Tensor] = {}  # noqa: RUF012  # never written to


class PartsForward(PartForward):
    """Forward over the local parts of a batch, to the loss and metrics of the whole batch.

    Args:
        config: Everything that decides what a step does.
        share: Which parts this process takes.
        world: The other processes, None where there are none.
        summing: What is called in place of the model, and sums; None sums the loss alone.
        adds_up: Whether the losses of parts are known to give that of all.
    """

    def __init__(
        self,
        config: TrainConfig,
        share: Share,
        world: World | None,
        summing: Summing | None = None,
        *,
        adds_up: bool = False,
    ) -> None:
        super().__init__(config)
        self._called = summing or config.model
        self._summing = summing
        self._share = share
        self._world = world
        self._was_looked_at = False
        self._adds_up = adds_up
        # Elsewhere it would be waited for, or would have to tell the batches of a group apart.
        self._can_correct = config.device.type == "cpu" and config.accumulate == 1
        self.correction: torch.Tensor | None = None
        """What the gradients of the last batch are to be multiplied with."""

    def __call__(self, batch: Parts) -> StepResult:
        """Returns the outcome of the whole batch."""
        return self.over(batch, lambda _: None, lambda _: contextlib.nullcontext())

    def look_at(self, parts: Parts, anew: Anew) -> None:
        """Raises ArgumentError where the losses of two halves do not give that of both.

        Args:
            parts: Those of a batch.
            anew: Gives the context of a call, behind which the loss is as it was before.
        """
        for part in parts.local[:1]:
            with anew():
                passed = self.pass_through(part.batch)
            self._inspect(self._weighing_of(part), passed, part, anew)

    def over(
        self, parts: Parts, backward: Callable[[torch.Tensor], None], around: Around
    ) -> StepResult:
        """Returns the outcome of the whole batch.

        Args:
            parts: Those that this process takes.
            backward: Called with what each part's loss adds to that of the whole.
            around: Gives the context in which the part of a place is taken.
        """
        terms: dict[int, torch.Tensor] = {}
        kept: list[Any] = []
        # Sums over the processes begin as early as they can: others may not have come so far.
        is_known = self._was_looked_at
        counting = self._begin_count(parts) if is_known else _Counting()
        divisor: torch.Tensor | None = None
        summing: Begun | None = None
        for place, part in enumerate(parts.local):
            with around(place):
                seed_everything(derive(parts.key, "step", part.number))
                passed = self.pass_through(part.batch)
                reduction = self._weighing_of(part)
                if not place:
                    counting = counting if is_known else self._begin_count(parts)
                    divisor = counting.wait()
                if not (reduction.is_known or self._adds_up):
                    self._inspect(reduction, passed, part)
                term = _term(reduction, passed.loss, part, of=parts.samples, counted=divisor)
                terms[part.number] = term.detach()
                if part is parts.local[-1]:
                    summing = self._begin_sums(terms, counting.own)
                backward(term)
            if self._config.metrics and part.samples:
                kept.append((part.samples, detached(main_output(passed.output)), passed.target))
        self._was_looked_at = self._adds_up = True
        assert summing is not None  # noqa: S101  # each process takes a part
        loss = self._corrected(summing(), parts)
        return StepResult(loss, self.values_of(self._whole(kept, loss, parts)), parts.samples)

    def _weighing_of(self, part: Part) -> LossReduction:
        try:
            return self.weighing_in(part.batch)
        except ArgumentError as error:
            message = f"Batches are taken in parts. {error.message}"
            hint = "Train in one process, or pass one of PyTorch's own losses as loss=."
            raise ArgumentError(message, argument="loss", hint=hint) from error

    def _begin_count(self, parts: Parts) -> _Counting:
        """Begins to find out what the targets of the whole batch count for, where samples do not.

        Where each sample has one class, all are taken to count, and what does is summed with the
        loss: gradients are corrected behind, where some do not.
        """
        weighing = self._weighing_of(parts.local[0])
        if weighing.counted is None:
            return _Counting()
        counts, dimensions = {}, set()
        for part in parts.local:
            target = target_of(part.batch)
            if not is_of_classes(target):
                return _Counting()
            count = weighing.counted(target.to(self._config.device))
            counts[part.number] = count if part.samples else count * 0
            dimensions.add(target.ndim)
        if dimensions == {1} and not weighing.is_weighted and self._can_correct:
            all_count = torch.tensor(parts.samples)
            return _Counting(lambda: all_count, counts)
        arrived = self._begin_sum(self._in_order(counts))
        return _Counting(lambda: arrived().sum())

    def _begin_sums(self, terms: dict[int, torch.Tensor], counts: dict[int, torch.Tensor]) -> Begun:
        """Begins to sum the loss, and behind it what its targets count for where that is asked."""
        both = self._in_order(terms, *([counts] if counts else []))
        if self._world is None or self._summing is None:
            return self._begin_sum(both)
        return self._summing.begin_sum(both, self._world)

    def _in_order(self, *given: dict[int, torch.Tensor]) -> torch.Tensor:
        """Returns a scalar of each part, whoever has computed it, with nothing for others.

        Args:
            given: The scalars by the numbers of the parts; those of each come behind each other,
                all as wide as the first ones are.
        """
        is_wide = any(each.dtype == torch.float64 for each in given[0].values())
        dtype = torch.float64 if is_wide else torch.float32
        count, device = self._share.count, self._config.device
        if device.type == "cpu":  # to read them waits for nothing, and is the least there is to do
            rows = [v[n].item() if n in v else 0.0 for v in given for n in range(count)]
            return torch.tensor(rows, dtype=dtype)
        found = torch.zeros(count * len(given), dtype=dtype, device=device)
        for place, values in enumerate(given):
            for number, value in values.items():
                found[place * count + number] = value
        return found

    def _begin_sum(self, values: torch.Tensor) -> Begun:
        return (lambda: values) if self._world is None else self._world.begin_sum(values)

    def _corrected(self, sums: torch.Tensor, parts: Parts) -> torch.Tensor:
        """Returns the loss of the batch, and sets what its gradients are to be multiplied with."""
        count = self._share.count
        loss = sums[:count].sum()
        self.correction = None
        # There are few, of which to read each is less than to sum them.
        if len(sums) > count and sum(sums[count:].tolist()) != parts.samples:
            self.correction = parts.samples / sums[count:].sum()
            loss *= self.correction
        return loss

    def _whole(self, kept: list[Any], loss: torch.Tensor, parts: Parts) -> ForwardResult:
        """Returns what the metrics look at: outputs and targets of the whole batch."""
        if not self._config.metrics:
            return ForwardResult(None, None, loss, parts.samples)
        if self._world is not None:
            gathered = self._world.gather(moved(kept, _HOST), at="the metrics of a batch")
            kept = moved([each for several in gathered for each in several], self._config.device)
        counts = [samples for samples, _, _ in kept]
        for name, place in (("output", 1), ("target", 2)):
            _require_by_sample(name, [each[place] for each in kept], counts)
        output = joined([each[1] for each in kept], counts)
        target = joined([each[2] for each in kept], counts)
        return ForwardResult(output, target, loss, parts.samples)

    def _inspect(
        self,
        reduction: LossReduction,
        passed: ForwardResult,
        part: Part,
        anew: Anew = contextlib.nullcontext,
    ) -> None:
        """Raises ArgumentError where the losses of two halves do not give that of both."""
        if part.samples < 2:
            return
        output, target = detached(passed.output), passed.target
        if not isinstance(output, torch.Tensor | tuple | list):
            return
        try:
            halves = parts_of((output, target), 2)
        except ArgumentError:  # not by sample: nobody can tell, and a mean is what a loss is
            return
        losses = []
        for half in halves:
            with torch.no_grad(), anew():
                losses.append((self.compare(*half), count_samples(half)))
        adds_up = bool(reduction.adds_up(passed.loss.detach(), losses))
        if not adds_up:
            message = (
                f"Batches are taken in parts, and the loss is no {reduction.reduction.value}:"
                " the losses of two parts do not add up to that of both together."
            )
            hint = "Pass one of PyTorch's own losses, or train in one process."
            raise ArgumentError(message, argument="loss", hint=hint)


def _term(
    reduction: LossReduction,
    loss: torch.Tensor,
    part: Part,
    *,
    of: int,
    counted: torch.Tensor | None,
) -> torch.Tensor:
    """Returns what the loss of a part adds to the loss of its batch; nothing, for a stand-in."""
    if reduction.reduction is Reduction.SUM:
        return loss if part.samples else loss * 0
    if counted is None:
        return loss * (part.samples / of)
    return loss / counted if part.samples else loss / counted * 0


def _require_by_sample(name: str, values: list[Any], counts: list[int]) -> None:
    tensors = [(v, n) for v, n in zip(values, counts, strict=True) if isinstance(v, torch.Tensor)]
    shapes = {tuple(value.shape[1:]) for value, _ in tensors}
    if len(shapes) > 1 or any(not v.ndim or len(v) != samples for v, samples in tensors):
        forms = ", ".join(str(list(value.shape)) for value, _ in tensors)
        message = f"The {name}s of a batch's parts are {forms}: metrics cannot take them together."
        hint = "Let collate_fn pad to one length, or leave metrics out."
        raise ArgumentError(message, argument="metrics", hint=hint)


class PartsStep:
    """Drives a ``TrainStep`` over batches in parts.

    Args:
        step: Counts batches and groups, and steps the optimizer; its state is the run's.
        config: Everything that decides what a step does.
        share: Which parts this process takes.
        world: The other processes, None where there are none.
        finish_copying: Waits until no snapshot needs the weights as they are.
        adds_up: Whether the losses of parts are known to give that of all.
    """

    def __init__(
        self,
        step: TrainStep,
        config: TrainConfig,
        share: Share,
        world: World | None,
        finish_copying: Callable[[], None],
        *,
        adds_up: bool = False,
    ) -> None:
        self._step = step
        self._config = config
        self._world = world
        self._last = len(share.numbers) - 1
        self._syncs = True
        self._summing: Summing | None = None
        if world is not None and has_pieces(config.model):
            self._summing = InPieces(config.model)
        elif world is not None:
            slots = 2 * share.count if can_carry(config, share) else 0
            self._summing = InCopies(config.model, config.optimizer, finish_copying, slots=slots)
        self._replicas = Replicas(config.model, step, len(share.numbers))
        self._untrained: list[nn.Parameter] = []
        self._aside: list[tuple[nn.Parameter, torch.Tensor]] = []
        self._forward = PartsForward(config, share, world, self._summing, adds_up=adds_up)
        self.finish_epoch = step.finish_epoch

    def begin_epoch(self, length: int | None) -> None:
        """Takes the length of the pass, and looks which weights there are."""
        self._step.begin_epoch(length)
        groups = self._config.optimizer.param_groups
        held = {id(each) for group in groups for each in group["params"]}
        self._untrained = [p for p in self._config.model.parameters() if id(p) not in held]
        if self._summing is not None:
            self._summing.begin_epoch()

    def __call__(self, parts: Parts) -> StepResult:
        """Forward and backward of the local parts; the optimizer as ever."""
        step = self._step
        ends_group = step.ends_group
        if step.begins_group:
            self._put_aside()
        if self._world is None or self._summing is None:
            self._replicas.begin()
            outcome = self._forward.over(parts, step.backward, self._replicas.taking)
            self._replicas.end()
        else:
            self._summing.begin(self._world, begins_group=step.begins_group)
            self._world.arrive()  # at forward, which takes the buffers of process 0
            outcome = self._forward.over(parts, self._backward, self._taking)
        if self._forward.correction is not None:
            for parameter in self._config.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._forward.correction)
        if ends_group:
            self._put_back()
        # What callbacks draw must not depend on which parts were taken here.
        seed_everything(derive(parts.key, "after"))
        step.count()
        return outcome

    def _put_aside(self) -> None:
        """Sets gradients aside that no optimizer clears: they were summed over the parts before."""
        # Copies: what they lie in is written anew by the next sum.
        self._aside = [(p, p.grad.clone()) for p in self._untrained if p.grad is not None]
        for parameter, _ in self._aside:
            parameter.grad = None

    def _put_back(self) -> None:
        for parameter, before in self._aside:
            new = parameter.grad
            parameter.grad = before if new is None else before.add_(new)
        self._aside = []

    def _backward(self, loss: torch.Tensor) -> None:
        if self._world is not None and self._syncs:
            self._world.arrive()
        self._step.backward(loss)

    @contextlib.contextmanager
    def _taking(self, place: int) -> Iterator[None]:
        assert self._summing is not None  # noqa: S101  # asked for among several processes
        self._syncs = self._step.ends_group and place == self._last
        with self._summing.syncing(self._syncs):
            yield
