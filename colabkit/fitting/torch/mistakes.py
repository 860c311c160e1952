"""What an error that PyTorch raises on a batch says of the data, and what to do about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from colabkit.errors import ArgumentError

_OF_DTYPES = ("dtype", "scalar type", "input type")
_CHANNELS = (1, 3, 4)
_BY_NUMBER = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
)


_FUNCTIONS_BY_NUMBER = (
    nn.functional.mse_loss,
    nn.functional.l1_loss,
    nn.functional.smooth_l1_loss,
    nn.functional.huber_loss,
    nn.functional.binary_cross_entropy,
    nn.functional.binary_cross_entropy_with_logits,
)


def form_of(value: Any) -> str:
    """Returns the dtype and the shape of a tensor: "float32 [32, 4]"; else the type's name."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}".removeprefix("torch.")
    return type(value).__name__


def check_loss(loss: Any) -> None:
    """Raises ArgumentError for what cannot be trained on: no tensor, or one of many numbers."""
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return
    message = f"The loss gave {form_of(loss)}, and not one number as a tensor."
    hint = "Let it return a mean: reduction='mean', or .mean() at its end; not .item()."
    raise ArgumentError(message, argument="loss", hint=hint)


def mistake_in_inputs(error: Exception, model: nn.Module, inputs: Any) -> ArgumentError | None:
    """Returns what is wrong with the inputs that a model refused, None where that is not known."""
    said = str(error)
    if isinstance(error, NotImplementedError) and 'required "forward"' in said:
        message = f"{type(model).__name__} has no forward, so fit cannot call it."
        hint = (
            "Give it one; or write the loop with colabkit.Run, for a LightningModule with loss ="
            " module.training_step(batch, number)."
        )
        return ArgumentError(message, argument="model", hint=hint)
    if (name := _on_its_side(inputs)) is not None:
        message = f"{name} came as a list of {len(inputs[name])} tensors, one for each place: its"
        hint = (
            "Let the dataset give tensors: data.with_format('torch') of a Hugging Face dataset,"
            " torch.tensor(...) in a __getitem__; or pass a DataLoader with a collate_fn."
        )
        return _error(f"{message} samples are lists of numbers.", hint)
    if isinstance(error, ValueError):
        return _mistake_of_one(said, next(_tensors_in(inputs), 0))
    if isinstance(error, TypeError):
        return _mistake_in_count(model, inputs) or _mistake_in_kind(inputs)
    wanted = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    name = f"{wanted}".removeprefix("torch.")
    for tensor in _tensors_in(inputs):
        message = f"The model cannot take a batch of {form_of(tensor)}: "
        if "indices" in said and tensor.is_floating_point():
            return _error(message + "it looks up whole numbers.", "Pass x.long().")
        if tensor.dtype != wanted and any(sign in said.lower() for sign in _OF_DTYPES):
            scaled = " / 255 for images" if tensor.dtype == torch.uint8 else ""
            hint = f'Pass x.to(torch.{name}){scaled}; of a NumPy array, x.astype("{name}"){scaled}.'
            return _error(message + f"its weights are {name}.", hint)
        if "channels" in said and tensor.ndim == 4 and tensor.shape[-1] in _CHANNELS:
            hint = "If they are images [N, H, W, C], pass x.permute(0, 3, 1, 2); NumPy: transpose."
            return _error(message + "PyTorch's images are [N, C, H, W].", hint)
        if "channels" in said and tensor.ndim == 3:
            hint = "If they are images of one channel, pass x.unsqueeze(1); of NumPy, x[:, None]."
            return _error(message + "PyTorch's images are [N, C, H, W].", hint)
    return None


def _mistake_of_one(said: str, value: Any) -> ArgumentError | None:
    if "Expected more than 1 value per channel" in said:
        message = f"BatchNorm cannot train on one sample alone: the batch is {form_of(value)}."
        hint = "Pass another batch_size, or a DataLoader with drop_last=True, for the last batch."
        return _error(message, hint)
    return one_sample_error("input", value) if re.search(r"got \dD input", said) else None


def one_sample_error(what: str, value: Any) -> ArgumentError:
    """Returns the error for data that gives single samples where batches are wanted."""
    said = repr(value) if isinstance(value, int | float) else form_of(value)
    message = f"The {what} is {said}: one sample at a time, it seems, and no batch."
    return _error(message, "Pass DataLoader(data, batch_size=32, shuffle=True), which makes them.")


def _mistake_in_kind(inputs: Any) -> ArgumentError | None:
    """Returns the error for inputs that are no tensors, as samples are before they are batched."""
    values = inputs.values() if isinstance(inputs, Mapping) else (inputs,)
    for value in [*values, *(inputs if isinstance(inputs, tuple) else ())]:
        is_row = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
        if isinstance(value, np.ndarray | np.generic | int | float) or is_row:
            message = f"The data gives {type(value).__name__} where the model takes a tensor."
            hint = (
                "Of single samples, DataLoader(data, batch_size=32, shuffle=True) makes batches of"
                " tensors; of a batch, torch.as_tensor(x) makes one."
            )
            return _error(message, hint)
    return None


def _mistake_in_count(model: nn.Module, inputs: Any) -> ArgumentError | None:
    """Returns the error for a batch of more or fewer inputs than ``forward`` takes."""
    several = isinstance(inputs, tuple | list) and not hasattr(inputs, "_fields")
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return None
    try:
        if isinstance(inputs, Mapping):
            signature.bind(**inputs)
        else:
            signature.bind(*(inputs if several else (inputs,)))
    except TypeError as error:
        name = type(model).__name__
        if isinstance(inputs, Mapping):
            if not inputs:
                message = f"A batch has nothing for {name}, whose inputs must be tensors: {error}."
                hint = "Text is tokenized first, and each column of the data is a number or a list."
                return _error(message, hint)
            message = f"A batch has the names {', '.join(map(str, inputs))}; {name}: {error}."
            return _error(message, "Let the data give the names that forward takes.")
        count = len(inputs) if several else 1
        message = f"A batch gives {name} {count} inputs, all but its last part: {error}."
        hint = (
            "If the batch has two targets, let it be (x, (y1, y2)) and pass loss=, a function of"
            " (output, (y1, y2)). Weights of samples, and more: a loop with colabkit.Run."
        )
        return _error(message, hint)
    return None


def mistake_in_target(
    error: Exception, output: Any, target: Any, loss: Any = None
) -> ArgumentError | None:
    """Returns what is wrong with the targets that a loss refused, None where that is not known."""
    if isinstance(output, tuple | list) and isinstance(error, AttributeError | TypeError):
        message = f"The model returned a {form_of(output)} of {len(output)}, and the loss cannot"
        hint = "Pass loss=, a function of (output, target) that takes what it needs: output[0]."
        return ArgumentError(f"{message} take that.", argument="loss", hint=hint)
    if isinstance(target, int | float) and isinstance(error, AttributeError | TypeError):
        return one_sample_error("target", target)
    if not (isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)):
        return None
    said = str(error)
    if "out of bounds" in said and output.ndim > 1:
        classes = output.shape[1]
        message = (
            f"The targets hold classes {int(target.min())} to {int(target.max())}, and the model"
            f" gives {classes} outputs, for 0 to {classes - 1}."
        )
        hint = "Number the classes from 0, and give the last layer an output for each."
        return _error(message, hint)
    if isinstance(error, ArgumentError):
        return None
    if target.shape != output.shape and _compares_numbers(loss):
        return shapes_error(output, target)
    hint = hint_on_target(output, target)
    if hint and any(sign in said for sign in ("target", "scalar type", "Long")):
        message = f"The loss cannot take targets of {form_of(target)} for {form_of(output)}."
        return _error(message, hint)
    return None


def shapes_error(output: torch.Tensor, target: torch.Tensor) -> ArgumentError:
    """Returns the error for a loss that compares number by number, and has not as many of both."""
    message = (
        f"The loss compares {form_of(output)}, the output, with {form_of(target)}, the target,"
        " number by number: they must have one shape."
    )
    hint = "Let the model give as many numbers for each sample as the target has."
    if output.ndim == target.ndim + 1 or (target.ndim == output.ndim and target.shape[-1] == 1):
        hint = (
            'For one class of each sample pass loss="cross_entropy"; for one number, let the last'
            " layer have one output."
        )
    return ArgumentError(message, argument="loss", hint=hint)


def _compares_numbers(loss: Any) -> bool:
    """Whether a loss of PyTorch's compares each number of the output with one of the target."""
    return isinstance(loss, _BY_NUMBER) or any(loss is each for each in _FUNCTIONS_BY_NUMBER)


def hint_on_target(output: torch.Tensor, target: torch.Tensor) -> str:
    """Returns what makes classes of a target, "" where nothing simple does."""
    if output.ndim < 2 or output.shape[1] == 1:
        return ""
    if target.ndim == output.ndim and target.shape[1] == 1:
        whole = "" if target.dtype == torch.int64 else ".long()"
        return f"For one class of each sample pass y[:, 0]{whole}."
    if target.shape == output.shape:
        return "For one class of each sample pass y.argmax(1)."
    if target.ndim == output.ndim - 1 and target.dtype != torch.int64:
        return 'For one class of each sample pass y.long(); of a NumPy array, y.astype("int64").'
    return ""


def _on_its_side(inputs: Any) -> str | None:
    """Returns the name of a list of numbers that PyTorch's collate function has transposed."""
    if not isinstance(inputs, Mapping):
        return None
    for name, value in inputs.items():
        if isinstance(value, list) and value and all(isinstance(t, torch.Tensor) for t in value):
            return str(name)
    return None


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(each)


def _error(message: str, hint: str) -> ArgumentError:
    return ArgumentError(message, argument="data", hint=hint)
