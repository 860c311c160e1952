"""The arguments of ``fit`` for Keras models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.fitting.options import FitOptions
from colabkit.runs.checks import require_count, seed_of


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KerasOptions(FitOptions):
    """The arguments of ``fit`` that a Keras model takes besides model, data and folder."""

    sample_weight: Any = None
    class_weight: Mapping[int, float] | None = None
    shuffle: bool = True
    steps_per_epoch: int | None = None
    validation_split: float = 0.0
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    validation_freq: int | Sequence[int] = 1
    verbose: str | int = "auto"
    initial_epoch: int = 0

    def __post_init__(self) -> None:
        FitOptions.__post_init__(self)
        for name in ("steps_per_epoch", "validation_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        if self.initial_epoch != 0:
            require_count("initial_epoch", self.initial_epoch)
        if self.initial_epoch >= self.epochs:
            message = (
                f"initial_epoch is {self.initial_epoch}, and epochs is {self.epochs}: none is left."
            )
            hint = "epochs is the number of the last one, not how many there are to be."
            raise ArgumentError(message, argument="initial_epoch", hint=hint)
        if self.verbose not in {"auto", 0, 1, 2}:
            message = f"verbose is {self.verbose!r}."
            raise ArgumentError(message, argument="verbose", hint='Pass "auto", 0, 1 or 2.')

    @property
    def run_seed(self) -> int:
        """The seed that every random draw of the run follows from."""
        return seed_of(self.seed)

    def validations_until(self, epoch: int) -> int:
        """Returns how many of the first epochs end with a validation."""
        often = self.validation_freq
        if isinstance(often, int):
            return epoch // often
        return sum(number <= epoch for number in set(often))
