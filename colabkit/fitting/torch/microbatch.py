"""A training step in parts, for batches whose step does not fit in memory at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from colabkit.errors import ArgumentError, TrainingMemoryError
from colabkit.fitting.torch.batch_parts import detached, joined, parts_of
from colabkit.fitting.torch.batches import count_samples, split_batch, target_in
from colabkit.fitting.torch.loss import LossFunction
from colabkit.fitting.torch.loss_reduction import (
    LossReduction,
    not_additive_error,
    own_weighing,
    weighing_of,
)
from colabkit.fitting.torch.step import (
    Forward,
    ForwardResult,
    StepResult,
    TrainConfig,
    TrainStep,
    main_output,
    size_changes,
)
from colabkit.frameworks.torch.rollback import StepRollback, isolated
from colabkit.runs.verdict import ResumeVerdict

_SIGNS = (
    "out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def require_size(microbatch: object) -> None:
    """Raises ArgumentError unless ``microbatch`` is a whole number from 1 on."""
    if not isinstance(microbatch, int) or isinstance(microbatch, bool) or microbatch < 1:
        hint = 'Pass "auto", a whole number from 1 on, or None.'
        raise ArgumentError.of("microbatch", microbatch, hint)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of PyTorch says that memory ran out, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in _SIGNS)


class _Attempt(NamedTuple):
    """What came of one try of a step: its outcome, or why memory refused it."""

    outcome: StepResult | None
    refusal: str = ""


class PartForward(Forward):
    """Calls the model with a part of a batch; knows how the parts' losses add up."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.reduction = None if config.loss is None else weighing_of(config.loss)

    def weighing_in(self, batch: Any) -> LossReduction:
        """Returns how the parts of a batch weigh; known once a first part was passed."""
        if self._own:
            return own_weighing(target_of(batch))
        assert self.reduction is not None  # noqa: S101  # set with the first part
        return self.reduction

    def compare(self, output: Any, target: Any) -> torch.Tensor:
        """Returns the user's loss of outputs and targets, in the precision of the run."""
        assert self._criterion is not None  # noqa: S101  # only asked where there is one
        with self._config.precision.autocast(self._config.device):
            return self._criterion(output, target)

    def _compare(self, criterion: LossFunction, output: Any, target: Any) -> torch.Tensor:
        if self.reduction is None:
            self.reduction = weighing_of(criterion)
        return self.reduction.for_part(criterion, target)(output, target)


class SplitStep(TrainStep):
    """A step that takes its batch in parts where the whole does not fit in memory.

    Its state holds the size of the parts too, so that a resumed run takes the same ones.

    Args:
        config: Everything that decides what a step does.
        size: Samples in a part at most; None begins with whole batches and halves on demand.
        say: Tells the user one sentence.
    """

    def __init__(
        self, config: TrainConfig, *, size: int | None, say: Callable[[str], None]
    ) -> None:
        super().__init__(config)
        self._part = PartForward(config)
        self._size = size
        self._is_fixed = size is not None
        self._say = say
        self._rollback = StepRollback(config.model, config.optimizer)

    def __call__(self, batch: Any) -> StepResult:
        """Forward and backward in as many parts as it takes; the optimizer as ever."""
        if not self._is_fixed:
            self._rollback.keep()
        while (attempt := self._attempt(batch)).outcome is None:
            self._make_room(batch, attempt.refusal)
        if not self._is_fixed:
            self._rollback.merge()
        self.count()
        return attempt.outcome

    def _attempt(self, batch: Any) -> _Attempt:
        # The error is dropped here: its traceback holds the tensors that memory is short of.
        try:
            return _Attempt(
                self._whole(batch) if self._count_parts(batch) == 1 else self._in_parts(batch)
            )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return _Attempt(None, str(error).strip().splitlines()[0])

    def _count_parts(self, batch: Any) -> int:
        return 1 if self._size is None else -(-count_samples(batch) // self._size)

    def _whole(self, batch: Any) -> StepResult:
        passed = self._forward.pass_through(batch)
        self.backward(passed.loss)
        # Not before: a metric that counts must not count a try that failed.
        return StepResult(passed.loss, self._forward.values_of(passed), passed.samples)

    def _in_parts(self, batch: Any) -> StepResult:
        config, forward, samples = self._config, self._part, count_samples(batch)
        kept: list[ForwardResult] = []
        sums = _Additivity(forward)
        losses = []
        for part in parts_of(batch, self._count_parts(batch)):
            passed = forward.pass_through(part)
            reduction = forward.weighing_in(batch)
            term = reduction.term(passed.loss, target_of(batch), samples=passed.samples, of=samples)
            self.backward(term)
            losses.append(term.detach())
            if not reduction.is_known:
                sums.inspect(reduction, passed)
            if config.metrics:
                output = detached(main_output(passed.output))
                kept.append(ForwardResult(output, passed.target, losses[-1], passed.samples))
        sums.require()
        whole = ForwardResult(None, None, torch.stack(losses).sum(), samples)
        if kept:
            whole = _joined(kept)._replace(loss=whole.loss)
        return StepResult(whole.loss, forward.values_of(whole), samples)

    def _make_room(self, batch: Any, refusal: str) -> None:
        """Puts all back as it was before the step, and halves the parts.

        Raises:
            TrainingMemoryError: They cannot be halved.
        """
        largest = -(-count_samples(batch) // self._count_parts(batch))
        if self._is_fixed or largest == 1:
            raise _does_not_fit(largest, refusal, fixed=self._is_fixed)
        self._rollback.restore()
        gc.collect()
        if self._config.device.type == "cuda":
            torch.cuda.empty_cache()
        first, self._size = self._size is None, -(-largest // 2)
        self._say(
            f"Memory ran out with {largest} samples at once: steps are taken in parts of at most"
            f" {self._size}, with the gradient of the whole batch."
        )
        if first:
            for caveat in self._caveats():
                self._say(f"{caveat[0].upper()}{caveat[1:]}.")

    def _caveats(self) -> tuple[str, ...]:
        if not any(isinstance(each, _BatchNorm) for each in self._config.model.modules()):
            return ()
        return ("BatchNorm takes its statistics of each part, not of the whole batch",)

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in epoch and group, and the size of the parts."""
        return {**super().state_dict(), "microbatch": self._size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the place, and the size where none is asked for."""
        super().load_state_dict(state)
        if not self._is_fixed:
            self._size = state.get("microbatch")
        self._changed = size_changes(state.get("microbatch"), self._size)

    def verdict(self) -> ResumeVerdict:
        """Returns what the size of the parts says on how exactly the run resumes."""
        notices = self._caveats() if self._size is not None else ()
        if not self._is_fixed:
            notices = ("provided memory runs out at the same steps", *notices)
        return ResumeVerdict(reasons=self._changed, notices=notices)


class _Additivity:
    """Whether the losses of parts add up, for a loss of which nothing is known."""

    def __init__(self, forward: PartForward) -> None:
        self._forward = forward
        self._before: ForwardResult | None = None
        self._reduction: LossReduction | None = None
        self._findings: list[torch.Tensor] = []

    @torch.no_grad()
    def inspect(self, reduction: LossReduction, passed: ForwardResult) -> None:
        """Compares this part and the one before it with both together."""
        now = passed._replace(output=detached(passed.output), loss=passed.loss.detach())
        before, self._before, self._reduction = self._before, now, reduction
        if before is None:
            return
        both = _joined([before, now])
        whole = isolated(lambda: self._forward.compare(both.output, both.target))
        parts = [(each.loss, each.samples) for each in (before, now)]
        self._findings.append(reduction.adds_up(whole, parts))

    def require(self) -> None:
        """Raises ArgumentError unless all of them added up."""
        if self._findings and not bool(torch.stack(self._findings).all()):
            assert self._reduction is not None  # noqa: S101  # set with the first finding
            raise not_additive_error(self._reduction)


def target_of(batch: Any) -> Any:
    """Returns the target in a batch, None where there is none."""
    inputs, target = split_batch(batch)
    return target_in(inputs) if target is None else target


def _joined(parts: list[ForwardResult]) -> ForwardResult:
    counts = [part.samples for part in parts]
    return ForwardResult(
        output=joined([part.output for part in parts], counts),
        target=joined([part.target for part in parts], counts),
        loss=parts[0].loss,
        samples=sum(counts),
    )


def _does_not_fit(samples: int, refusal: str, *, fixed: bool) -> TrainingMemoryError:
    words = "1 sample does" if samples == 1 else f"{samples} samples at once do"
    message = f"A step with {words} not fit in memory: {refusal}"
    hint = (
        "Take smaller inputs or a smaller model, precision='bf16' or 'fp16', activation"
        " checkpointing (torch.utils.checkpoint), or a GPU with more memory."
    )
    if fixed and samples > 1:
        hint = f"Pass microbatch='auto', or a number below {samples}."
    return TrainingMemoryError(message, samples=samples, hint=hint)
