"""What training keeps in plain attributes, and in optimizers within optimizers, goes on."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import colabkit
from tests.torch.cases import arrays
from tests.torch.test_restored import assert_resumes_exactly, hashes, network


class Remembering(nn.Module):
    """Keeps a hidden tensor, a queue of tensors, and a table of arrays, without any buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.hidden: torch.Tensor | None = None
        self.queue = collections.deque([torch.zeros(6)], maxlen=3)
        self.table: dict[str, Any] = {"mean": np.zeros(6), "seen": []}
        self.parts = [self.body]
        self.late = self.queue

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.hidden is not None:
            x = x + self.hidden.detach()
        x = x + sum(self.late) + torch.from_numpy(self.table["mean"]).float()
        self.hidden = 0.1 * x.mean(0)
        self.queue.append(x.detach().mean(0))
        self.table["mean"] *= 0.5
        self.table["mean"] += x.detach().double().mean(0).numpy()
        self.table["seen"].append(len(x))
        return self.body(x) / len(self.table["seen"])


def test_tensors_and_containers_that_a_model_keeps_as_attributes_go_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Remembering()}, tmp_path)


class Slowing:
    """Counts, and lowers the rate; saves nothing itself."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.seen = 0
        self.sums: dict[str, list[float]] = collections.defaultdict(list)
        self.average: torch.Tensor | None = None

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.seen += 1
        self.sums["loss"].append(float(self.seen))
        new = torch.tensor([self.seen / 2])
        self.average = new if self.average is None else self.average.lerp(new, 0.5)
        factor = len(self.sums["loss"]) + self.average.item()
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + factor)


def test_a_callback_without_a_state_dict_goes_on_counting(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer, "callbacks": [Slowing(optimizer)]}

    assert_resumes_exactly(make, tmp_path)


class Sharpness(torch.optim.Optimizer):
    """Two steps around another optimizer, whose groups it shares and whose state it forgets."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, options)
        self.base = torch.optim.SGD(self.param_groups, **options)
        self.param_groups = self.base.param_groups
        self.climbs = 0

    @torch.no_grad()
    def climb(self) -> None:
        self.climbs += 1
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["old"] = parameter.clone()
            parameter.add_(parameter.grad, alpha=0.05 / self.climbs)
        self.zero_grad()

    @torch.no_grad()
    def descend(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.copy_(self.state[parameter]["old"])
        self.base.step()
        self.zero_grad()


class Lookahead(torch.optim.Optimizer):
    """Keeps slow weights in a list of its own, and steps another optimizer."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base, self.count = base, 0
        self.param_groups = base.param_groups
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    @torch.no_grad()
    def advance(self) -> None:
        self.base.step()
        self.count += 1
        if self.count % 3 == 0:
            for slow, parameter in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(parameter, 0.5)
                parameter.copy_(slow)


def looped(folder: Path, kind: str, *, epochs: int) -> None:
    model = network()
    if kind == "sharpness":
        optimizer: Any = Sharpness(model.parameters(), lr=0.05, momentum=0.9)
    else:
        optimizer = Lookahead(torch.optim.Adam(model.parameters(), lr=0.01))
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
    for _ in run.epochs(epochs):
        for x, y in run.batches(arrays(), batch_size=8):
            nn.functional.cross_entropy(model(x), y).backward()
            if kind == "sharpness":
                optimizer.climb()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.descend()
            else:
                optimizer.advance()
                model.zero_grad()
        assert optimizer.param_groups is optimizer.base.param_groups


def test_optimizers_within_optimizers_go_on(tmp_path):
    for kind in ("sharpness", "lookahead"):
        looped(tmp_path / kind / "alone", kind, epochs=3)
        for epochs in (1, 2, 3):
            looped(tmp_path / kind / "resumed", kind, epochs=epochs)
        alone, resumed = (hashes(tmp_path / kind / each) for each in ("alone", "resumed"))
        assert resumed == alone
