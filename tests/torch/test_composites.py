"""Tensors made of others come back as what they were: quantized moments, and quantized weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.torch.test_restored import assert_resumes_exactly, network
from tests.torch.two_part import TwoPart


class Quantized(torch.optim.Optimizer):
    """Momentum in 8 bits."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            before = self.state[parameter].get("momentum")
            whole = torch.zeros_like(parameter) if before is None else before.whole()
            whole = whole.mul(0.9).add(parameter.grad)
            self.state[parameter]["momentum"] = TwoPart.of(whole)
            parameter.add_(whole, alpha=-0.05)


def test_moments_in_eight_bits_go_on(tmp_path):
    kept = []

    def make() -> dict[str, Any]:
        model = network()
        kept.append(Quantized(model.parameters()))
        return {"model": model, "optimizer": kept[-1]}

    assert_resumes_exactly(make, tmp_path)
    alone, _, resumed = ([each["momentum"] for each in o.state.values()] for o in kept)
    for one, other in zip(alone, resumed, strict=True):
        assert type(other) is TwoPart
        assert torch.equal(one.codes, other.codes)
        assert torch.equal(one.scale, other.scale)


class Based(nn.Module):
    """A frozen base in 8 bits and a head that is trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.base = nn.Parameter(TwoPart.of(torch.randn(8, 6)), requires_grad=False)
        self.head = network(last=nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + (x @ self.base.whole().t() @ self.base.whole()) / 8)


def test_a_quantized_base_goes_on_and_is_itself_again(tmp_path):
    def make() -> dict[str, Any]:
        made.append(Based())
        return {"model": made[-1]}

    made: list[Based] = []
    assert_resumes_exactly(make, tmp_path)
    assert all(type(model.base.data) is TwoPart for model in made)
    assert torch.equal(made[0].base.codes, made[2].base.codes)
