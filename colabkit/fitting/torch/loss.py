"""Which loss a model and its targets ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.mistakes import (
    form_of,
    hint_on_target,
    one_sample_error,
    shapes_error,
)

# With fewer rows, several labels at once may be one each by chance.
_ROWS_TO_TELL = 8

_ELSEWHERE = {
    "cross_entropy": "ce categoricalcrossentropy crossentropy sparsecategoricalcrossentropy",
    "bce": "bcewithlogits binarycrossentropy",
    "mse": "meansquarederror l2",
    "mae": "meanabsoluteerror",
    "l1": "l1",
    "huber": "smoothl1",
    "nll": "negativeloglikelihood",
}

LossFunction = Callable[[Any, Any], torch.Tensor]

_BY_NAME: dict[str, LossFunction] = {
    "cross_entropy": functional.cross_entropy,
    "bce": lambda output, target: binary_loss(output, target),
    "mse": lambda output, target: functional.mse_loss(output, _shaped(target, output)),
    "mae": lambda output, target: functional.l1_loss(output, _shaped(target, output)),
    "l1": lambda output, target: functional.l1_loss(output, _shaped(target, output)),
    "huber": lambda output, target: functional.huber_loss(output, _shaped(target, output)),
    "nll": functional.nll_loss,
}


def _meant_by(name: str) -> str:
    """Returns the name that a loss of Keras, PyTorch or fastai has here, "" where it has none.

    Example:
        >>> _meant_by("CrossEntropyLoss"), _meant_by("sparse_categorical_crossentropy")
        ('cross_entropy', 'cross_entropy')
    """
    plain = name.lower().replace("_", "").removesuffix("flat").removesuffix("loss")
    known = {n.replace("_", ""): n for n in _BY_NAME}
    known |= {each: name for name, others in _ELSEWHERE.items() for each in others.split()}
    return known.get(plain, "")


def named_loss(loss: Any) -> LossFunction:
    """Returns a loss by name, or the function given.

    Raises:
        ArgumentError: The name is unknown, or it is no function.
    """
    if isinstance(loss, str):
        if loss not in _BY_NAME:
            message = f"loss is {loss!r}, which is no loss known by name."
            hint = f"Pass one of {', '.join(_BY_NAME)}, or a function of (output, target)."
            if elsewhere := _meant_by(loss):
                hint = f'Write loss="{elsewhere}".'
            raise ArgumentError(message, argument="loss", hint=hint)
        return _BY_NAME[loss]
    if isinstance(loss, type):
        message = f"loss is the class {loss.__name__}."
        raise ArgumentError(message, argument="loss", hint=f"Pass {loss.__name__}().")
    if not callable(loss):
        hint = "Pass a function of (output, target), an instance such as nn.MSELoss(), or a name."
        raise ArgumentError.of("loss", loss, hint)
    found: LossFunction = loss
    return found


def is_known_by_name(loss: Any) -> bool:
    """Whether a function is one of the losses that ``fit`` knows by name."""
    return any(loss is each for each in (binary_loss, *_BY_NAME.values()))


def takes_logits(loss: Any) -> bool:
    """Whether a function is the binary loss that ``fit`` knows by name."""
    return loss is binary_loss or loss is _BY_NAME["bce"]


def own_loss(output: Any) -> torch.Tensor | None:
    """Returns the loss that a model computed itself, as Hugging Face's models do, or None."""
    is_mapping = isinstance(output, Mapping)
    found = output.get("loss") if is_mapping else getattr(output, "loss", None)
    if found is None and isinstance(output, torch.Tensor) and output.ndim == 0:
        found = output
    return found if isinstance(found, torch.Tensor) else None


def infer_loss(
    output: Any, target: Any, inputs: Any = None, *, is_first: bool = True
) -> LossFunction:
    """Returns the loss that the shapes and dtypes of output and target ask for.

    Args:
        output: What the model gave, [N, C, ...] or [N, ...].
        target: Whole numbers [N, ...] for classes, floats of the output's shape otherwise.
        inputs: What the model was called with, for the error.
        is_first: Whether the run has trained on no batch yet. Later ones say nothing by their
            values: targets mixed of two samples may all be of one by chance.

    Raises:
        ArgumentError: They fit no loss without ambiguity.
    """
    if isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor):
        if is_first:
            _check_is_not_one_hot(output, target)
        whole = not target.is_floating_point() and not target.is_complex()
        if not target.ndim and output.ndim and not (whole and output.numel() == 1):
            raise one_sample_error("target", target)
        if whole and output.ndim == target.ndim + 1 and output.shape[1] > 1:
            return functional.cross_entropy
        if whole and output.numel() == target.numel():
            return binary_loss
        if target.is_floating_point() and _same_values(output, target):
            return _BY_NAME["mse"]
        if target.is_floating_point() and output.shape == target.shape:
            return _BY_NAME["mse"]
    raise _no_loss_error(output, target, inputs)


def _no_loss_error(output: Any, target: Any, inputs: Any) -> ArgumentError:
    hint = "Pass loss=, a function of (output, target) or a name."
    if output is None:
        message = "The model returned nothing."
        return ArgumentError(message, argument="model", hint="Let its forward return the output.")
    if (
        isinstance(target, list | tuple)
        and target
        and all(isinstance(each, str) for each in target)
    ):
        message = f"The targets are text, {target[0]!r} for example."
        hint = "Let the data give each class as a number, from 0 on."
        return ArgumentError(message, argument="data", hint=hint)
    if isinstance(output, tuple | list):
        message = f"The model returned a {form_of(output)} of {len(output)}."
        hint = "Pass loss=, a function of (output, target) that takes what it needs: output[0]."
        return ArgumentError(message, argument="loss", hint=hint)
    if isinstance(target, int | float):
        return one_sample_error("target", target)
    if target is None:
        message = f"The batches hold no target to compare the output of {form_of(output)} with."
        hint = "Let each batch be (input, target); arrays are a tuple, (x, y), and not a list."
        return ArgumentError(message, argument="data", hint=hint)
    if isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor):
        hint = f"{hint_on_target(output, target)} {hint}".strip()
    message = f"No loss fits an output of {form_of(output)} and a target of {form_of(target)}."
    if isinstance(inputs, tuple):
        message += " The target is a batch's last part; all before it are inputs of the model."
        hint += " Weights of samples are for a loop of your own over colabkit.Run."
    return ArgumentError(message, argument="loss", hint=hint)


def binary_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of logits, for targets of 0 and 1."""
    return functional.binary_cross_entropy_with_logits(
        output, _shaped(target, output).to(output.dtype)
    )


def _check_is_not_one_hot(output: torch.Tensor, target: torch.Tensor) -> None:
    """Raises ArgumentError for classes as rows of 0 and 1, which also look like several labels."""
    if output.shape != target.shape or output.ndim != 2 or output.shape[1] < 2:
        return
    if len(target) < _ROWS_TO_TELL or target.is_complex():
        return
    if bool(((target == 0) | (target == 1)).all() and (target.sum(1) == 1).all()):
        message = f"The targets of {form_of(target)} look like one class of each sample, one-hot."
        hint = (
            'If so, pass y.argmax(1). If not, pass loss="bce" for several labels at once, or'
            ' loss="mse" for numbers.'
        )
        raise ArgumentError(message, argument="loss", hint=hint)


def _same_values(output: torch.Tensor, target: torch.Tensor) -> bool:
    # [N, 1] against [N] would broadcast to [N, N] without a word.
    return output.numel() == target.numel() and len(output) == len(target)


def _shaped(target: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    if _same_values(output, target):
        return target.reshape(output.shape)
    if target.shape != output.shape:  # [N, 1] against [N, 3], too, would broadcast
        raise shapes_error(output, target)
    return target
