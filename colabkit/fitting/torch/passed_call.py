"""What a checkpoint notes of a call's settings, to say at a resume what is passed otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from colabkit.fitting.passed_callbacks import settings_of_callbacks
from colabkit.frameworks.code_marks import code_mark

if TYPE_CHECKING:
    from colabkit.fitting.torch.options import TorchOptions
    from colabkit.fitting.torch.step import TrainConfig


def settings_of(config: TrainConfig, options: TorchOptions) -> dict[str, Any]:
    """Returns what decides a step, and what comes after each epoch, as words that can be shown.

    Marks of code, which are none, stand in lists.
    """
    schedule, loss = config.schedule, config.loss
    # The run says which one came or went.
    times = {"schedule": "per step" if schedule.per_step else "per epoch"}
    return {
        "accumulate": config.accumulate,
        "clip_grad_norm": config.clip_grad_norm or "none",
        "loss": [code_mark(None if isinstance(loss, nn.Module) else loss)],
        "precision": config.precision.name,
        **({} if schedule.scheduler is None else times),
        "metrics": ", ".join(config.metrics.names) or "none",
        "the metrics' code": [code_mark(each) for each in config.metrics.functions],
        "validation_data": "none" if options.validation_data is None else "passed",
        "eval_every": options.eval_every,
        **settings_of_callbacks(options.callbacks),
    }
