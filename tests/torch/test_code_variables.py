"""What a notebook's code keeps in globals, closures and class attributes goes on."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import colabkit
from tests.torch.cases import arrays
from tests.torch.test_restored import assert_resumes_exactly, hashes, network

_IMPORTS = """
import collections, functools
import numpy as np, torch
from torch import nn
from torch.nn import functional as F
import colabkit
from tests.torch.cases import arrays
from tests.torch.test_restored import network
"""

# Each makes ``made``, the arguments of fit, as the cells of a notebook would.
_NOTEBOOKS = {
    "a loss that counts in globals": """
        step, means = 0, [1.0]
        def scale():
            return min(1.0, step / 10) / means[0]
        def loss(output, target):
            global step
            step += 1
            found = F.cross_entropy(output, target)
            means[0] = 0.9 * means[0] + 0.1 * found.item()
            return found * scale()
        made = {"model": network(), "loss": loss}
    """,
    "a loss that is an object": """
        class Balanced:
            def __init__(self):
                self.seen, self.centre = collections.deque(maxlen=3), torch.zeros(3)
            def __call__(self, output, target):
                self.seen.append(output.detach().abs().mean().item())
                self.centre = 0.9 * self.centre + 0.1 * output.detach().mean(0)
                return F.cross_entropy(output - self.centre, target) * sum(self.seen)
        made = {"model": network(), "loss": Balanced()}
    """,
    "a method of an object, given in part": """
        class Trainer:
            def __init__(self):
                self.weight = torch.ones(3)
            def loss(self, share, output, target):
                self.weight = self.weight * 0.9 + share * torch.bincount(target, minlength=3)
                return F.cross_entropy(output, target, weight=self.weight)
        made = {"model": network(), "loss": functools.partial(Trainer().loss, 0.1)}
    """,
    "a loss that draws from a generator of its own": """
        random = np.random.default_rng(1)
        def loss(output, target):
            noise = torch.from_numpy(random.standard_normal(output.shape)).float()
            return F.cross_entropy(output + noise, target)
        made = {"model": network(), "loss": loss}
    """,
    "a metric that remembers, and a loss that asks it": """
        best = {"share": 0.0}
        def share(output, target):
            found = (output.argmax(1) == target).float().mean().item()
            best["share"] = max(best["share"] * 0.99, found)
            return found
        def loss(output, target):
            return F.cross_entropy(output, target) * (1 + best["share"])
        made = {"model": network(), "metrics": [share], "loss": loss}
    """,
    "an average of the model that a function keeps": """
        model = network()
        average = torch.optim.swa_utils.AveragedModel(model)
        def update(event):
            if event.name == "batch_end":
                average.update_parameters(model)
        def loss(output, target):
            pairs = zip(average.parameters(), model.parameters())
            pull = sum((mean - own).pow(2).sum() for mean, own in pairs)
            return F.cross_entropy(output, target) + pull
        made = {"model": model, "callbacks": [update], "loss": loss}
    """,
    "a teacher that a loss moves past PyTorch's counters": """
        model, teacher = network(), network().requires_grad_(False)
        def loss(output, target):
            for theirs, ours in zip(teacher.parameters(), model.parameters()):
                theirs.data.mul_(0.9).add_(ours.data, alpha=0.1)
            return F.cross_entropy(output + teacher[-1].bias, target)
        made = {"model": model, "loss": loss}
    """,
    "a callback whose method writes globals": """
        model = network()
        lowest, rate = None, 0.1
        class Cooling(colabkit.Callback):
            def on_batch_end(self, run, step, logs):
                global lowest, rate
                if lowest is None or logs["loss"].item() < lowest:
                    lowest, rate = logs["loss"].item(), rate * 0.9
                optimizer.param_groups[0]["lr"] = rate
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        made = {"model": model, "optimizer": optimizer, "callbacks": [Cooling()]}
    """,
    "a forward that counts in a global and in its class": """
        calls = 0
        class Config:
            heat = 1.0
        class Net(nn.Module):
            total = 0
            def __init__(self):
                super().__init__()
                self.body = network()
            def forward(self, x):
                global calls
                calls += 1
                Net.total += 1
                Config.heat *= 0.97
                return self.body(x) * (1 + 0.01 * calls + 0.01 * Net.total) / Config.heat
        made = {"model": Net()}
    """,
    "hooks of modules and of weights": """
        def build():
            model, mean, drawn = network(), torch.zeros(8), []
            def centred(module, inputs, output):
                mean.mul_(0.9).add_(output.detach().mean(0), alpha=0.1)
                return output - mean
            def noisy(gradient):
                drawn.append(0)
                return gradient + torch.randn_like(gradient) / len(drawn)
            model[0].register_forward_hook(centred)
            model[0].weight.register_hook(noisy)
            return model
        made = {"model": build()}
    """,
    "a function that a model holds": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, count = network(), 0
                def warm(x):
                    nonlocal count
                    count += 1
                    return x * (1 + 0.02 * count)
                self.warm = warm
            def forward(self, x):
                return self.warm(self.body(x))
        made = {"model": Net()}
    """,
    "rates that depend on a variable, and that count": """
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scale, asked = {"rate": 1.0}, 0
        def rate(epoch):
            global asked
            asked += 1
            return scale["rate"] * 0.99 ** asked
        class Cooling(colabkit.Callback):
            def on_batch_end(self, run, step, logs):
                if step % 4 == 0:
                    scale["rate"] *= 0.7
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        made = {"model": model, "optimizer": optimizer, "scheduler": scheduler,
                "callbacks": [Cooling()]}
    """,
    "rates by a function that counts": """
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        asked = 0
        def rate(epoch):
            global asked
            asked += 1
            return 0.9 ** asked
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        made = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    """,
    "a sampler that a callback weighs anew": """
        model, (x, y) = network(), arrays()
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        sampler = torch.utils.data.WeightedRandomSampler(torch.ones(len(x)), len(x))
        class Hard(colabkit.Callback):
            def on_epoch_end(self, run, epoch, logs):
                with torch.no_grad():
                    losses = F.cross_entropy(model(x), y, reduction="none")
                sampler.weights = losses.double() + 0.01
        data = torch.utils.data.TensorDataset(x, y)
        loader = torch.utils.data.DataLoader(data, batch_size=8, sampler=sampler)
        made = {"model": model, "data": loader, "callbacks": [Hard()]}
    """,
}  # fmt: skip


def run_cells(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(_IMPORTS + textwrap.dedent(source), namespace)
    return namespace


@pytest.mark.parametrize("at", [3, 9, 15])
@pytest.mark.parametrize("source", _NOTEBOOKS.values(), ids=_NOTEBOOKS.keys())
def test_variables_of_a_notebooks_code_go_on(source: str, at: int, tmp_path: Path):
    assert_resumes_exactly(lambda: run_cells(source)["made"], tmp_path, at=at)


def test_variables_that_a_models_code_writes_go_on_in_a_loop_of_ones_own(tmp_path):
    def train(folder: Path, stops_at: int | None) -> Any:
        cells = run_cells(_NOTEBOOKS["a forward that counts in a global and in its class"])
        model, (x, y) = cells["made"]["model"], map(torch.as_tensor, arrays())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
        for _ in run.epochs(2):
            for a, b in run.batches((x, y), batch_size=8):
                loss = torch.nn.functional.cross_entropy(model(a), b)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if run.step == stops_at:
                    raise InterruptedError
        return cells["calls"], cells["Config"].heat

    alone = train(tmp_path / "alone", None)
    with pytest.raises(InterruptedError):
        train(tmp_path / "broken", 7)
    assert train(tmp_path / "broken", None) == alone
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "alone")


def test_a_teacher_that_nothing_changes_is_in_no_checkpoint(tmp_path):
    cells = run_cells("""
        teacher = network().requires_grad_(False)
        def loss(output, target):
            return F.cross_entropy(output + teacher[-1].bias, target)
    """)
    colabkit.fit(
        network(), arrays(), tmp_path, loss=cells["loss"], epochs=2, progress=False, save_every=1
    )
    assert not [name for name in hashes(tmp_path) if "held" in name]


def test_a_global_that_raises_for_names_it_lacks_is_left_alone(tmp_path):
    cells = run_cells("""
        class Config(dict):
            def __getattr__(self, name):
                return self[name]
        class Slots:
            __slots__ = ("values",)
            def __init__(self):
                self.values = {"power": 1.0}
            def __getattr__(self, name):
                return self.values[name]
        config, slots, count = Config(scale=2.0), Slots(), 0
        def loss(output, target):
            global count
            count += 1
            return F.cross_entropy(output * config.scale ** slots.power, target)
    """)
    history = colabkit.fit(
        network(), arrays(), tmp_path, loss=cells["loss"], epochs=1, progress=False
    )
    assert not history.verdict.reasons
    assert cells["count"] == len(history.steps["loss"])


@pytest.mark.parametrize("changes", [True, False])
def test_a_large_array_that_code_changes_is_named(changes, tmp_path):
    cells = run_cells("""
        bank, changes = np.zeros(200_000), True
        def loss(output, target):
            if changes:
                bank[:] += 1
            return F.cross_entropy(output + bank[0], target)
    """)
    cells["changes"] = changes
    history = colabkit.fit(
        network(), arrays(), tmp_path, loss=cells["loss"], epochs=1, progress=False, save_every=2
    )
    named = "given code.bank (ndarray) changes in training and cannot be saved"
    assert list(history.verdict.reasons) == [named] * changes
