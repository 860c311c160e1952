"""What is passed otherwise at a resume and is no rate: other schedules, layers, losses, moments."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.optim import optimizer as optim_hooks
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError
from colabkit.frameworks.code_marks import code_mark
from tests.torch.cases import arrays

EPOCHS, BATCHES, RATE = 4, 6, 0.1


def batches() -> torch_data.DataLoader:
    return torch_data.DataLoader(torch_data.TensorDataset(*arrays()), batch_size=8)


def network(*, dropout: float = 0.0, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Linear(6, 12), activation(), nn.Dropout(dropout), nn.Linear(12, 3)
    return nn.Sequential(*layers)


class StopError(Exception):
    pass


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: colabkit.Run, step: int, logs: Any) -> None:
        run.flush()
        if step == self.step:
            raise StopError


def fitted(folder: Path, model: nn.Module | None = None, **more: Any) -> colabkit.History:
    model = model or network()
    given = {"optimizer": torch.optim.SGD(model.parameters(), lr=RATE), "loss": "cross_entropy"}
    given |= {"epochs": EPOCHS, "device": "cpu", "save_every": 1, **more}
    return colabkit.fit(model, batches(), folder, **given)


def stopped(folder: Path, model: nn.Module | None = None, *, step: int = 8, **more: Any) -> None:
    with pytest.raises(StopError):
        fitted(folder, model, callbacks=[StopAt(step)], progress=False, **more)


def halved(done: int) -> float:
    return 0.5**done


MAKE: dict[str, Callable[[Any], Any]] = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    "step": lambda o: lr_scheduler.StepLR(o, 1, 0.5),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, halved),
    "row": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.5, 1), lr_scheduler.ExponentialLR(o, 0.9)], [1]
    ),
    "chain": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "steeper chain": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.7)]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=99),
}


def rates_by_hand(make: Callable[[Any], Any], steps: int) -> list[float]:
    """Returns the rate of each epoch of a loop that has this schedule from its first step."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE)
    scheduler, rates = make(optimizer), []
    for _ in range(EPOCHS):
        before = optimizer.param_groups[0]["lr"]
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
        # What an epoch tells is the rate of its last step, before the schedule of epochs goes on.
        rates.append(before if steps == 1 else optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("cosine", "lambda"),
        ("lambda", "cosine"),
        ("cosine", "row"),
        ("row", "step"),
        ("step", "chain"),
        ("chain", "steeper chain"),
        ("chain", "cosine"),
        ("plateau", "lambda"),
        (None, "cosine"),
    ],
)
def test_a_schedule_of_another_kind_goes_on_where_it_would_be(then, now, tmp_path, capsys):
    stopped(tmp_path, scheduler=then and MAKE[then])
    history = fitted(tmp_path, scheduler=MAKE[now])
    rates = [row["lr"] for row in history.epochs]
    assert rates[1:] == rates_by_hand(MAKE[now], 1)[1:]
    kinds = [
        "none"
        if name is None
        else type(MAKE[name](torch.optim.SGD([torch.zeros(1)], 0.1))).__name__
        for name in (then, now)
    ]
    said = capsys.readouterr().out
    assert f"scheduler {kinds[0]} → {kinds[1]}" in said or kinds[0] == kinds[1]
    assert "Taken as passed now" in said
    fitted(tmp_path, scheduler=MAKE[now], epochs=EPOCHS + 1)
    assert "Taken as passed now: scheduler" not in capsys.readouterr().out


def test_a_schedule_that_steps_at_other_times_is_where_it_would_be(tmp_path, capsys):
    make = lambda o: lr_scheduler.ExponentialLR(o, 0.9)  # noqa: E731
    stopped(tmp_path, scheduler=make)
    history = fitted(tmp_path, scheduler=(make, "step"))
    rates = [row["lr"] for row in history.epochs]
    assert rates[1:] == rates_by_hand(make, BATCHES)[1:]
    assert "schedule per epoch → per step" in capsys.readouterr().out


def test_where_a_schedule_is_left_out_the_rate_stays_and_that_is_said(tmp_path, capsys):
    stopped(tmp_path, scheduler=MAKE["step"])
    history = fitted(tmp_path)
    assert [row["lr"] for row in history.epochs] == [RATE, *[RATE / 2] * 3]
    assert "the rate stays" in capsys.readouterr().out


def by_hand(
    model: nn.Module, optimizer: Any, loss: Callable[..., torch.Tensor], steps: range
) -> None:
    every = list(batches())
    for step in steps:
        x, y = every[step % BATCHES]
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("make", "setting", "moment"),
    [
        (torch.optim.Adam, {"amsgrad": True}, "max_exp_avg_sq"),
        (torch.optim.RMSprop, {"momentum": 0.9}, "momentum_buffer"),
        (torch.optim.RMSprop, {"centered": True}, "grad_avg"),
    ],
)
def test_a_setting_that_keeps_a_moment_more_begins_with_it(make, setting, moment, tmp_path):
    plain, ours = network(), network()
    optimizer = make(plain.parameters(), 0.01)
    by_hand(plain, optimizer, functional.cross_entropy, range(7))
    optimizer.param_groups[0].update(setting)
    for parameter in plain.parameters():
        optimizer.state[parameter][moment] = torch.zeros_like(parameter)
    by_hand(plain, optimizer, functional.cross_entropy, range(7, EPOCHS * BATCHES))
    first = network()
    stopped(tmp_path, first, optimizer=make(first.parameters(), 0.01))
    own = make(ours.parameters(), 0.01, **setting)
    fitted(tmp_path, ours, optimizer=own, progress=False)
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)


def test_hooks_upon_the_steps_of_all_optimizers_see_none_that_the_user_has_not_made(tmp_path):
    first, ours = network(), network()
    stopped(tmp_path, first, optimizer=torch.optim.Adam(first.parameters(), 0.01))
    seen: list[Any] = []
    hooks = [
        optim_hooks.register_optimizer_step_pre_hook,
        optim_hooks.register_optimizer_step_post_hook,
    ]
    handles = [register(lambda optimizer, *_: seen.append(optimizer)) for register in hooks]
    own = torch.optim.Adam(ours.parameters(), 0.01, amsgrad=True)
    fitted(tmp_path, ours, optimizer=own, progress=False)
    for each in handles:
        each.remove()
    assert seen
    assert all(each is own for each in seen)


class OfItself(torch.optim.Optimizer):
    """Steps by a share that it sets itself, as Adafactor does where it is given no rate."""

    def __init__(self, parameters: Any, lr: float | None = None) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for each in group["params"]:
                each.sub_(each.grad, alpha=0.1 if group["lr"] is None else group["lr"])


@pytest.mark.parametrize(("then", "now"), [(None, None), (None, 0.01), (0.01, None)])
def test_an_optimizer_may_have_no_rate_and_get_one(then, now, tmp_path, capsys):
    plain, first, ours = network(), network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), then or RATE)
    by_hand(plain, optimizer, functional.cross_entropy, range(7))
    optimizer.param_groups[0]["lr"] = now or RATE
    by_hand(plain, optimizer, functional.cross_entropy, range(7, EPOCHS * BATCHES))
    stopped(tmp_path, first, optimizer=OfItself(first.parameters(), then))
    history = fitted(tmp_path, ours, optimizer=OfItself(ours.parameters(), now))
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)
    assert ("Taken as passed now: lr of optimizer" in capsys.readouterr().out) is (then != now)
    assert [epoch.get("lr") for epoch in history.epochs[1:]] == [now] * (EPOCHS - 1)


@pytest.mark.parametrize(
    "options", [{"scheduler": "cosine"}, {"scheduler": "onecycle"}, {"warmup": 2}]
)
def test_a_schedule_by_name_of_no_rate_is_an_error(options, tmp_path):
    model = network()
    with pytest.raises(ArgumentError, match="changes the learning rate, and OfItself has none"):
        fitted(tmp_path, model, optimizer=OfItself(model.parameters()), **options)


def test_a_setting_that_is_none_now_is_taken_as_passed(tmp_path):
    first, ours = network(), network()
    stopped(tmp_path, first, optimizer=torch.optim.Adam(first.parameters(), foreach=False))
    own = torch.optim.Adam(ours.parameters())
    fitted(tmp_path, ours, optimizer=own, progress=False)
    assert own.param_groups[0]["foreach"] is None


def test_weights_of_classes_are_taken_as_passed(tmp_path, capsys):
    plain, ours = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=RATE)
    losses = [nn.CrossEntropyLoss(torch.tensor(w)) for w in ([1.0, 1.0, 1.0], [1.0, 5.0, 0.5])]
    by_hand(plain, optimizer, losses[0], range(7))
    by_hand(plain, optimizer, losses[1], range(7, EPOCHS * BATCHES))
    stopped(tmp_path, loss=losses[0])
    fitted(tmp_path, ours, loss=losses[1])
    for one, other in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)
    said = capsys.readouterr().out
    assert "Taken as passed now: weight of loss [1.0, 1.0, 1.0] → [1.0, 5.0, 0.5]" in said


def test_weights_of_classes_that_training_changes_stay(tmp_path):
    def harder(loss: nn.CrossEntropyLoss) -> Callable[[Any], None]:
        def change(event: Any) -> None:
            if event.name == "batch_end":
                loss.weight.mul_(1.1)

        return change

    losses = [nn.CrossEntropyLoss(torch.ones(3)) for _ in range(3)]
    alone, resumed = network(), network()
    fitted(tmp_path / "alone", alone, loss=losses[0], callbacks=[harder(losses[0])])
    given = [harder(losses[1]), StopAt(8)]
    with pytest.raises(StopError):
        fitted(tmp_path / "run", loss=losses[1], callbacks=given)
    fitted(tmp_path / "run", resumed, loss=losses[2], callbacks=[harder(losses[2])])
    for one, other in zip(alone.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def scaled(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output, target) * 2


LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "dropout": ({"dropout": 0.5}, "p of Dropout in model 0.0 → 0.5"),
    "activation": ({"activation": nn.GELU}, "layers of model ReLU → GELU"),
}
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "accumulate": ({"accumulate": 4}, "accumulate 1 → 4"),
    "norm": ({"clip_grad_norm": 0.5}, "clip_grad_norm none → 0.5"),
    "precision": ({"precision": "bf16"}, "precision fp32 → bf16"),
    "loss": ({"loss": scaled}, "Taken as passed now: loss; callbacks"),
    "metrics": ({"metrics": ["accuracy", scaled]}, "metrics none → accuracy, scaled"),
    "validation": (
        {"validation_data": arrays(), "eval_every": 2},
        "eval_every 1 → 2; callbacks StopAt → none; monitor none → val_loss",
    ),
    "monitor": ({"monitor": "loss"}, "; monitor none → loss."),
    "smoothing": (
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        "label_smoothing of CrossEntropyLoss in loss 0.0 → 0.1",
    ),
}


@pytest.mark.parametrize("name", [*LAYERS, *SETTINGS])
def test_what_no_tensor_shows_is_said(name, tmp_path, capsys):
    layers, phrase = LAYERS.get(name, ({}, ""))
    settings, phrase = SETTINGS.get(name, ({}, phrase))
    stopped(tmp_path, **({"loss": nn.CrossEntropyLoss()} if name == "smoothing" else {}))
    fitted(tmp_path, network(**layers), **settings)
    assert phrase in capsys.readouterr().out
    fitted(tmp_path, network(**layers), epochs=EPOCHS + 1, **settings)
    assert "Taken as passed now" not in capsys.readouterr().out


def ignored(event: Any) -> None:
    pass


class Halving(colabkit.Callback):
    def __init__(self, every: int, path: str) -> None:
        self.every, self.path, self.seen = every, path, 0

    def on_epoch_end(self, run: colabkit.Run, epoch: int, logs: Any) -> None:
        self.seen += 1


CALLBACKS: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "patience": (
        lambda: [colabkit.EarlyStopping("loss", patience=9), Halving(2, "a/1")],
        "patience of EarlyStopping 5 → 9",
    ),
    "a setting": (
        lambda: [colabkit.EarlyStopping("loss", patience=5), Halving(3, "a/2")],
        "every of Halving 2 → 3",
    ),
    "one more": (
        lambda: [print, colabkit.EarlyStopping("loss", patience=5), Halving(2, "a/3")],
        "callbacks EarlyStopping, Halving → print, EarlyStopping, Halving",
    ),
    "none": (list, "callbacks EarlyStopping, Halving → none"),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_that_come_or_go_or_are_set_otherwise_are_said(name, tmp_path, capsys):
    make, phrase = CALLBACKS[name]
    fitted(tmp_path, callbacks=[colabkit.EarlyStopping("loss", patience=5), Halving(2, "a/0")])
    callbacks = make()
    fitted(tmp_path, callbacks=callbacks, epochs=EPOCHS + 1)
    assert f"Taken as passed now: {phrase}." in capsys.readouterr().out
    # Where nothing is left to train, nothing is taken.
    fitted(tmp_path, callbacks=[ignored], epochs=EPOCHS + 1)
    assert "Taken as passed now" not in capsys.readouterr().out
    # What an earlier call has counted in the same objects is no setting.
    fitted(tmp_path, callbacks=callbacks, epochs=EPOCHS + 2)
    assert "Taken as passed now" not in capsys.readouterr().out


def test_callbacks_go_on_wherever_they_stand_among_others(tmp_path):
    def stopping() -> list[Any]:
        return [Halving(2, "a"), colabkit.EarlyStopping("loss", patience=2), Halving(2, "b")]

    given = {"epochs": 9, "optimizer": None, "lr": 0.0, "progress": False}
    alone = fitted(tmp_path / "alone", callbacks=stopping(), **given)
    callbacks = [StopAt(14), *stopping()]
    with pytest.raises(StopError):
        fitted(tmp_path / "run", callbacks=callbacks, **given)
    callbacks = [ignored, *stopping()]
    history = fitted(tmp_path / "run", callbacks=callbacks, **given)
    assert len(history.epochs) == len(alone.epochs) == 3
    assert [each.seen for each in callbacks[1::2]] == [3, 3]


def test_early_stopping_by_another_value_or_none_trains_on(tmp_path, capsys):
    def epochs(*stopping: Any) -> int:
        given = {"optimizer": None, "lr": 0.0, "metrics": ["accuracy"], "epochs": 9}
        return len(fitted(tmp_path, callbacks=stopping, **given).epochs)

    assert epochs(colabkit.EarlyStopping("loss", patience=2)) == 3
    # Another value has its first epoch, and then so many without a better one.
    assert epochs(colabkit.EarlyStopping("accuracy", patience=2)) == 3 + 3
    assert "accuracy is watched now" in capsys.readouterr().out
    assert epochs() == 9
    assert "EarlyStopping is none of the callbacks now" in capsys.readouterr().out


def test_the_best_of_another_value_is_none_to_beat(tmp_path):
    fitted(tmp_path, monitor="loss", progress=False)
    more = {"metrics": ["accuracy"], "epochs": EPOCHS + 3, "progress": False}
    history = fitted(tmp_path, monitor="accuracy", **more)
    found = [each for each in colabkit.checkpoints(tmp_path) if each.is_best]
    rows = history.epochs[EPOCHS:]
    best = max(rows, key=lambda row: row["accuracy"])
    assert found[0].epoch == best["epoch"] + 1


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(x)

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def looped(folder: Path, model: nn.Module, *, epochs: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    run = colabkit.Run(folder, model=model, optimizer=optimizer)
    for _ in run.epochs(epochs):
        for x, y in run.batches(batches()):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()


@pytest.mark.parametrize("name", ["forward", "scaled"])
@pytest.mark.parametrize("train", [fitted, looped])
def test_edited_code_of_a_model_is_said(name, train, tmp_path, capsys, monkeypatch):
    train(tmp_path, Layered(), epochs=1)
    monkeypatch.setattr(Layered, name, lambda self, x: self.layers(x) * 2)
    train(tmp_path, Layered(), epochs=2)
    assert "Taken as passed now: the model's code." in capsys.readouterr().out


@pytest.mark.parametrize("step", [None, 8], ids=["between epochs", "in mid-epoch"])
def test_a_loop_of_ones_own_says_what_its_layers_and_schedule_are_now(step, tmp_path, capsys):
    def trained(model: nn.Module, make: Callable[[Any], Any], epochs: int) -> list[float]:
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        scheduler = make(optimizer)
        objects = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        monitor = None if epochs == 2 else "loss"
        run = colabkit.Run(tmp_path, save_every=1, monitor=monitor, **objects)
        rates = []
        for _ in run.epochs(epochs):
            for x, y in run.batches(batches()):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.flush()
                if run.step == step and epochs == 2:
                    raise StopError
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
        return rates

    with contextlib.suppress(StopError):
        trained(network(), MAKE["cosine"], 2)
    rates = trained(network(dropout=0.5), MAKE["lambda"], EPOCHS)
    assert rates == rates_by_hand(MAKE["lambda"], 1)[2 if step is None else 1 :]
    said = capsys.readouterr().out
    assert "scheduler CosineAnnealingLR → LambdaLR" in said
    assert "monitor none → loss" in said
    assert "p of Dropout in model 0.0 → 0.5" in said


def counting(*, counts: bool) -> type[nn.Module]:
    class Counting(Layered):
        if counts:
            calls = 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                Counting.calls += 1
                return super().forward(x)

    return Counting


def test_what_edited_code_knows_no_more_is_left_out(tmp_path, capsys):
    fitted(tmp_path, counting(counts=True)(), epochs=1)
    fitted(tmp_path, counting(counts=False)(), epochs=2)
    assert "Taken as passed now: the model's code." in capsys.readouterr().out


def test_a_loss_that_asks_for_members_of_a_set_is_the_same_in_each_process():
    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.sum() if target.ndim in {0, 8} else output.mean()

    places = [place for place, e in enumerate(loss.__code__.co_consts) if type(e) is frozenset]
    marks = set()
    for order in ([0, 8], [8, 0]):  # of one hash, so that the first one in comes first
        consts = list(loss.__code__.co_consts)
        consts[places[0]] = frozenset(order)
        code = loss.__code__.replace(co_consts=tuple(consts))
        marks.add(code_mark(types.FunctionType(code, globals())))
    assert repr(frozenset([0, 8])) != repr(frozenset([8, 0]))
    assert len(marks) == 1
