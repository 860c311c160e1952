"""The calls of a step that leave out what a small model has no use for give PyTorch's own bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from colabkit.fitting.torch import fused_adam
from colabkit.fitting.torch.lean_calls import backward, backward_with, step_of

KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
USUAL = {
    "as it is made": {},
    "other settings": {"lr": 0.1, "betas": (0.7, 0.8), "eps": 1e-3, "weight_decay": 0.2},
}
UNUSUAL = {
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "not fused": {"fused": False},
    "a rate in a tensor": {"lr": torch.tensor(0.01)},
}


def trained(kind: Any, options: dict[str, Any], *, lean: bool) -> tuple[list[torch.Tensor], int]:
    """Returns weights and moments after some steps, and how many of them went straight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2].parameters()}]
    optimizer = kind(groups, **{"fused": True, **options})
    step: Callable[[], object] = step_of(optimizer) if lean else optimizer.step
    straight = 0
    for number in range(12):
        loss = model(torch.randn(5, 6)).square().mean()
        backward(loss) if lean else loss.backward()
        if number == 4:
            model[0].bias.grad = None
        if number == 7:
            optimizer.param_groups[0]["lr"] = 0.3
        if number == 9:
            moments = optimizer.state[model[2].weight]
            moments["exp_avg"] = moments["exp_avg"] * 2
        calls = [fused_adam._arguments(g, optimizer.state) for g in optimizer.param_groups]
        straight += None not in calls
        step()
        model.zero_grad()
    state = (value for each in optimizer.state.values() for value in each.values())
    return [*model.parameters(), *state], straight


@pytest.mark.parametrize("options", [*USUAL.values(), *UNUSUAL.values()], ids=[*USUAL, *UNUSUAL])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_step_has_the_bits_of_the_optimizers_own(kind, options):
    plain, _ = trained(kind, options, lean=False)
    ours, straight = trained(kind, options, lean=True)
    assert all(torch.equal(*pair) for pair in zip(plain, ours, strict=True))
    # The first makes the moments.
    assert straight == (11 if options in USUAL.values() else 0)


@pytest.mark.skipif(
    "decoupled_weight_decay" not in torch.optim.Adam([torch.ones(1)]).defaults,
    reason="this PyTorch has no such setting",
)
def test_adam_may_decay_as_adamw_does():
    options = {"weight_decay": 0.2, "decoupled_weight_decay": True}
    plain, _ = trained(torch.optim.Adam, options, lean=False)
    ours, straight = trained(torch.optim.Adam, options, lean=True)
    assert straight == 11
    assert all(torch.equal(*pair) for pair in zip(plain, ours, strict=True))


def test_an_optimizer_that_does_more_than_its_kernel_takes_its_own_steps(monkeypatch):
    class More(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            self.param_groups[0]["params"][0].data.add_(1)

    assert not fused_adam.can_be_straight(More([torch.ones(1)], fused=True))
    # Another release of PyTorch, whose own class does more.
    monkeypatch.setattr(fused_adam, "_KINDS", (More,))
    assert not fused_adam.can_be_straight(More([torch.ones(1)], fused=True))
    assert fused_adam._agrees(torch.optim.AdamW)


def test_gradients_that_fused_kernels_refuse_are_told_by_the_optimizer():
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.AdamW(table.parameters(), fused=True)
    table.weight.grad = torch.ones(4, 2)
    step_of(optimizer)()
    table.zero_grad()
    backward(table(torch.tensor([1])).sum())
    with pytest.raises(RuntimeError, match="sparse"):
        step_of(optimizer)()


def test_weights_of_several_dtypes_step_as_ever():
    weights = [
        [nn.Parameter(torch.ones(3, dtype=d)) for d in (torch.float64, torch.float32)]
        for _ in range(2)
    ]
    makes = [torch.optim.AdamW(each, fused=True) for each in weights]
    for step, each in zip((makes[0].step, step_of(makes[1])), weights, strict=True):
        for _ in range(3):
            for weight in each:
                weight.grad = torch.full_like(weight, 0.3)
            step()
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_who_takes_backward_over_is_asked(monkeypatch):
    weight = torch.ones(3, requires_grad=True)
    calls: list[Any] = []
    plain = torch.autograd.backward
    monkeypatch.setattr(
        torch.autograd, "backward", lambda loss: calls.append(loss.item()) or plain(loss)
    )
    backward(weight.sum())
    assert calls == [3.0]
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda weight: weight, "only for scalar"),
        (lambda weight: weight.detach().sum(), "does not require grad"),
        (lambda weight: weight.sum() * 1j, "only for real"),
    ],
)
def test_what_has_no_gradient_is_told_as_pytorch_does(loss, said):
    with pytest.raises(RuntimeError, match=said):
        backward(loss(torch.ones(3, requires_grad=True)))


@pytest.mark.parametrize("has_gradient", [True, False], ids=["added to", "first"])
def test_given_gradients_reach_leaves_and_their_hooks_as_by_torchs_own_call(has_gradient):
    found = []
    for run in (torch.autograd.backward, backward_with):
        leaves = [nn.Parameter(torch.linspace(0, 1, 5)), nn.Parameter(torch.zeros(2, 3))]
        seen: list[torch.Tensor] = []
        leaves[1].register_post_accumulate_grad_hook(lambda each, seen=seen: seen.append(each.grad))
        if has_gradient:
            leaves[0].grad = torch.full((5,), 0.1)
        run(leaves, [torch.linspace(3, 4, 5), torch.full((2, 3), 1 / 3)])
        found.append([*(each.grad for each in leaves), *seen])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    assert len(found[0]) == 3
