"""The arguments of ``fit`` for PyTorch modules."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import torch

from colabkit.errors import ArgumentError
from colabkit.fitting.options import FitOptions
from colabkit.fitting.torch.microbatch import require_size
from colabkit.fitting.torch.schedules import Length, Schedule, make_schedule
from colabkit.fitting.torch.weighing import Clock
from colabkit.runs.checks import require_count


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TorchOptions(FitOptions):
    """The arguments of ``fit`` that a module takes besides model, data and folder."""

    loss: Any
    optimizer: Any
    lr: float | None
    weight_decay: float | None
    scheduler: Any
    warmup: float | None
    metrics: Any
    eval_every: int
    precision: Any
    microbatch: int | str | None
    accumulate: int
    clip_grad_norm: float | None
    device: Any
    devices: int | str | None
    # Set by what devices="auto" comes to: what tells the time for a look whether several pay, and
    # whether they do not.
    weighs_by: Clock | None = None
    stays_on_one: bool = False

    def __post_init__(self) -> None:
        FitOptions.__post_init__(self)
        for name in ("accumulate", "eval_every"):
            require_count(name, getattr(self, name))
        for name in ("lr", "weight_decay", "warmup"):
            _require_amount(name, getattr(self, name))
        if self.microbatch is not None and self.microbatch != "auto":
            require_size(self.microbatch)
        norm = self.clip_grad_norm
        if norm is not None and not (isinstance(norm, int | float) and norm > 0):
            raise ArgumentError.of("clip_grad_norm", norm, "Pass a number above 0.")

    @property
    def optimizer_settings(self) -> dict[str, float]:
        """What an optimizer that is made here is given."""
        given = {"lr": self.lr, "weight_decay": self.weight_decay}
        return {name: value for name, value in given.items() if value is not None}

    def schedule_for(self, optimizer: torch.optim.Optimizer, feed: Any, *, epochs: int) -> Schedule:
        """Returns the schedule for an optimizer, as long as so many epochs."""
        length = Length(epochs, feed.length, self.accumulate)
        return make_schedule(self.scheduler, optimizer, length, warmup=self.warmup)


def _require_amount(name: str, value: Any) -> None:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if value is not None and not (is_number and value >= 0):
        hint = "Pass a number from 0 on."
        if isinstance(value, list | tuple | slice):
            hint = (
                "Pass one number from 0 on; several are for groups of parameters: optimizer="
                'torch.optim.AdamW([{"params": ..., "lr": 1e-4}, ...]).'
            )
        raise ArgumentError.of(name, value, hint)
