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
    "hooks made in a loop, each with variables of its own": """
        def build():
            model = network()
            for part in (model[0], model[3]):
                norms = [0.0]
                def scaled(gradient, *, norms=norms):
                    norms[0] = 0.9 * norms[0] + gradient.norm().item()
                    return gradient / (1 + norms[0])
                def centred(module, inputs, output, mean=torch.zeros(part.out_features)):
                    mean.mul_(0.9).add_(output.detach().mean(0), alpha=0.1)
                    return output - mean
                part.weight.register_hook(scaled)
                part.register_forward_hook(centred)
            return model
        made = {"model": build()}
    """,
    "a loss that counts in itself": """
        def loss(output, target):
            loss.calls += 1
            return F.cross_entropy(output, target) * (1 + 0.1 * loss.calls)
        loss.calls = 0
        made = {"model": network(), "loss": loss}
    """,
    "hooks upon an optimizer's steps, and what they keep of each weight": """
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        norms, slow, steps = {}, collections.defaultdict(list), 0
        def scaled(optimizer, arguments, options):
            for weight in model.parameters():
                norms[weight] = norms.get(weight, 0.0) + weight.grad.norm().item()
                weight.grad.div_(1 + norms[weight])
        def averaged(optimizer, arguments, options):
            global steps
            steps += 1
            for weight in model.parameters():
                slow[weight] = [weight.detach().clone(), *slow[weight]][:3]
                if steps % 3 == 0:
                    weight.data.copy_(sum(slow[weight]) / len(slow[weight]))
        optimizer.register_step_pre_hook(scaled)
        optimizer.register_step_post_hook(averaged)
        made = {"model": model, "optimizer": optimizer}
    """,
    "noise of a callback from a generator of the notebook": """
        def build():
            model, random = network(), torch.Generator().manual_seed(3)
            class Noisy(colabkit.Callback):
                def on_batch_end(self, run, step, logs):
                    with torch.no_grad():
                        for weight in model.parameters():
                            weight.add_(torch.randn(weight.shape, generator=random), alpha=0.01)
            return {"model": model, "callbacks": [Noisy()]}
        made = build()
    """,
    "a schedule of one's own that draws, and whose state_dict leaves that out": """
        class Restless(torch.optim.lr_scheduler.LRScheduler):
            def __init__(self, optimizer):
                self.random, self.asked = np.random.default_rng(2), 0
                super().__init__(optimizer)
            def get_lr(self):
                self.asked += 1
                return [base * self.random.random() / self.asked for base in self.base_lrs]
            def state_dict(self):
                return {"last_epoch": self.last_epoch, "_last_lr": self._last_lr}
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        made = {"model": model, "optimizer": optimizer, "scheduler": Restless(optimizer)}
    """,
    "a library's object with a state, kept by a callback": """
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        class Scaling(colabkit.Callback):
            def __init__(self):
                self.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
                self.scaler.scale(torch.zeros(()))
            def on_batch_end(self, run, step, logs):
                self.scaler.update(self.scaler.get_scale() * 0.9)
                optimizer.param_groups[0]["lr"] = 0.1 * self.scaler.get_scale()
        made = {"model": model, "optimizer": optimizer, "callbacks": [Scaling()]}
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
    "a loss that keeps long lists and a large array": """
        losses, steps, bank = [0.5] * 12_000, list(range(12_000)), np.ones(200_000)
        def loss(output, target):
            found = F.cross_entropy(output, target) * (1 + bank[-1]) * (1 + steps[-1] % 3)
            losses.append(found.item())
            steps.append(len(losses) * 7)
            bank[len(steps):] += losses[-2]
            return found
        made = {"model": network(), "loss": loss}
    """,
    "attributes that training makes of functions and classes": """
        def warmth():
            return getattr(warmth, "now", 1.0)
        def loss(output, target):
            if not hasattr(loss, "mean"):
                loss.mean = 1.0
            found = F.cross_entropy(output / warmth(), target) * Net.seen / Net.calls
            loss.mean = 0.9 * loss.mean + 0.1 * found.item()
            warmth.now = warmth() * 0.98
            return found / loss.mean
        class Base(torch.nn.Module):
            @classmethod
            def count(cls):
                cls.calls = getattr(cls, "calls", 0) + 1
        class Net(Base):
            def __init__(self):
                super().__init__()
                self.within = network()
            def forward(self, x):
                self.count()
                type(self).seen = getattr(self, "seen", 0.0) + x.mean().item()
                return self.within(x)
        made = {"model": Net(), "loss": loss}
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
def test_an_array_too_large_to_be_held_that_code_changes_is_named(changes, tmp_path):
    cells = run_cells("""
        bank, changes = np.zeros(2_200_000), True
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


def test_a_long_list_in_what_a_callback_keeps_is_named_where_it_is_not_held(tmp_path):
    cells = run_cells("""
        class Rows:
            def __init__(self):
                self.pairs = [("a", 0.5)] * 12_000
                self.losses = [0.5] * 12_000
        class Keeps(colabkit.Callback):
            def __init__(self):
                self.rows = Rows()
            def on_batch_end(self, run, step, logs):
                self.rows.losses.append(float(step))
                if self.rows.pairs:
                    self.rows.pairs.append(("b", float(step)))
        rows = Keeps()
    """)
    history = colabkit.fit(
        network(), arrays(), tmp_path, callbacks=[cells["rows"]], epochs=1, progress=False,
        save_every=2,
    )  # fmt: skip
    (reason,) = history.verdict.reasons
    assert "rows.pairs (list) changes in training and cannot be saved" in reason


def test_a_function_that_is_exchanged_in_mid_run_is_named(tmp_path):
    cells = run_cells("""
        measure = F.cross_entropy
        def smooth(output, target):
            return F.cross_entropy(output, target, label_smoothing=0.1)
        def loss(output, target):
            return measure(output, target)
        class Exchanging(colabkit.Callback):
            def on_epoch_end(self, run, epoch, logs):
                global measure
                measure = smooth
    """)
    for callbacks in ([], [cells["Exchanging"]()]):
        history = colabkit.fit(
            network(), arrays(), tmp_path / f"{len(callbacks)}", loss=cells["loss"], epochs=2,
            callbacks=callbacks, progress=False, save_every=2,
        )  # fmt: skip
        named = "given code.measure (function) changes in training and cannot be saved"
        assert list(history.verdict.reasons) == [named] * len(callbacks)
