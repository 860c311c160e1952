"""How the losses of a batch's parts add up to the loss of the whole batch."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.loss import LossFunction, is_known_by_name

_IGNORED = -100  # PyTorch's and Hugging Face's mark of a target that does not count
_TOLERANCE = 1e-3
_TOLERANCE_OF_HALF = 3e-2


class Reduction(enum.Enum):
    """What a loss makes of the samples of a batch."""

    MEAN = "mean over samples"
    SUM = "sum over samples"
    COUNTED = "mean over the targets that count"


@dataclasses.dataclass(frozen=True, slots=True)
class LossReduction:
    """How one loss is taken of a part.

    Attributes:
        reduction: What the loss makes of the samples.
        summed: For COUNTED, the loss as a sum: defined also where no target counts.
        counted: For COUNTED, what the targets count for together, a scalar tensor.
        is_known: Whether PyTorch's own definition says so; else it must be looked at.
        is_weighted: For COUNTED, whether classes weigh more or less than others.
    """

    reduction: Reduction
    summed: LossFunction | None = None
    counted: Callable[[torch.Tensor], torch.Tensor] | None = None
    is_known: bool = True
    is_weighted: bool = False

    def for_part(self, loss: LossFunction, target: Any) -> LossFunction:
        """Returns what is computed of a part, of which ``term`` makes one of the whole."""
        return self.summed if self.summed is not None and is_of_classes(target) else loss

    def term(self, loss: torch.Tensor, target: Any, *, samples: int, of: int) -> torch.Tensor:
        """Returns what the loss of a part adds to the loss of its batch.

        Args:
            loss: What ``for_part`` gave for the part.
            target: The whole batch's target.
            samples: How many samples the part has.
            of: How many the batch has.
        """
        if self.reduction is Reduction.SUM:
            return loss
        if self.counted is None or not is_of_classes(target):
            return loss * (samples / of)
        return loss / self.counted(target.to(loss.device, non_blocking=True))

    def adds_up(self, whole: torch.Tensor, parts: list[tuple[torch.Tensor, int]]) -> torch.Tensor:
        """Returns whether the losses of parts give that of the whole, as a scalar tensor.

        Args:
            whole: The loss of the parts taken together.
            parts: The loss of each, and its number of samples.
        """
        samples = sum(count for _, count in parts)
        weighs_all = self.reduction is Reduction.SUM
        terms = [loss * (1 if weighs_all else count / samples) for loss, count in parts]
        half = whole.dtype in {torch.float16, torch.bfloat16}
        tolerance = _TOLERANCE_OF_HALF if half else _TOLERANCE
        difference = (sum(terms) - whole).abs()
        largest = torch.stack([whole.abs(), *(term.abs() for term in terms)]).amax()
        # Not "<=": a loss that is NaN has diverged, which is told elsewhere.
        return ~(difference > tolerance * largest)


def weighing_of(loss: LossFunction) -> LossReduction:
    """Returns how the parts of a loss weigh.

    Raises:
        ArgumentError: The loss keeps the samples apart.

    Example:
        >>> weighing_of(nn.MSELoss(reduction="sum")).reduction
        <Reduction.SUM: 'sum over samples'>
    """
    function = loss.func if isinstance(loss, functools.partial) else loss
    options = dict(loss.keywords) if isinstance(loss, functools.partial) else _said_by(loss)
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        message = "microbatch is given, and the loss has reduction='none'."
        hint = "Give the loss reduction='mean' or 'sum'."
        raise ArgumentError(message, argument="loss", hint=hint)
    known = is_known_by_name(function) or _is_torchs(function)
    if reduction == "sum":
        return LossReduction(Reduction.SUM, is_known=known)
    summed = _summed(loss, function)
    if summed is None:
        return LossReduction(Reduction.MEAN, is_known=known)
    weight = options.get("weight")
    counted = functools.partial(
        _counted, weight=weight, ignored=options.get("ignore_index", _IGNORED)
    )
    return LossReduction(Reduction.COUNTED, summed, counted, is_weighted=weight is not None)


def own_weighing(target: Any) -> LossReduction:
    """Returns how the parts of a loss that the model computes itself weigh.

    Raises:
        ArgumentError: Targets are marked as not counting, so the parts cannot be weighed.
    """
    if is_of_classes(target) and bool((target == _IGNORED).any()):
        message = (
            f"microbatch is given, the model computes its loss itself, and targets of {_IGNORED}"
            " do not count in it: what its parts weigh cannot be known."
        )
        hint = "Leave microbatch out, and take a smaller batch_size with accumulate."
        raise ArgumentError(message, argument="microbatch", hint=hint)
    return LossReduction(Reduction.MEAN)


def not_additive_error(reduction: LossReduction) -> ArgumentError:
    """Returns the error for a loss whose parts do not give the whole."""
    message = (
        f"The batch is taken in parts, and the loss is no {reduction.reduction.value}: the losses"
        " of two parts do not add up to that of both together."
    )
    hint = (
        "Pass one of PyTorch's own losses, whose weights and ignored targets are accounted for;"
        " or leave microbatch out, and take a smaller batch_size with accumulate."
    )
    return ArgumentError(message, argument="loss", hint=hint)


def _said_by(loss: Any) -> dict[str, Any]:
    names = ("reduction", "ignore_index", "weight")
    return {name: getattr(loss, name) for name in names if hasattr(loss, name)}


def _summed(loss: Any, function: Any) -> LossFunction | None:
    if function in {functional.cross_entropy, functional.nll_loss}:
        return functools.partial(loss, reduction="sum")
    if type(loss) in {nn.CrossEntropyLoss, nn.NLLLoss}:
        summed: nn.CrossEntropyLoss | nn.NLLLoss = copy.copy(loss)
        summed.reduction = "sum"
        return summed
    return None


def _counted(target: torch.Tensor, *, weight: torch.Tensor | None, ignored: int) -> torch.Tensor:
    counts = target != ignored
    if weight is None:
        return counts.sum()
    return (weight.to(target.device)[target * counts] * counts).sum()


def is_of_classes(target: Any) -> bool:
    """Whether a target holds classes, of which some may not count."""
    if not isinstance(target, torch.Tensor):
        return False
    return not (target.is_floating_point() or target.is_complex())


def _is_torchs(function: Any) -> bool:
    owner = type(function) if isinstance(function, nn.Module) else function
    return str(getattr(owner, "__module__", "")).startswith("torch.nn.")
