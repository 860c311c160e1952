"""What a call of ``fit`` with a module asks for that fit does not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.options import TorchOptions
from colabkit.frameworks.torch.prepared import batches_gathered


def check_is_no_pair_in_a_list(data: object) -> None:
    """Raises ArgumentError for [x, y], which would be read as two batches without targets."""
    if type(data) is not list or len(data) != 2:
        return
    if not all(isinstance(each, torch.Tensor | np.ndarray) and each.ndim for each in data):
        return
    x, y = data
    if len(x) == len(y) > 1 and (x.ndim, x.dtype) != (y.ndim, y.dtype):
        message = "data is a list of two arrays, which would be taken for two batches."
        raise ArgumentError(message, argument="data", hint="Pass a tuple: (x, y).")


def check_call(model: nn.Module, data: Any, options: TorchOptions) -> None:
    """Raises ArgumentError for what another library's trainer would do, and fit does not."""
    _check_trains_by_forward(model, options.loss)
    _check_gathers_as_told(options, data)


def _check_trains_by_forward(model: nn.Module, loss: Any) -> None:
    """Raises ArgumentError for a module whose training is written in it, and is not forward."""
    if loss is not None or all(each.__name__ != "LightningModule" for each in type(model).__mro__):
        return
    message = f"{type(model).__name__} is a LightningModule, whose training_step fit does not call."
    hint = (
        "Train it with its Trainer and colabkit.integrations.lightning.KeepCallback; or write the"
        " loop with colabkit.Run and loss = module.training_step(batch, run.batch); or, to train"
        " its forward alone, pass loss= and optimizer=."
    )
    raise ArgumentError(message, argument="model", hint=hint)


def _check_gathers_as_told(options: TorchOptions, data: Any) -> None:
    """Raises ArgumentError where Accelerate was told to gather batches, and fit is not."""
    asked = batches_gathered(options.optimizer, options.scheduler, data)
    if asked in {1, options.accumulate}:
        return
    message = (
        f"The Accelerator was made with gradient_accumulation_steps={asked}, and accumulate is"
        f" {options.accumulate}: fit gathers gradients by itself, and knows only the latter."
    )
    hint = (
        f"Pass accumulate={asked} to fit; or loop over colabkit.Run with"
        " accelerator.accumulate(model)."
    )
    raise ArgumentError(message, argument="accumulate", hint=hint)
