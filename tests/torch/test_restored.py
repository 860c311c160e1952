"""What a resume brings back of a user's objects, beyond what a plain network holds."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.torch.cases import SAMPLES, arrays

QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "batch_size": 8, "epochs": 3}
MID_EPOCH, EPOCHS_END = 9, 12


class Interrupting:
    """Presses Ctrl-C in one of six batches of an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def hashes(folder: Path) -> dict[str, str]:
    newest = colabkit.checkpoints(folder)[0].hashes
    return {name: told for name, told in newest.items() if not name.startswith("run.")}


def trained(folder: Path, made: dict[str, Any], *callbacks: Any) -> None:
    model, data = made.pop("model"), made.pop("data", arrays())
    every = [*made.pop("callbacks", ()), *callbacks]
    colabkit.fit(model, data, folder, callbacks=every, **{**QUIET, **made})


def assert_resumes_exactly(
    make: Callable[[], dict[str, Any]], tmp_path: Path, *, at: int = MID_EPOCH
) -> None:
    trained(tmp_path / "alone", make())
    trained(tmp_path / "broken", make(), Interrupting(at))
    trained(tmp_path / "broken", make())
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "alone")


def network(*, last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), last or nn.Linear(8, 3))


def test_weights_in_channels_last_go_on_with_their_own_moments_and_gradients(tmp_path):
    def make() -> dict[str, Any]:
        torch.manual_seed(11)
        model = nn.Sequential(nn.Unflatten(1, (3, 1, 2)), nn.Conv2d(3, 4, (1, 2)), nn.Flatten())
        return {"model": model.to(memory_format=torch.channels_last), "accumulate": 4}

    assert_resumes_exactly(make, tmp_path)


def test_a_scaler_takes_the_step_that_an_epochs_end_has_left_over(tmp_path):
    def make() -> dict[str, Any]:
        return {"model": network(), "precision": "fp16", "accumulate": 4, "clip_grad_norm": 1.0}

    assert_resumes_exactly(make, tmp_path, at=EPOCHS_END)


class Cooling(nn.Module):
    """Counts its own steps, as annealed losses and gates do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        return self.body(x) / (1 + self.steps)


def test_what_a_model_counts_in_plain_python_goes_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Cooling()}, tmp_path)


class Unfreezing:
    """Trains the first layer from the second epoch on, and its dropout no more."""

    def __init__(self, model: nn.Sequential) -> None:
        self.model = model
        self.model[0].requires_grad_(False)

    def on_epoch_begin(self, run: Any, epoch: int) -> None:
        if epoch == 1:
            self.model[0].requires_grad_(True)
        self.model[2].train(epoch == 0)


def test_layers_that_a_callback_unfreezes_or_switches_stay_so(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.Adam(model.parameters())
        return {"model": model, "optimizer": optimizer, "callbacks": [Unfreezing(model)]}

    assert_resumes_exactly(make, tmp_path)


def test_layers_frozen_between_two_sessions_stay_frozen(tmp_path):
    model = network()
    trained(tmp_path, {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)})
    again = network()
    again[0].requires_grad_(False)
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    more = {"model": again, "optimizer": optimizer, "epochs": 4}
    with pytest.raises(CheckpointMismatchError, match='phase="fine-tune"'):
        trained(tmp_path, dict(more))
    trained(tmp_path, {**more, "phase": "fine-tune"})
    assert torch.equal(again[0].weight, model[0].weight)
    assert not torch.equal(again[3].weight, model[3].weight)


class Centred(nn.Module):
    """A loss with a weight, a running mean and a count of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(3))
        self.steps = 0

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        with torch.no_grad():
            self.mean.mul_(0.9).add_(output.mean(0), alpha=0.1)
        loss = nn.functional.cross_entropy(output - self.mean, target)
        return loss * self.weight.exp() / self.steps


def test_a_loss_that_learns_and_counts_goes_on(tmp_path):
    def make() -> dict[str, Any]:
        model, loss = network(), Centred()
        optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()])
        return {"model": model, "loss": loss, "optimizer": optimizer}

    assert_resumes_exactly(make, tmp_path)


def test_the_same_loss_may_be_a_name_and_then_a_module(tmp_path):
    trained(tmp_path, {"model": network(), "loss": "cross_entropy", "epochs": 1})
    trained(tmp_path, {"model": network(), "loss": nn.CrossEntropyLoss()})
    assert colabkit.checkpoints(tmp_path)[0].epoch == 3


def begun(worker: int) -> None:
    assert isinstance(torch_data.get_worker_info().dataset, torch_data.TensorDataset)
    np.random.seed(worker)


def test_a_worker_init_fn_is_called_with_the_users_own_dataset(tmp_path):
    dataset = torch_data.TensorDataset(*arrays())
    data = torch_data.DataLoader(dataset, batch_size=8, num_workers=1, worker_init_fn=begun)
    trained(tmp_path, {"model": network(), "data": data, "epochs": 1})
    assert colabkit.checkpoints(tmp_path)[0].step == 6


class OrderedStream(torch_data.IterableDataset):
    """Keeps its order as a tensor, and hands its place out as it is."""

    def __init__(self) -> None:
        self.order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(3))
        self.place = [np.int64(0)]

    def __iter__(self) -> Any:
        x, y = arrays()
        while self.place[0] < SAMPLES:
            index = self.order[self.place[0]]
            self.place[0] += 1
            yield x[index], y[index]
        self.place[0] = np.int64(0)

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order.clone(), "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.place = state["order"], state["place"]


def test_a_stream_whose_state_is_live_and_holds_tensors_goes_on(tmp_path):
    def make() -> dict[str, Any]:
        data = torch_data.DataLoader(OrderedStream(), batch_size=8)
        return {"model": network(), "data": data}

    assert_resumes_exactly(make, tmp_path)


class Caching(nn.Module):
    """Makes and enlarges buffers in its first step, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("scales", torch.ones(1), persistent=False)
        self.register_buffer("shift", None, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.shift is None:
            self.scales, self.shift = torch.rand(6), torch.rand(6)
            self.register_buffer("late", torch.rand(6), persistent=False)
        return self.body(x * self.scales + self.shift * self.late)


def test_buffers_that_the_first_step_makes_or_enlarges_come_back(tmp_path):
    assert_resumes_exactly(lambda: {"model": Caching()}, tmp_path)


def newton(folder: Path, *, epochs: int) -> None:
    """Multiplies what the optimizer remembers, where Adam only weighs it."""
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, history_size=5)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for _ in run.epochs(epochs):
        for x, y in run.batches(arrays()):
            run.log(loss=optimizer.step(functools.partial(loss_of, x, y)))


def test_what_an_optimizer_multiplies_lies_where_pytorch_would_have_put_it(tmp_path):
    newton(tmp_path / "alone", epochs=4)
    for epochs in (1, 2, 4):
        newton(tmp_path / "resumed", epochs=epochs)
    assert hashes(tmp_path / "resumed") == hashes(tmp_path / "alone")


class Noisy(nn.Module):
    """Adds noise from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(x.shape, generator=self.source)


def test_a_generator_deep_in_a_large_model_goes_on(tmp_path):
    def make() -> dict[str, Any]:
        nested = nn.Sequential(nn.Sequential(nn.Sequential(Noisy())))
        many = [nn.Identity() for _ in range(70)]
        return {"model": nn.Sequential(*many, nested, network())}

    assert_resumes_exactly(make, tmp_path)


class ClassRecall(nn.Module):
    """Sums as the objects of torchmetrics do, which leave them out of their state by default."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = False
        self.reset()

    def persistent(self, *, mode: bool = False) -> None:
        self.kept = mode

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.hits = self.hits + torch.bincount(target[output.argmax(1) == target], minlength=3)
        self.seen = self.seen + torch.bincount(target, minlength=3)

    def compute(self) -> dict[str, torch.Tensor]:
        recall = self.hits / self.seen
        return {"recall": recall, "mean": recall.mean()}

    def reset(self) -> None:
        self.hits, self.seen = torch.zeros(3), torch.zeros(3)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.kept:
            destination |= {f"{prefix}hits": self.hits, f"{prefix}seen": self.seen}

    def _load_from_state_dict(self, state: Any, prefix: str, *_: Any) -> None:
        self.hits, self.seen = state[f"{prefix}hits"], state[f"{prefix}seen"]


def test_metrics_that_sum_over_an_epoch_go_on_summing(tmp_path):
    def train(name: str, *callbacks: Any) -> list[list[float]]:
        options = QUIET | {"metrics": [ClassRecall()], "callbacks": callbacks}
        history = colabkit.fit(network(), arrays(), tmp_path / name, **options)
        names = ("loss", "mean", "recall_0", "recall_1", "recall_2")
        return [[epoch[name] for name in names] for epoch in history.epochs]

    alone = train("alone")
    assert len(train("broken", Interrupting(MID_EPOCH))) < len(alone)
    assert train("broken") == alone
