"""Averages of weights that a loop evaluates in their place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Average:
    """Means of the weights, as people write them; what they replace is no part of their state.

    Args:
        model: The model.
        counted: Whether PyTorch counts what is written into it; through ``.data`` it does not.
    """

    def __init__(self, model: nn.Module, *, counted: bool = False) -> None:
        self.model, self.counted = model, counted
        self.means = [p.detach().clone() for p in model.parameters()]
        self.own: list[torch.Tensor] = []

    def update(self) -> None:
        for mean, weight in zip(self.means, self.model.parameters(), strict=True):
            mean.lerp_(weight.detach(), 0.1)

    def put(self) -> None:
        self.own = [p.detach().clone() for p in self.model.parameters()]
        self._write(self.means)

    def take(self) -> None:
        self._write(self.own)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        for value, weight in zip(values, self.model.parameters(), strict=True):
            (weight if self.counted else weight.data).copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mean, then in zip(self.means, state["means"], strict=True):
            mean.copy_(then)
