"""One training step: forward, loss, backward, and the optimizer when its turn has come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.accuracy import OWN, Classes, classes_of
from colabkit.fitting.torch.batches import (
    caller_for,
    count_samples,
    names_for,
    split_batch,
    target_in,
    without_target,
)
from colabkit.fitting.torch.lean_calls import backward, step_of, zero_grad_of
from colabkit.fitting.torch.loss import LossFunction, infer_loss, own_loss
from colabkit.fitting.torch.metrics import Metrics
from colabkit.fitting.torch.mistakes import check_loss, mistake_in_inputs, mistake_in_target
from colabkit.fitting.torch.optimizers import left_out_error
from colabkit.fitting.torch.schedules import Schedule
from colabkit.frameworks.torch.device import Precision, moved
from colabkit.runs.verdict import ResumeVerdict


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides what a step does.

    Attributes:
        left_out: Weights of the loss that the optimizer does not train.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: LossFunction | None
    schedule: Schedule
    metrics: Metrics
    device: torch.device
    precision: Precision
    accumulate: int = 1
    clip_grad_norm: float | None = None
    left_out: tuple[nn.Parameter, ...] = ()


class ForwardResult(NamedTuple):
    """What a forward pass gave.

    Attributes:
        output: What the model returned.
        target: What it is to be compared with.
        loss: Scalar tensor, attached to the graph in training.
        samples: How many samples the batch has.
    """

    output: Any
    target: Any
    loss: torch.Tensor
    samples: int


class StepResult(NamedTuple):
    """What a batch gave.

    Attributes:
        loss: Scalar tensor, still attached to the graph in training.
        values: Scalar tensors by name, the loss among them.
        samples: How many samples the values stand for.
    """

    loss: torch.Tensor
    values: dict[str, Any]
    samples: int


_PAIRS = (tuple, list)


class Forward:
    """Calls the model with a batch and finds its loss; learns the form from the first batch."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._called: Callable[..., Any] = config.model
        self._move = config.device.type != "cpu"
        self._call: Callable[[Any], Any] | None = None
        self._named: Callable[[Any], Any] | None = None
        self._own = False
        self._criterion = config.loss
        self._classes = Classes() if config.loss is None else classes_of(config.loss)
        self._may_be_overwritten = _is_compiled(config.loss)
        self.is_first = True
        """Whether the run has trained on no batch before those that this one is given."""

    def __call__(self, batch: Any) -> StepResult:
        """Returns the outcome of one batch."""
        passed = self.pass_through(batch)
        return StepResult(passed.loss, self.values_of(passed), passed.samples)

    def values_of(self, passed: ForwardResult) -> dict[str, Any]:
        """Returns the loss and the metrics of a forward pass, by name."""
        loss = passed.loss.detach()
        # A compiled model's CUDA graph writes the next loss into the very memory of this one.
        values = {"loss": loss.clone() if self._may_be_overwritten else loss}
        if self._config.metrics:
            output = main_output(passed.output)
            own = loss if self._own else None
            values |= self._config.metrics.of_batch(output, passed.target, self._classes, own)
        return values

    def pass_through(self, batch: Any) -> ForwardResult:
        """Returns what model and loss give for a batch."""
        config = self._config
        if self._move:
            batch = moved(batch, config.device)
        pair = type(batch) in _PAIRS and len(batch) == 2 and type(batch[0]) is torch.Tensor
        inputs, target = batch if pair else split_batch(batch)
        if self._call is None:
            self._call = caller_for(self._called, inputs)
            self._named = names_for(config.model, inputs)
        if config.precision.dtype is None:
            output, target, loss = self._loss(inputs, target)
        else:
            with config.precision.autocast(config.device):
                output, target, loss = self._loss(inputs, target)
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            check_loss(loss)
        samples = len(inputs) if pair and inputs.ndim else count_samples(batch)
        return ForwardResult(output, target, loss, samples)

    def _loss(self, inputs: Any, target: Any) -> tuple[Any, Any, torch.Tensor]:
        if target is None:
            target = target_in(inputs)
            if self._criterion is not None and not self._own and target is not None:
                inputs = without_target(inputs)
        output = self._output(inputs)
        if self._criterion is None:
            loss = own_loss(output)
            self._own = loss is not None
            if loss is not None:
                self._classes, self._may_be_overwritten = OWN, True
                return output, target, loss
            found = main_output(output)
            self._criterion = infer_loss(found, target, inputs, is_first=self.is_first)
            self._classes = classes_of(self._criterion)
        if target is None:
            target = inputs
        try:
            loss = self._compare(self._criterion, output, target)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            mistake = mistake_in_target(error, main_output(output), target, self._criterion)
            if mistake is None:
                raise
            raise mistake from error
        return output, target, loss

    def _output(self, inputs: Any) -> Any:
        assert self._call is not None  # noqa: S101  # set before the first call
        if self._named is not None:
            inputs = self._named(inputs)
        try:
            return self._call(inputs)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            mistake = mistake_in_inputs(error, self._config.model, inputs)
            if mistake is None:
                raise
            raise mistake from error

    def _compare(self, criterion: LossFunction, output: Any, target: Any) -> torch.Tensor:
        return criterion(output, target)


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """How a run's batches are cut among processes.

    Attributes:
        parts: How many parts of each batch are taken; 1 is the batch as it is.
        processes: How many processes take them.
        is_loaded: Whether a checkpoint said so.
        stays_whole: Whether one device was found to take no longer than several.
    """

    parts: int = 1
    processes: int = 1
    is_loaded: bool = False
    stays_whole: bool = False

    def state_dict(self) -> dict[str, int]:
        """Returns what there is to say of more than one part, or of having decided for one."""
        if self.parts == 1:
            return {"stays_whole": True} if self.stays_whole else {}
        return {"parts": self.parts, "processes": self.processes}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Cut:
        """Returns what a step's state says."""
        parts, processes = state.get("parts", 1), state.get("processes", 1)
        return cls(parts, processes, True, state.get("stays_whole", False))


class TrainStep:
    """Trains on one batch at a time; its state is the place in the epoch and its groups.

    Args:
        config: Everything that decides what a step does.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._forward = Forward(config)
        self._accumulated = 0
        self._group = config.accumulate
        self._batches_done = 0
        self._updates = 0
        self._left_out = config.left_out
        self._length: int | None = None
        self._changed: tuple[str, ...] = ()
        self.cut = Cut()
        self._zero_grad = zero_grad_of(config.optimizer)
        self._optimizer_step = step_of(config.optimizer)
        self.scaler = config.precision.scaler(config.device)

    def __call__(self, batch: Any) -> StepResult:
        """Forward and backward; the optimizer steps after every ``accumulate`` batches."""
        outcome = self._forward(batch)
        self.backward(outcome.loss)
        self.count()
        return outcome

    def begin_epoch(self, length: int | None) -> None:
        """Takes the length of the pass, so that its last group may be smaller; also after a resume.

        Args:
            length: Batches of the whole epoch, None where that is not known.
        """
        self._length = length
        if not self._accumulated:
            self._begin_group()

    @property
    def begins_group(self) -> bool:
        """Whether no gradients wait for the next batch's."""
        return self._accumulated == 0

    @property
    def ends_group(self) -> bool:
        """Whether the optimizer steps after the next batch."""
        return self._accumulated + 1 == self._group

    @property
    def is_by_steps(self) -> bool:
        """Whether several batches make one optimizer step."""
        return self._group > 1

    def _begin_group(self) -> None:
        self._accumulated = 0
        self._group = self._config.accumulate
        if self._group > 1 and self._length is not None and self._length > self._batches_done:
            self._group = min(self._group, self._length - self._batches_done)

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradients of a batch, or of a part of it, to its group's."""
        if self._group > 1:
            loss = loss / self._group
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        backward(loss)

    def count(self) -> None:
        """Takes a batch as done; the optimizer steps with the last of a group."""
        self._batches_done += 1
        self._accumulated += 1
        if self._accumulated == self._group:
            self._update()

    def finish_epoch(self) -> None:
        """Steps with the batches of a group that turned out smaller, weighing it as any other."""
        if self._accumulated:
            factor = self._group / self._accumulated
            for parameter in self._trained():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
            self._update()
        self._batches_done = 0

    def _check_left_out(self) -> None:
        """Raises ArgumentError where weights of the loss would learn, and nobody trains them."""
        # A frozen teacher within a loss is never in the graph; only gradients tell.
        learning = [each for each in self._left_out if each.grad is not None]
        self._left_out = ()
        if learning and isinstance(self._config.loss, nn.Module):
            raise left_out_error(self._config.loss, learning)

    def _update(self) -> None:
        config = self._config
        if self._left_out:
            self._check_left_out()
        if config.clip_grad_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(config.optimizer)
            self._clip(config.clip_grad_norm)
        is_skipped = False
        if self.scaler is None:
            self._optimizer_step()
        else:
            is_skipped = self._scaled_step(self.scaler)
        self._zero_grad()
        self._begin_group()
        if not is_skipped:
            self._updates += 1
            config.schedule.after_step(self._updates)

    def _clip(self, norm: float) -> None:
        trained = self._trained()
        try:
            nn.utils.clip_grad_norm_(trained, norm)
        except NotImplementedError as error:
            if not any(each.grad is not None and each.grad.is_sparse for each in trained):
                raise
            message = "clip_grad_norm is given, and PyTorch takes no norm of sparse gradients."
            hint = "Leave it out, or make the embedding with sparse=False."
            raise ArgumentError(message, argument="clip_grad_norm", hint=hint) from error

    def _scaled_step(self, scaler: torch.amp.GradScaler) -> bool:
        """Steps unless a gradient overflowed; returns whether a schedule must not step either."""
        scaler.step(self._config.optimizer)
        if not self._config.schedule.follows_steps:
            scaler.update()
            return False
        # Only the scale tells, and reading it waits for the device: not without need.
        scale = scaler.get_scale()
        scaler.update()
        return scaler.get_scale() < scale

    def _trained(self) -> list[torch.Tensor]:
        """Returns what the optimizer trains; the gradients of the rest are nobody's."""
        groups = [group["params"] for group in self._config.optimizer.param_groups]
        trained = dict.fromkeys(parameter for group in groups for parameter in group)
        # In the model's order first: the norm is a sum, and its order decides its last bits.
        ordered = [each for each in self._config.model.parameters() if each in trained]
        return list(dict.fromkeys([*ordered, *trained]))

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the epoch, and in the group of batches under way."""
        return {
            "accumulated": self._accumulated,
            "group": self._group,
            "batches_done": self._batches_done,
            "updates": self._updates,
            **self.cut.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the place."""
        self._accumulated = state["accumulated"]
        self._group = state.get("group", self._config.accumulate)
        self._batches_done = state.get("batches_done", 0)
        self._updates = state.get("updates", 0)
        self._changed = size_changes(state.get("microbatch"), None)
        self.cut = Cut.of_state(state)
        self._forward.is_first = not (self._updates or self._batches_done)

    @property
    def steps_of_schedule(self) -> int | None:
        """Optimizer steps done, where the schedule steps with them; None where with epochs."""
        return self._updates if self._config.schedule.per_step else None

    def verdict(self) -> ResumeVerdict:
        """Returns what the size of the parts says on how exactly the run resumes."""
        return ResumeVerdict(reasons=self._changed)


class Evaluation:
    """Means of loss and metrics over validation data, without gradients."""

    def __init__(
        self, config: TrainConfig, forward: Callable[[Any], StepResult] | None = None
    ) -> None:
        self._config = config
        self._forward = forward or Forward(config)
        if isinstance(self._forward, Forward):
            self._forward.is_first = False  # training comes before it, in this session or another

    @torch.no_grad()
    def __call__(self, batches: Any) -> dict[str, float]:
        """Returns the means by name; the model is put back into the mode it was in."""
        model = self._config.model
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            outcomes = [(o.values, o.samples) for o in map(self._forward, batches)]
        finally:
            for module, training in modes:
                module.training = training
        names = outcomes[0][0] if outcomes else {}
        total = sum(samples for _, samples in outcomes) or 1
        means = {
            name: sum(float(values[name]) * samples for values, samples in outcomes) / total
            for name in names
        }
        return means | self._config.metrics.of_epoch()


def size_changes(then: int | None, now: int | None) -> tuple[str, ...]:
    """Returns why another size of the parts than at the checkpoint is not exact."""
    words = ["the whole batch" if size is None else f"{size}" for size in (then, now)]
    return () if then == now else (f"microbatch was {words[0]}, is {words[1]}",)


def main_output(output: Any) -> Any:
    """Returns what losses and metrics look at, of what a model returned."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def _is_compiled(loss: object) -> bool:
    return hasattr(loss, "_orig_mod") or hasattr(loss, "_torchdynamo_orig_callable")
