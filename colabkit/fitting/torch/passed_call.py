"""What a checkpoint notes of a call's settings, to say at a resume what is passed otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from colabkit.fitting.torch.code_marks import code_mark
from colabkit.frameworks.users_own import is_users_module

if TYPE_CHECKING:
    from torch import nn

    from colabkit.fitting.torch.step import TrainConfig


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Returns what decides a step and what an epoch is evaluated by, as words that can be shown.

    Marks of code, which are none, stand in lists.
    """
    schedule = config.schedule
    unit = "step" if schedule.per_step else "epoch"
    return {
        "accumulate": config.accumulate,
        "clip_grad_norm": config.clip_grad_norm or "none",
        "loss": [code_mark(config.loss)],
        "precision": config.precision.name,
        "schedule": "none" if schedule.scheduler is None else f"per {unit}",
        "the model's forward": _forwards_of(config.model),
        "metrics": ", ".join(config.metrics.names) or "none",
        **config.evaluation,
    }


def evaluation_of(options: Any) -> dict[str, Any]:
    """Returns what options of ``fit`` say of the evaluation after each epoch."""
    validates = options.validation_data is not None
    return {
        "validation_data": "passed" if validates else "none",
        "eval_every": options.eval_every,
        "monitor": options.for_run(validates=validates).monitor or "none",
    }


def _forwards_of(model: nn.Module) -> list[str]:
    kinds = {type(each) for each in model.modules()}
    return sorted(code_mark(each.forward) for each in kinds if is_users_module(each.__module__))
