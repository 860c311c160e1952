"""Callbacks under the field's names, and what they change without a state of their own."""

from __future__ import annotations

import collections
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError, CheckpointMismatchError
from tests.torch.cases import arrays, loader, network
from tests.torch.killing import KillAtStep, in_child, outcome
from tests.torch.test_restored import Interrupting, assert_resumes_exactly, hashes


class Named:
    def __init__(self, hook: str) -> None:
        self.calls: list[tuple[int, list[str]]] = []
        setattr(type(self), hook, type(self).note)

    def note(self, run: Any, number: int, logs: Any) -> None:
        self.calls.append((number, sorted(logs)))


@pytest.mark.parametrize("hook", ["on_batch_end", "on_train_batch_end", "on_step_end"])
def test_the_end_of_a_batch_has_all_its_names(hook, tmp_path):
    callback = type("Own", (Named,), {})(hook)
    history = colabkit.fit(network(), loader(), tmp_path, callbacks=[callback], progress=False)
    steps = len(history.steps["loss"])
    assert callback.calls == [(step, ["loss"]) for step in range(1, steps + 1)]


def test_who_has_two_names_for_a_hook_is_called_once(tmp_path):
    callback = type("Own", (Named,), {})("on_batch_end")
    type(callback).on_step_end = Named.note
    history = colabkit.fit(network(), loader(), tmp_path, callbacks=[callback], progress=False)
    assert len(callback.calls) == len(history.steps["loss"])


def test_the_end_of_a_validation_is_told_with_its_values(tmp_path):
    callback = type("Own", (Named,), {})("on_validation_end")
    options = {"epochs": 2, "callbacks": [callback], "progress": False}
    colabkit.fit(network(), arrays(), tmp_path / "with", validation_data=arrays(), **options)
    assert callback.calls == [(0, ["val_loss"]), (1, ["val_loss"])]
    colabkit.fit(network(), arrays(), tmp_path / "without", **options)
    assert len(callback.calls) == 2


@pytest.mark.parametrize(
    ("near", "meant"),
    [
        ("on_epoch_ends", "on_epoch_end"),
        ("on_batchend", "on_batch_end"),
        ("on_train_start", "on_train_begin"),  # Lightning's, as are the next two
        ("on_train_epoch_end", "on_epoch_end"),
        ("on_validation_epoch_end", "on_validation_end"),
        ("on_evaluate", "on_validation_end"),  # Transformers'
        ("on_iteration_end", "on_batch_end"),
        ("onEpochEnd", "on_epoch_end"),
        ("after_fit", "on_train_end"),  # fastai's
        ("epoch_end", "on_epoch_end"),
    ],
)
@pytest.mark.parametrize("base", [colabkit.Callback, object])
def test_a_near_miss_is_asked_about(near, meant, base, tmp_path):
    other = "on_train_end" if meant != "on_train_end" else "on_train_begin"
    hooks = dict.fromkeys((near, other), lambda *_: None)
    callback = type("Near", (base,), hooks)()
    with pytest.raises(ArgumentError, match=rf"Near\.{near} .*Did you mean {meant}\?"):
        colabkit.fit(network(), arrays(), tmp_path, callbacks=[callback], progress=False)
    # Who has the hook as well made the other for somebody else.
    both = type("Both", (base,), {near: None, meant: lambda *_: None})()
    colabkit.fit(network(), arrays(), tmp_path, callbacks=[both], progress=False)


def test_methods_of_ones_own_and_moments_of_other_libraries_are_left_alone(tmp_path):
    names = ("on_log", "on_save", "on_before_optimizer_step", "on_exception", "begin", "step")
    callback = type("Own", (colabkit.Callback,), dict.fromkeys(names, print))()
    callback.on_train_end = lambda run: None
    colabkit.fit(network(), arrays(), tmp_path, callbacks=[callback], progress=False)


def test_a_callback_that_nothing_calls_is_told(tmp_path):
    idle = type("Idle", (colabkit.Callback,), {"on_log": print})()
    with pytest.raises(ArgumentError, match="Idle has no method that anything calls"):
        colabkit.fit(network(), arrays(), tmp_path, callbacks=[idle], progress=False)


class Noisy(torch_data.Dataset):
    """Augmented until somebody switches that off."""

    augments = True

    def __len__(self) -> int:
        return 44

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = arrays()
        return x[place] + (torch.randn(6) if self.augments else 0), y[place]


class Owner:
    def __init__(self, data: Noisy) -> None:
        self.data = data


class Closing(colabkit.Callback):
    """Switches the augmentation off at an epoch, and counts in four ways."""

    def __init__(self, data: Noisy) -> None:
        self.owner = Owner(data)
        self.steps, self.seen = 0, collections.Counter()
        self.names, self.newest = [], collections.deque(maxlen=2)

    def on_epoch_begin(self, run: Any, epoch: int) -> None:
        self.names.append(str(epoch))
        if epoch == 1:
            self.owner.data.augments = False

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.steps += 1
        self.newest.append(step)


def train(folder: Path, *more: Any) -> dict[str, Any]:
    data = Noisy()
    closing = Closing(data)
    options = {"epochs": 3, "save_every": 1, "progress": False, "device": "cpu"}
    history = colabkit.fit(
        network(),
        torch_data.DataLoader(data, batch_size=8, shuffle=True),
        folder,
        callbacks=[closing, *more],
        **options,
    )
    outcome(folder, history, folder.with_suffix(".json"))
    told = json.loads(folder.with_suffix(".json").read_text())
    told["hashes"] = {k: v for k, v in told["hashes"].items() if not k.startswith("objects.")}
    return told | {"counted": [closing.steps, closing.names, list(closing.newest)]}


def test_what_a_callback_has_switched_on_stays_so_after_a_resume(tmp_path):
    alone = train(tmp_path / "alone")
    for step in (8, 14):
        killer = KillAtStep(step)
        assert not in_child(
            lambda killer=killer: train(tmp_path / "run", killer) and None,
            report=tmp_path / "report",
        )
    assert train(tmp_path / "run") == alone


class Beginning:
    """Sets all that it works with as training begins, as callbacks of many libraries do."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def on_train_begin(self, run: Any) -> None:
        self.began_s, self.losses, self.best = time.monotonic(), [], 9.0
        self.optimizer.param_groups[0]["lr"] *= 0.5
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.anchors = [each.detach().clone() for each in self.model.parameters()]
        with torch.no_grad():
            self.model[-1].bias.fill_(0.1)
        self.model[0].register_forward_hook(lambda layer, given, output: output * 1.01)

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.losses.append(float(logs["loss"]))
        self.best = min(self.best, self.losses[-1])
        self.optimizer.param_groups[0]["lr"] = self.rate / (1 + len(self.losses)) * self.best
        with torch.no_grad():
            for each, anchor in zip(self.model.parameters(), self.anchors, strict=True):
                each.lerp_(anchor, 0.01)


def test_what_a_callback_sets_as_training_begins_it_sets_once(tmp_path):
    began = []

    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        began.append(Beginning(model, optimizer))
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "accumulate": 2,
            "callbacks": [began[-1]],
        }

    assert_resumes_exactly(make, tmp_path)
    assert [len(each.losses) for each in began] == [18, 9, 18]
    # But for the clock, by which a callback may end its session.
    times = [each.began_s for each in began]
    assert times == sorted(set(times))


class Changing:
    """Changes the data that it is given, as each epoch ends."""

    def __init__(self, model: nn.Module, kind: str) -> None:
        self.model, self.kind = model, kind
        x, y = (torch.as_tensor(each) for each in arrays())
        self.rows = list(range(24))
        self.labels = nn.functional.one_hot(y, 3).float()
        whole = torch_data.TensorDataset(x, self.labels)
        self.sampler = torch_data.WeightedRandomSampler(torch.ones(len(x)), len(x))
        is_pool = kind == "a pool that grows"
        self.loader = torch_data.DataLoader(
            torch_data.Subset(whole, self.rows) if is_pool else whole,
            batch_size=8,
            sampler=self.sampler if "sampler" in kind else None,
        )

    def change(self, x: torch.Tensor) -> None:
        with torch.no_grad():
            shares = self.model(x).softmax(1)
        if self.kind == "a pool that grows":
            left = sorted({*range(len(x))} - {*self.rows})
            self.rows += sorted(left, key=lambda row: float(shares[row].max()))[:8]
        elif "sampler" in self.kind:
            self.sampler.weights = shares.max(1).values
        else:
            self.labels.lerp_(shares, 0.5)

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        self.change(torch.as_tensor(arrays()[0]))


@pytest.mark.parametrize("kind", ["a pool that grows", "a sampler", "labels that move"])
def test_data_that_callbacks_change_between_epochs_goes_on(kind, tmp_path):
    def fit(folder: str, epochs: int, *more: Any, begins_changed: bool = False) -> None:
        model = network()
        changing = Changing(model, kind)
        options = {"epochs": epochs, "lr": 0.1, "progress": False, "device": "cpu"}
        history = colabkit.fit(
            model, changing.loader, tmp_path / folder, callbacks=[changing, *more],
            loss="cross_entropy", **options,
        )  # fmt: skip
        # Nobody can tell it from other data between two epochs, and none may pass for exact.
        is_told = history.verdict.reasons == ("the data is not what it was",)
        assert is_told if begins_changed else not history.verdict.reasons

    fit("alone", 3)
    fit("broken", 1)
    fit("broken", 3, Interrupting(8), begins_changed=True)
    fit("broken", 3, begins_changed=True)
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "alone")


def test_a_samplers_weights_that_a_callback_changes_in_mid_epoch_are_named_and_go_on(tmp_path):
    class Weighing(Changing):
        def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
            self.sampler.weights[step] += float(logs["loss"])

    for step in (8, 99):
        model = network()
        weighing = Weighing(model, "a sampler")
        history = colabkit.fit(
            model, weighing.loader, tmp_path, callbacks=[weighing, Interrupting(step)], epochs=3,
            loss="cross_entropy", progress=False,
        )  # fmt: skip
        assert any("sampler's weights changed in mid-epoch" in r for r in history.verdict.reasons)
    assert len(history.epochs) == 3


class Noting:
    """Sets an attribute of its own to what data may have as well."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.seen = None

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        self.seen = self.value


def test_other_data_that_counts_its_samples_and_a_callback_has_is_told(tmp_path, capsys):
    class Counting(torch_data.TensorDataset):
        count = 0

        def __getitem__(self, index: Any) -> Any:
            self.count += 1
            return super().__getitem__(index)

    def fit(turned: int, epochs: int) -> Any:
        x, y = (torch.as_tensor(each).roll(turned, 0) for each in arrays())
        data = Counting(x, y)
        return colabkit.fit(
            network(), torch_data.DataLoader(data, 8), tmp_path / "run", epochs=epochs,
            loss="cross_entropy", callbacks=[Noting(data)], progress=False,
        ).verdict  # fmt: skip

    assert in_child(lambda: fit(0, 1) and None, report=tmp_path / "report")
    assert "the data is not what it was" in fit(3, 2).reasons


@pytest.mark.parametrize("value", [(), torch.empty(0)], ids=["tuple", "tensor"])
def test_other_data_is_noticed_where_callbacks_set_what_data_has_too(value, tmp_path):
    def fit(turned: int, epochs: int) -> None:
        x, y = (torch.as_tensor(each).roll(turned, 0) for each in arrays())
        data = torch_data.TensorDataset(x, y)
        data.of_its_own = value
        colabkit.fit(
            network(), torch_data.DataLoader(data, 8), tmp_path / "run", epochs=epochs,
            loss="cross_entropy", callbacks=[Noting(value)], progress=False,
        )  # fmt: skip

    assert in_child(lambda: fit(0, 1), report=tmp_path / "report")
    with pytest.raises(CheckpointMismatchError, match="not what it was"):
        fit(3, 2)
