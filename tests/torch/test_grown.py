"""What training makes, keeps beside the model or puts into it: it goes on, or is named."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn.utils import parametrizations

import colabkit
from colabkit.errors import StateError
from tests.torch.cases import arrays
from tests.torch.test_restored import assert_resumes_exactly, hashes, network, trained


class Late(nn.Module):
    """Registers buffers and a weight at its first batch, under names that were None or absent."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("mean", None)
        self.register_parameter("gain", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            self.mean = x.mean(0)
            self.register_buffer("largest", x.amax(0))
            self.gain = nn.Parameter(1 + x.std(0), requires_grad=False)
        self.mean.lerp_(x.mean(0), 0.1)
        self.largest = torch.maximum(self.largest, x.amax(0))
        return self.body((x - self.mean) * self.gain / self.largest)


def test_what_the_first_batch_registers_goes_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Late()}, tmp_path)


class Second(torch.optim.Optimizer):
    """Keeps sums of squares in double, in a list and in a dict, as Shampoo and SOAP do."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                flat = torch.zeros(parameter.numel(), dtype=torch.double)
                state.update(sums=[flat, {"first": flat.clone()}], count=(0, torch.zeros(1)))
            wide = parameter.grad.double().reshape(-1)
            state["sums"][0].add_(wide.square())
            state["sums"][1]["first"].lerp_(wide, 0.1)
            state["count"] = (state["count"][0] + 1, state["count"][1] + 1 / 3)
            step = state["sums"][1]["first"] / state["sums"][0].sqrt().add(1e-3)
            parameter.sub_(0.1 * step.reshape(parameter.shape).float())


def test_wide_moments_in_lists_and_dicts_keep_their_bits(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        return {"model": model, "optimizer": Second(model.parameters())}

    assert_resumes_exactly(make, tmp_path)


class Both(torch.optim.Optimizer):
    """Two optimizers in a dict: one for matrices, one for the rest."""

    def __init__(self, model: nn.Module) -> None:
        every = list(model.parameters())
        super().__init__(every, {"lr": 0.1})
        matrices = [p for p in every if p.ndim > 1]
        self.parts = {
            "matrices": torch.optim.SGD(matrices, lr=0.1, momentum=0.9),
            "rest": torch.optim.Adam([p for p in every if p.ndim < 2], lr=0.01),
        }

    def step(self, closure: Any = None) -> None:
        for part in self.parts.values():
            part.step()


def test_optimizers_in_a_dict_go_on(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        return {"model": model, "optimizer": Both(model)}

    assert_resumes_exactly(make, tmp_path)


def masters(folder: Path, *, epochs: int) -> colabkit.Run:
    """Weights in bfloat16; the optimizer trains wide copies of them that only a list holds."""
    model = network().bfloat16()
    wide = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.Adam(wide, lr=0.01)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
    for _ in run.epochs(epochs):
        for x, y in run.batches(arrays(), batch_size=8):
            model.zero_grad()
            nn.functional.cross_entropy(model(x.bfloat16()).float(), y).backward()
            for master, parameter in zip(wide, model.parameters(), strict=True):
                master.grad = parameter.grad.float()
            optimizer.step()
            with torch.no_grad():
                for master, parameter in zip(wide, model.parameters(), strict=True):
                    parameter.copy_(master)
    return run


def test_wide_copies_of_narrow_weights_go_on(tmp_path):
    masters(tmp_path / "alone", epochs=3)
    for epochs in (1, 2, 3):
        run = masters(tmp_path / "resumed", epochs=epochs)
        assert not run.verdict.reasons
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "alone")


class Adapted(nn.Module):
    """A layer and a correction of low rank."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


class PuttingIn:
    """Changes the last layer in the second epoch."""

    def __init__(self, model: nn.Sequential, kind: str) -> None:
        self.model, self.kind = model, kind

    def on_epoch_begin(self, run: Any, epoch: int) -> None:
        if epoch != 1:
            return
        if self.kind == "adapter":
            self.model[3] = Adapted(self.model[3])
        else:
            parametrizations.weight_norm(self.model[3])


@pytest.mark.parametrize(
    ("kind", "named"), [("adapter", "model.3, model.3.base"), ("norm", "model.3.parametrizations")]
)
def test_layers_that_are_put_in_in_mid_run_are_named_before_a_resume_needs_them(
    kind, named, tmp_path
):
    def train(epochs: int) -> colabkit.History:
        model = network()
        return colabkit.fit(
            model, arrays(), tmp_path, callbacks=[PuttingIn(model, kind)], epochs=epochs,
            save_every=2, batch_size=16, progress=False,
        )  # fmt: skip

    (said,) = train(3).verdict.reasons
    assert said.startswith(named)
    assert "must be so before the run is made" in said
    with pytest.raises(StateError, match=r"changed again before the run"):
        train(4)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_normed_weights_go_on_exactly(norm, tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        norm(model[0])
        return {"model": model}

    assert_resumes_exactly(make, tmp_path)


def test_an_image_that_is_trained_goes_on(tmp_path):
    def train(folder: Path, steps: int) -> torch.Tensor:
        torch.manual_seed(0)
        image = torch.rand(5, 6).requires_grad_()
        model, optimizer = network(), torch.optim.Adam([image], lr=0.1)
        run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
        for _ in itertools.islice(run.items(range(9)), steps):
            optimizer.zero_grad()
            model(image).square().sum().backward()
            optimizer.step()
        return image.detach()

    alone = train(tmp_path / "alone", 9)
    with pytest.raises(ZeroDivisionError):
        breaking(train, tmp_path / "broken")
    assert torch.equal(train(tmp_path / "broken", 9), alone)


def breaking(train: Any, folder: Path) -> None:
    train(folder, 4)
    raise ZeroDivisionError


def test_a_model_trained_without_being_given_is_named(tmp_path):
    trained(tmp_path / "warm", {"model": network(), "epochs": 1})
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(tmp_path / "run", optimizer=optimizer, progress=False)
    assert "only their values are saved" in str(run.verdict)


def tracked(folder: Path, *, ends_at: int | None = None) -> Any:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tracker = torchmetrics.MetricTracker(torchmetrics.MeanMetric(), maximize=False)
    objects = {"model": model, "optimizer": optimizer, "tracker": tracker}
    run = colabkit.Run(folder, save_every=1, progress=False, **objects)
    for _ in run.epochs(3):
        tracker.increment()
        for x, y in run.batches(arrays(), batch_size=11):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            tracker.update(loss.detach())
            if run.step == ends_at:
                run.flush()
                raise KeyboardInterrupt
    assert not run.verdict.reasons
    return tracker


@pytest.mark.parametrize("ends_at", [1, 6, 9])
def test_a_list_of_metrics_that_grows_with_each_epoch_goes_on(ends_at, tmp_path):
    alone = tracked(tmp_path / "alone")
    with pytest.raises(KeyboardInterrupt):
        tracked(tmp_path / "broken", ends_at=ends_at)
    again = tracked(tmp_path / "broken")
    assert again.n_steps == alone.n_steps == 3
    torch.testing.assert_close(again.compute_all(), alone.compute_all(), rtol=0, atol=0)
