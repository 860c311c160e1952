"""Accuracy, of samples or of tokens and pixels: where the classes lie, and which targets count."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.loss import takes_logits
from colabkit.fitting.torch.mistakes import form_of

_IGNORED = -100  # PyTorch's and Hugging Face's mark of a target that does not count
_UNREAD_MAX = 64
_OF_CLASSES = (functional.cross_entropy, functional.nll_loss)


@dataclasses.dataclass(frozen=True, slots=True)
class Classes:
    """Where a loss takes the classes of an output [N, C, ...] or [N, ..., C] to be.

    Attributes:
        dim: 1 as for PyTorch's losses, -1 as for models that compute their loss themselves,
            None for a loss of which nothing is known.
        ignored: The target that does not count.
        threshold: Above which one output says yes: 0 for logits, 0.5 for probabilities, None for
            a loss of which nothing is known.
    """

    dim: int | None = None
    ignored: int = _IGNORED
    threshold: float | None = None


OWN = Classes(dim=-1)


def classes_of(loss: Any) -> Classes:
    """Returns where a loss takes the classes to be.

    Example:
        >>> classes_of(nn.CrossEntropyLoss(ignore_index=0))
        Classes(dim=1, ignored=0, threshold=None)
    """
    said = loss.keywords if isinstance(loss, functools.partial) else vars(loss)
    function = loss.func if isinstance(loss, functools.partial) else loss
    if function in _OF_CLASSES or isinstance(function, nn.CrossEntropyLoss | nn.NLLLoss):
        return Classes(1, said.get("ignore_index", _IGNORED))
    return Classes(None, said.get("ignore_index", _IGNORED), _threshold_of(function))


def _threshold_of(function: Any) -> float | None:
    if function is functional.binary_cross_entropy or isinstance(function, nn.BCELoss):
        return 0.5
    if function is functional.binary_cross_entropy_with_logits or takes_logits(function):
        return 0.0
    return 0.0 if isinstance(function, nn.BCEWithLogitsLoss) else None


class Accuracy:
    """Share of the targets that the largest output, or the one output as yes or no, hits.

    It counts hits, so that an epoch's value is the share of all targets that count, however many
    of them a batch has. What it has learnt of the layout is part of its state.
    """

    def __init__(self) -> None:
        self._hits = self._counted = 0
        self._unread: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._dim: int | None = None
        self._is_shifted: bool | None = None

    def __call__(
        self, output: Any, target: Any, classes: Classes, loss: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Returns the share in one batch, a scalar.

        Args:
            output: [N, C] or [N, 1] or [N]; of tokens and pixels [N, C, ...] or [N, ..., C].
            target: Classes [N, ...], or numbers of the output's shape.
            classes: Where the loss takes the classes to be.
            loss: The loss that the model computed itself, else None.

        Raises:
            ArgumentError: They do not fit.
        """
        if not (isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)):
            raise _unfit(output, target)
        if output.ndim == target.ndim + 1 and max(output.shape[1], output.shape[-1]) > 1:
            return self._of_classes(output, target, classes, loss)
        if classes.dim == 1 and output.shape == target.shape and output.ndim > 1:
            return (output.argmax(1) == target.argmax(1)).float().mean()
        if output.numel() != target.numel():
            raise _unfit(output, target)
        threshold = _threshold_in(output) if classes.threshold is None else classes.threshold
        return ((output.reshape(target.shape) > threshold) == (target > 0.5)).float().mean()

    def _of_classes(
        self, output: torch.Tensor, target: torch.Tensor, classes: Classes, loss: Any
    ) -> torch.Tensor:
        dim = self._dim_of(output, target, classes)
        if loss is not None and dim == -1 and target.ndim == 2:
            if self._is_shifted is None:
                self._is_shifted = _is_shifted(output, target, loss)
            if self._is_shifted:
                output, target = output[:, :-1], target[:, 1:]
        found = output.argmax(dim)
        counts = target != classes.ignored
        hits = found == target
        if classes.ignored >= 0:
            hits = hits & counts
        pair = hits.sum(), counts.sum()
        self._unread.append(pair)
        if len(self._unread) >= _UNREAD_MAX:
            hits_of, counts_of = zip(*self._unread, strict=True)
            self._unread = [(torch.stack(hits_of).sum(), torch.stack(counts_of).sum())]
        return pair[0] / pair[1]

    def _dim_of(self, output: torch.Tensor, target: torch.Tensor, classes: Classes) -> int:
        """Returns which dimension holds the classes; learns from batches that leave no doubt."""
        fits = [dim for dim in (1, -1) if _without(output, dim) == target.shape]
        if not fits:
            raise _unfit(output, target)
        if output.ndim == 2:
            return 1
        if len(fits) == 1:
            self._dim = fits[0]
        elif classes.dim is not None:
            return classes.dim
        if self._dim is None:
            message = f"The classes of an output of {form_of(output)} may lie in either dimension."
            hint = "Pass metrics={'accuracy': lambda o, y: (o.argmax(-1) == y).float().mean()}."
            raise ArgumentError(message, argument="metrics", hint=hint)
        return self._dim

    def compute(self) -> float | None:
        """Returns the share of all since ``reset``; None where batches alone were compared."""
        self._read()
        return self._hits / self._counted if self._counted else None

    def _read(self) -> None:
        for hits, counted in self._unread:
            self._hits, self._counted = self._hits + int(hits), self._counted + int(counted)
        self._unread = []

    def reset(self) -> None:
        """Forgets what was counted."""
        self._hits = self._counted = 0
        self._unread = []

    def state_dict(self) -> dict[str, Any]:
        """Returns what was counted, and what is known of the layout."""
        self._read()
        counts = {"hits": self._hits, "counted": self._counted}
        return counts | {"dim": self._dim, "is_shifted": self._is_shifted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts it back."""
        self._hits, self._counted, self._unread = state["hits"], state["counted"], []
        self._dim, self._is_shifted = state["dim"], state["is_shifted"]


def _threshold_in(output: torch.Tensor) -> torch.Tensor:
    """Returns 0.5 for what are probabilities by their values, as a tensor: nobody waits for it."""
    return 0.5 * ((output >= 0) & (output <= 1)).all()


def _without(output: torch.Tensor, dim: int) -> tuple[int, ...]:
    shape = list(output.shape)
    del shape[dim]
    return tuple(shape)


def _is_shifted(logits: torch.Tensor, target: torch.Tensor, loss: torch.Tensor) -> bool:
    """Whether a model compares each token's logits with the token after it, as writers do."""
    pairs = ((logits, target), (logits[:, :-1], target[:, 1:]))
    here, after = (
        functional.cross_entropy(each.flatten(0, 1).float(), wanted.flatten()) - loss
        for each, wanted in pairs
    )
    return bool(after.abs() < here.abs())


def _unfit(output: Any, target: Any) -> ArgumentError:
    message = f"accuracy cannot compare {form_of(output)} with targets of {form_of(target)}."
    hint = "Pass metrics={'accuracy': a function of (output, target)}."
    return ArgumentError(message, argument="metrics", hint=hint)
