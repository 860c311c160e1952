"""The forms that data, losses, schedulers and optimizers have in the field: they work, or say."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_sequence
from torch.optim import lr_scheduler
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError
from tests.torch.cases import arrays, network
from tests.torch.killing import forked, reaped

QUIET = {"progress": False, "device": "cpu"}
X, Y = arrays()


class Tokens(nn.Module):
    """Logits of each token, classes last; with its own loss or without."""

    def __init__(self, classes: int, *, own: bool, shifted: bool = False, first: bool = False):
        super().__init__()
        torch.manual_seed(2)
        self.table = nn.Embedding(30, classes)
        self.own, self.shifted, self.first = own, shifted, first

    def forward(self, ids: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.table(ids)
        if not self.own:
            return logits.transpose(1, 2) if self.first else logits
        seen, wanted = (logits[:, :-1], labels[:, 1:]) if self.shifted else (logits, labels)
        loss = functional.cross_entropy(seen.flatten(0, 1), wanted.flatten())
        return {"loss": loss, "logits": logits}


def last(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("classes", [5, 7])
@pytest.mark.parametrize("kind", ["own", "shifted", "first", "last", "ignoring"])
def test_accuracy_of_tokens_is_the_share_of_all_that_count(kind, classes, tmp_path):
    """Also where tokens are as many as classes, and padding leaves batches unequal."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 30, (44, 5), generator=generator)
    labels = (ids % 3).masked_fill(torch.rand(44, 5, generator=generator) < 0.4, -100)
    labels[:8, 1:] = -100
    own = kind in {"own", "shifted"}
    model = Tokens(classes, own=own, shifted=kind == "shifted", first=kind in {"first", "ignoring"})
    loss: Any = {"first": "cross_entropy", "last": last}.get(kind)
    ignored = -100
    if kind == "ignoring":
        ignored, labels = 1, labels.where(labels >= 0, torch.tensor(1))
        loss = nn.CrossEntropyLoss(ignore_index=1)
    if kind == "last" and classes == 5:
        # One batch leaves no doubt before the others do.
        data: Any = [(ids[:8, :4], labels[:8, :4]), (ids[8:], labels[8:])]
    else:
        data = {"ids": ids, "labels": labels} if own else (ids, labels)
    history = colabkit.fit(
        model,
        data,
        tmp_path,
        batch_size=8,
        loss=loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.0),
        metrics="accuracy",
        validation_data=data,
        **QUIET,
    )
    found = model.table(ids).argmax(-1)
    if kind == "shifted":
        found, labels = found[:, :-1], labels[:, 1:]
    if isinstance(data, list):
        labels = labels.clone()
        labels[:8, 4:] = -100
    counts = labels != ignored
    share = int((found == labels)[counts].sum()) / int(counts.sum())
    assert history.epochs[0]["accuracy"] == share
    assert history.epochs[0]["val_accuracy"] == share


def focal(probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    chance = torch.where(target > 0.5, probability, 1 - probability)
    return (-((1 - chance) ** 2) * chance.log()).mean()


@pytest.mark.parametrize("ends", [(nn.Sigmoid(),), ()], ids=["probabilities", "logits"])
@pytest.mark.parametrize("loss", ["known", "own"])
def test_accuracy_of_yes_and_no_knows_probabilities_from_logits(ends, loss, tmp_path):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, :1] > 0.3).float()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 1), *ends)
    known = nn.BCELoss() if ends else nn.BCEWithLogitsLoss()
    own = focal if ends else lambda output, target: focal(output.sigmoid(), target)
    history = colabkit.fit(
        model,
        (x, y),
        tmp_path,
        loss=known if loss == "known" else own,
        metrics=["accuracy"],
        validation_data=(x, y),
        progress=False,
    )
    with torch.no_grad():
        says_yes = model(x) > (0.5 if ends else 0.0)
    right = (says_yes == (y > 0.5)).float().mean()
    assert history.epochs[0]["val_accuracy"] == pytest.approx(float(right))


def test_accuracy_whose_classes_may_lie_in_either_dimension_is_said(tmp_path):
    ids = torch.randint(0, 30, (16, 5))
    with pytest.raises(ArgumentError, match="either dimension") as caught:
        colabkit.fit(
            Tokens(5, own=False), (ids, ids % 5), tmp_path, loss=last, metrics="accuracy", **QUIET
        )
    assert "argmax(-1)" in caught.value.hint


def test_accuracy_of_pixels_and_of_probabilities_and_of_ignored_samples(tmp_path):
    images = torch.randn(12, 2, 4, 6)
    model = nn.Conv2d(2, 3, 1)
    still = {"optimizer": lambda p: torch.optim.SGD(p, 0.0), "metrics": "accuracy", **QUIET}
    masks = model(images).argmax(1).masked_fill(torch.rand(12, 4, 6) < 0.3, -100)
    history = colabkit.fit(model, (images, masks), tmp_path / "pixels", **still)
    assert history.epochs[0]["accuracy"] == 1.0
    model = nn.Linear(6, 3)
    hot = functional.one_hot(model(X).argmax(1), 3) * 0.8 + 0.05
    loss = nn.CrossEntropyLoss()
    history = colabkit.fit(model, (X, hot), tmp_path / "soft", loss=loss, **still)
    assert history.epochs[0]["accuracy"] == 1.0
    some = model(X).argmax(1)
    some[::3] = -100
    history = colabkit.fit(model, (X, some), tmp_path / "some", batch_size=8, **still)
    assert history.epochs[0]["accuracy"] == 1.0


def test_counts_of_hits_survive_a_resume_in_mid_epoch(tmp_path):
    class StopError(Exception):
        pass

    class StopAt:
        def on_batch_end(self, run, step, logs):
            run.flush()
            if step == 3:
                raise StopError

    def train(folder: Path, **options: Any) -> colabkit.History:
        ids = torch.arange(440).reshape(44, 10) % 30
        labels = (ids % 4).masked_fill(ids % 7 < ids[:, :1] % 7, -100)
        data = {"ids": ids, "labels": labels}
        model = Tokens(4, own=True)
        made = {"batch_size": 8, "metrics": ["accuracy"], "save_every": 1, **QUIET, **options}
        return colabkit.fit(model, data, folder, epochs=2, **made)

    alone = train(tmp_path / "alone")
    with pytest.raises(StopError):
        train(tmp_path / "run", callbacks=[StopAt()])
    assert train(tmp_path / "run").history == alone.history


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.rnn, self.head = nn.GRU(3, 8), nn.Linear(8, 2)

    def forward(self, packed: Any) -> torch.Tensor:
        return self.head(self.rnn(packed)[1][0])


def packed_loader() -> torch_data.DataLoader:
    generator = torch.Generator().manual_seed(3)
    rows = [
        (torch.randn(2 + i % 5, 3, generator=generator), torch.tensor(i % 2)) for i in range(20)
    ]

    def collate(items: Any) -> Any:
        x, y = zip(*items, strict=True)
        return pack_sequence(x, enforce_sorted=False), torch.stack(y)

    return torch_data.DataLoader(rows, 8, collate_fn=collate)


def test_packed_sequences_train_as_in_the_plain_loop(tmp_path):
    plain, ours = Recurrent(), Recurrent()
    optimizer, losses = torch.optim.Adam(plain.parameters(), 0.01), []
    for _ in range(2):
        for packed, y in packed_loader():
            loss = functional.cross_entropy(plain(packed), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(y)))
    history = colabkit.fit(
        ours,
        packed_loader(),
        tmp_path,
        epochs=2,
        optimizer=torch.optim.Adam(ours.parameters(), 0.01),
        **QUIET,
    )
    assert history.steps["loss"].tolist() == [loss for loss, _ in losses]
    of_first = losses[:3]
    assert history.epochs[0]["loss"] == sum(a * n for a, n in of_first) / 20
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))


def test_packed_sequences_are_not_cut_into_parts(tmp_path):
    with pytest.raises(ArgumentError, match="is packed") as caught:
        colabkit.fit(Recurrent(), packed_loader(), tmp_path, microbatch=2, **QUIET)
    assert "accumulate" in caught.value.hint


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.one, self.other = nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.one(x), self.other(x)


def of_both(output: Any, target: Any) -> torch.Tensor:
    (classes, numbers), (y, z) = output, target
    return functional.cross_entropy(classes, y) + functional.mse_loss(numbers, z)


def test_two_targets_reach_a_loss_of_ones_own(tmp_path):
    plain, ours, z = Two(), Two(), X[:, :1]
    data = [(X[i : i + 8], (Y[i : i + 8], z[i : i + 8])) for i in range(0, 40, 8)]
    optimizer = torch.optim.SGD(plain.parameters(), 0.1)
    for x, targets in data:
        optimizer.zero_grad()
        of_both(plain(x), targets).backward()
        optimizer.step()
    colabkit.fit(
        ours,
        data,
        tmp_path,
        loss=of_both,
        optimizer=torch.optim.SGD(ours.parameters(), 0.1),
        **QUIET,
    )
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))


IMAGES = [torch.rand(3, 4, 4) for _ in range(4)]
BOXES = [{"boxes": torch.rand(2, 4), "labels": torch.ones(2)} for _ in range(4)]
# What fit cannot call a model with: what it says, and the way on.
FORMS: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "detection": ([(tuple(IMAGES), tuple(BOXES))], {}, "one dict for each sample", "colabkit.Run"),
    "a list of dicts": ([[{"x": x} for x in X[:4]]], {}, "a list of samples", "colabkit.Run"),
    "two targets": ((X, Y, X[:, 0]), {}, "gives Sequential 2 inputs", "(x, (y1, y2))"),
    "names": ({"x": X, "labels": Y}, {"loss": "cross_entropy"}, "names x", "names that forward"),
    "mae of classes": ((X, Y), {"metrics": "mae"}, "mae cannot compare", "another metric"),
    "accuracy of numbers": (
        (X, X[:, :2]), {"metrics": "accuracy", "loss": lambda o, y: o.mean()}, "cannot compare",
        "metrics=",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_fit_does_not_take_is_told_with_the_way_on(name, tmp_path):
    data, options, said, hint = FORMS[name]
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(network(), data, tmp_path, **options, **QUIET)
    assert said in caught.value.message
    assert hint in caught.value.hint


class Named(nn.Linear):
    """Is called by names."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


# Single samples, which a DataLoader would make batches of: by what they are, and the model.
SAMPLES_OF = {
    "dicts of tensors": (lambda x, y: {"x": x, "labels": torch.tensor(y)}, None),
    "dicts with a number": (lambda x, y: {"x": x, "labels": y}, None),
    "dicts of lists": (lambda x, y: {"x": x.tolist(), "labels": y}, None),
    "dicts of arrays": (lambda x, y: {"x": x.numpy(), "labels": y}, "cross_entropy"),
    "pairs with a number": (lambda x, y: (x, y), None),
    "pairs with a number, and a loss": (lambda x, y: (x, y), "cross_entropy"),
    "pairs with a float": (lambda x, y: (x, torch.tensor(float(y))), None),
}


@pytest.mark.parametrize("name", SAMPLES_OF)
def test_single_samples_are_told_that_a_loader_makes_batches_of_them(name, tmp_path):
    sample, loss = SAMPLES_OF[name]
    data = [sample(x, int(y)) for x, y in zip(X[:4], Y[:4], strict=True)]
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(Named(X.shape[1], 3), data, tmp_path, loss=loss, **QUIET)
    assert caught.value.argument == "data"
    assert "DataLoader(data, batch_size=32" in caught.value.hint


def test_a_layer_that_wants_a_batch_and_got_a_sample_tells_so(tmp_path):
    model = nn.Sequential(nn.Linear(X.shape[1], 3), nn.BatchNorm1d(3))
    with pytest.raises(ArgumentError, match="one sample at a time"):
        colabkit.fit(model, list(zip(X[:4], Y[:4], strict=True)), tmp_path, **QUIET)


@pytest.mark.parametrize("loss", [None, "cross_entropy", nn.CrossEntropyLoss()])
def test_a_model_of_two_outputs_is_told_what_to_pass(loss, tmp_path):
    with pytest.raises(ArgumentError, match="returned a tuple of 2") as caught:
        colabkit.fit(Two(), (X, Y), tmp_path, loss=loss, **QUIET)
    assert "output[0]" in caught.value.hint


class Steps(nn.Linear):
    """A module whose trainer calls its steps, as Lightning's does."""

    forward = nn.Module.forward

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        raise AssertionError


def test_a_module_without_forward_is_told_what_to_write(tmp_path):
    with pytest.raises(ArgumentError, match="has no forward") as caught:
        colabkit.fit(Steps(6, 3), (X, Y), tmp_path, **QUIET)
    assert "training_step" in caught.value.hint


class LikeTimm:
    """Stepped by the number of the epoch, and told of each update."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.calls: list[Any] = []

    def step(self, epoch: int, metric: float | None = None) -> None:
        self.calls.append(("epoch", epoch, metric is not None))
        self._set(epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        self.calls.append(num_updates)
        self._set(num_updates / 3)

    def _set(self, place: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1 / (1 + place)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_schedulers_that_count_epochs_and_updates_are_told_both_also_after_a_resume(tmp_path):
    told = []
    for epochs in (1, 2):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scheduler = LikeTimm(optimizer)
        history = colabkit.fit(
            model,
            (X, Y),
            tmp_path,
            epochs=epochs,
            batch_size=8,
            accumulate=2,
            optimizer=optimizer,
            scheduler=scheduler,
            **QUIET,
        )
        told += scheduler.calls
    assert told == [1, 2, 3, ("epoch", 1, True), 4, 5, 6, ("epoch", 2, True)]
    assert [row["lr"] for row in history.epochs] == [0.1 / 2, 0.1 / 3]


class OfEpoch(LikeTimm):
    step_update = None

    def step(self, epoch: int) -> None:
        super().step(epoch)


class OfValue(LikeTimm):
    step_update = None

    def step(self, metrics: float) -> None:
        self.calls.append(metrics)


class OfMore(LikeTimm):
    def step(self, fold: int, temperature: float) -> None:
        raise AssertionError


def test_a_scheduler_gets_what_its_step_asks_for(tmp_path):
    made: list[LikeTimm] = []

    def making(kind: Any) -> Any:
        return lambda optimizer: made.append(kind(optimizer)) or made[-1]

    data = torch_data.DataLoader(torch_data.TensorDataset(X, Y), 8)
    fit = {"epochs": 2, **QUIET}
    colabkit.fit(network(), data, tmp_path / "epoch", scheduler=making(OfEpoch), **fit)
    assert [call[1] for call in made.pop().calls] == [1, 2]
    history = colabkit.fit(network(), data, tmp_path / "value", scheduler=making(OfValue), **fit)
    assert made.pop().calls == history.history["loss"]
    per_step = (making(OfEpoch), "step")
    colabkit.fit(network(), data, tmp_path / "step", scheduler=per_step, **fit)
    assert [call[1] for call in made.pop().calls] == [*range(1, 13)]


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [(OfMore, "wants fold, temperature"), ((lr_scheduler.ReduceLROnPlateau, "step"), "each epoch")],
)
def test_a_scheduler_that_fit_cannot_step_is_told_beforehand(scheduler, said, tmp_path):
    if isinstance(scheduler, tuple):
        scheduler = (lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer), "step")
    else:
        scheduler = lambda optimizer: OfMore(optimizer)  # noqa: E731
    with pytest.raises(ArgumentError, match=said) as caught:
        colabkit.fit(network(), (X, Y), tmp_path / "run", scheduler=scheduler, **QUIET)
    assert "colabkit.Run" in caught.value.hint
    assert not (tmp_path / "run").exists()


class Averaging(torch.optim.SGD):
    """Trains one set of weights and shows another, as schedule-free optimizers do."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr)
        self.param_groups[0]["train_mode"] = False
        self.modes: list[str] = []

    @torch.no_grad()
    def _move(self, mode: str, factor: float) -> None:
        self.modes.append(mode)
        if self.param_groups[0]["train_mode"] != (mode == "train"):
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(factor)
        self.param_groups[0]["train_mode"] = mode == "train"

    def train(self) -> None:
        self._move("train", 0.5)

    def eval(self) -> None:
        self._move("eval", 2.0)

    def step(self, closure: Any = None) -> Any:
        assert self.param_groups[0]["train_mode"]
        return super().step(closure)


def test_an_optimizer_of_two_sets_of_weights_shows_each_in_its_time(tmp_path):
    plain, ours = network(dropout=0.0), network(dropout=0.0)
    data = torch_data.DataLoader(torch_data.TensorDataset(X, Y), 8)
    optimizer, validated = Averaging(plain.parameters(), 0.1), []
    for _ in range(2):
        optimizer.train()
        for x, y in data:
            optimizer.zero_grad()
            functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
        optimizer.eval()
        with torch.no_grad():
            validated.append(functional.cross_entropy(plain(X), Y).item())
    theirs = Averaging(ours.parameters(), 0.1)
    history = colabkit.fit(
        ours, data, tmp_path, epochs=2, optimizer=theirs, validation_data=[(X, Y)], **QUIET
    )
    assert history.history["val_loss"] == validated
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))
    kept = network()
    colabkit.load(kept, tmp_path)
    assert all(map(torch.equal, kept.parameters(), ours.parameters()))


class Centres(nn.Module):
    """A loss that learns a centre of each class."""

    def __init__(self, teacher: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.centres = nn.Parameter(torch.randn(3, 3))
        self.teacher = teacher

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.teacher is not None:
            with torch.no_grad():
                self.teacher(X[: len(output)])
        return functional.cross_entropy(output @ self.centres.T, target)


@pytest.mark.parametrize("optimizer", [None, "sgd", lambda every: torch.optim.Adam(every, 0.01)])
@pytest.mark.parametrize("norm", [None, 0.1])
def test_a_loss_that_has_weights_learns_with_the_model(optimizer, norm, tmp_path, capsys):
    plain, ours = network(dropout=0.0), network(dropout=0.0)
    of_plain, of_ours = Centres(), Centres()
    both = [*plain.parameters(), *of_plain.parameters()]
    made = {
        None: lambda: torch.optim.AdamW(both, fused=True),
        "sgd": lambda: torch.optim.SGD(both, 0.01, momentum=0.9, fused=True),
    }.get(optimizer, lambda: torch.optim.Adam(both, 0.01))()
    data = torch_data.DataLoader(torch_data.TensorDataset(X, Y), 8)
    for _ in range(2):
        for x, y in data:
            made.zero_grad()
            of_plain(plain(x), y).backward()
            if norm:
                nn.utils.clip_grad_norm_(both, norm)
            made.step()
    of_ours.centres.grad = torch.ones(3, 3)  # left by an earlier loop
    colabkit.fit(
        ours,
        data,
        tmp_path,
        epochs=2,
        loss=of_ours,
        optimizer=optimizer,
        clip_grad_norm=norm,
        device="cpu",
    )
    assert torch.equal(of_plain.centres, of_ours.centres)
    assert all(map(torch.equal, plain.parameters(), ours.parameters()))
    assert "Centres has weights of its own (centres): trained too." in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 3}, {"microbatch": 4}, {"precision": "fp16"}]
)
def test_an_optimizer_that_leaves_a_losss_weights_out_is_told_before_its_first_step(
    options, tmp_path
):
    model, loss = network(), Centres()
    before = [each.detach().clone() for each in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ArgumentError, match=r"weights of its own \(centres\)") as caught:
        colabkit.fit(
            model,
            (X, Y),
            tmp_path,
            batch_size=8,
            loss=loss,
            optimizer=optimizer,
            **options,
            **QUIET,
        )
    assert caught.value.argument == "optimizer"
    assert "[*model.parameters(), *loss.parameters()]" in caught.value.hint
    assert all(map(torch.equal, before, model.parameters()))
    mended = torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.1)
    made = {"batch_size": 8, "loss": loss, "optimizer": mended, **options, **QUIET}
    assert colabkit.fit(model, (X, Y), tmp_path, **made).epochs


def test_weights_of_a_loss_that_get_no_gradient_may_be_left_out(tmp_path):
    """A frozen backbone, a teacher that is only asked, the model itself."""
    model = network()
    loss = Centres(teacher=network())
    loss.centres.requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    colabkit.fit(model, (X, Y), tmp_path / "a", loss=loss, optimizer=optimizer, **QUIET)
    loss.teacher = model
    colabkit.fit(model, (X, Y), tmp_path / "b", loss=loss, optimizer=optimizer, **QUIET)


class _Reused(torch.autograd.Function):
    """Gives its result in the same memory each time, as CUDA graphs do."""

    memory = torch.zeros(())

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            _Reused.memory.copy_(loss)
        return _Reused.memory.view(())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clone()


class Compiled(nn.Module):
    def __init__(self, *, reuses: bool) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.head, self.reuses = nn.Linear(6, 3), reuses

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = functional.cross_entropy(self.head(x), labels)
        return {"loss": _Reused.apply(loss) if self.reuses else loss}


def test_a_loss_whose_memory_the_next_one_takes_is_noted_as_it_was(tmp_path):
    histories = [
        colabkit.fit(
            Compiled(reuses=reuses),
            {"x": X, "labels": Y},
            tmp_path / str(reuses),
            batch_size=8,
            validation_data=[{"x": X[:8], "labels": Y[:8]}, {"x": X[8:], "labels": Y[8:]}],
            **QUIET,
        )
        for reuses in (False, True)
    ]
    assert histories[0].history == histories[1].history
    assert histories[0].steps["loss"].tolist() == histories[1].steps["loss"].tolist()


class Gathering:
    """The gradient count of one process, as Accelerate keeps it."""

    def __init__(self) -> None:
        self.shared = {"sync_gradients": True}
        self.loader: Any = None


class Prepared:
    """A loader that marks its last batch, as Accelerate's are."""

    end_of_dataloader, device = False, None

    def __init__(self, inner: torch_data.DataLoader, gathering: Gathering) -> None:
        self.base_dataloader, self.gathering = inner, gathering
        self.marks: list[bool] = []

    @property
    def __class__(self) -> type:
        return torch_data.DataLoader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["base_dataloader"], name)

    def begin(self) -> None:
        self.end_of_dataloader, self.gathering.loader = False, self

    def end(self) -> None:
        self.gathering.loader = None

    def state_dict(self) -> dict[str, Any]:
        return self.base_dataloader.absent


class Wrapped(torch.optim.Optimizer):
    """An optimizer without hooks that steps every second batch and at the loader's end."""

    def __init__(self, optimizer: torch.optim.Optimizer, gathering: Gathering) -> None:
        self.optimizer, self.gathering, self.count = optimizer, gathering, 0
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def gather(self) -> None:
        loader = self.gathering.loader
        ends = loader is not None and loader.end_of_dataloader
        self.count = 0 if ends else self.count + 1
        self.gathering.shared["sync_gradients"] = self.count % 2 == 0

    def step(self, closure: Any = None) -> None:
        if self.gathering.shared["sync_gradients"]:
            self.optimizer.step()
            self.optimizer.zero_grad()


@pytest.fixture
def gathering(monkeypatch):
    made = Gathering()
    state = types.SimpleNamespace(_shared_state=made.shared)
    monkeypatch.setitem(sys.modules, "accelerate.state", types.SimpleNamespace(GradientState=state))
    return made


class StopError(Exception):
    pass


@pytest.mark.parametrize("is_wrapped", [True, False])
def test_gathered_gradients_that_accelerate_counts_are_never_cut_in_two(
    is_wrapped, gathering, tmp_path
):
    """Five batches in groups of two and one: saves wait for the end of a group."""

    def train(folder: Path, stop_at: int | None = None) -> Any:
        model = network()
        inner = torch.optim.AdamW(model.parameters(), 0.01)
        optimizer = Wrapped(inner, gathering)
        rows = torch_data.TensorDataset(X[:40], Y[:40])
        loader = Prepared(torch_data.DataLoader(rows, 8, shuffle=True), gathering)
        objects = {"model": model, "optimizer": optimizer if is_wrapped else inner}
        run = colabkit.Run(folder, save_every=1, progress=False, **objects)
        for _ in run.epochs(3):
            for x, y in run.batches(loader):
                optimizer.gather()
                (functional.cross_entropy(model(x), y) / 2).backward()
                optimizer.step()
                run.flush()
                if run.step == stop_at:
                    os._exit(0)
        return model

    alone = train(tmp_path / "alone")
    for step in (2, 4, 8, 11):
        reaped(forked(lambda step=step: train(tmp_path / "run", step), report=tmp_path / "said"))
        newest = colabkit.checkpoints(tmp_path / "run")[0].step
        assert newest == {2: 2, 4: 4, 8: 7, 11: 10}[step]
    resumed = train(tmp_path / "run")
    assert all(map(torch.equal, alone.parameters(), resumed.parameters()))


class Regularized(nn.Module):
    """A loss that looks at the model's own weights, and has one of its own or none."""

    def __init__(self, model: nn.Module, *, has_own: bool) -> None:
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.ones(())) if has_own else None

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        size = sum(each.square().sum() for each in self.model.parameters())
        loss = functional.cross_entropy(output, target) + 0.001 * size
        return loss if self.scale is None else loss * self.scale


@pytest.mark.parametrize("has_own", [False, True])
def test_a_loss_that_holds_the_model_has_only_its_own_weights_besides(has_own, tmp_path, capsys):
    model, given = network(), []

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        given.extend(parameters)
        return torch.optim.SGD(given, lr=0.1)

    loss = Regularized(model, has_own=has_own)
    colabkit.fit(model, arrays(), tmp_path, loss=loss, optimizer=optimizer, device="cpu")
    own = [] if loss.scale is None else [loss.scale]
    assert [id(each) for each in given] == [id(each) for each in (*model.parameters(), *own)]
    said = capsys.readouterr().out
    assert ("weights of its own (scale)" in said) is has_own
