"""What ``fit`` computes is what the loop written by hand computes, to the last bit."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError
from tests.torch import by_hand
from tests.torch.cases import Table, arrays, network


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


QUIET = {"progress": False, "device": "cpu"}
EPOCHS = 2
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def cross_entropy(output: torch.Tensor, target: torch.Tensor, count: int) -> torch.Tensor:
    return functional.cross_entropy(output, target, reduction="sum") / count


def right(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def model() -> nn.Module:
    return network(dropout=0.0)


def batches(scale: float = 1.0) -> torch_data.DataLoader:
    """Six batches of 8 samples, the last of 4."""
    x, y = arrays()
    return torch_data.DataLoader(torch_data.TensorDataset(x * scale, y), batch_size=8)


def same_bits(plain: nn.Module, ours: nn.Module) -> None:
    pairs = zip(plain.state_dict().items(), ours.state_dict().values(), strict=True)
    for (name, one), other in pairs:
        assert torch.equal(one, other), name


def same_told(told: by_hand.Told, history: colabkit.History) -> None:
    assert history.steps["loss"].tolist() == told.losses
    for ours, plain in zip(history.epochs, told.epochs, strict=True):
        assert {name: ours[name] for name in plain} == plain


SCHEDULES = {
    None: None,
    "epoch": lambda o: lr_scheduler.StepLR(o, 1, 0.5),
    "step": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.9),
}


def fitted_and_by_hand(folder: Path, schedule: str | None, precision: str, **options: Any) -> int:
    """Trains both ways and compares; returns how many steps the gradient scaler skipped."""
    # So large that the first steps in fp16 overflow, and the later ones do not.
    data = batches(16.0 if precision == "fp16" else 1.0)
    plain, ours = model(), model()
    optimizers = [torch.optim.AdamW(each.parameters(), 0.01) for each in (plain, ours)]
    first, second = (make(o) if (make := SCHEDULES[schedule]) else None for o in optimizers)
    per_step = schedule in {"step", "onecycle"}
    each_epoch = None
    if schedule == "plateau":
        each_epoch = lambda row: first.step(row["val_loss"])  # noqa: E731
    elif schedule == "epoch":
        each_epoch = lambda row: first.step()  # noqa: E731
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=EPOCHS,
        optimizer=optimizers[0],
        loss=cross_entropy,
        groups=options["accumulate"],
        clip=options["clip_grad_norm"],
        dtype=DTYPES[precision],
        size=options["microbatch"],
        each_step=first if per_step else None,
        each_epoch=each_epoch,
        validation=list(data),
        metrics={"accuracy": right},
    )
    history = colabkit.fit(
        ours,
        data,
        folder,
        epochs=EPOCHS,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizers[1],
        scheduler=(second, "step") if schedule == "step" else second,
        metrics=["accuracy"],
        validation_data=data,
        precision=precision,
        **options,
        **QUIET,
    )
    same_told(told, history)
    same_bits(plain, ours)
    return told.skipped


# Every two choices meet somewhere; groups of 4 leave two batches over, 9 are more than there are.
LATTICE = [
    (*choice, schedule)
    for choice, schedule in zip(
        itertools.product([1, 2, 4, 9], DTYPES, [None, 0.05], [None, 3]), itertools.cycle(SCHEDULES)
    )
]


@pytest.mark.parametrize(("accumulate", "precision", "norm", "size", "schedule"), LATTICE)
def test_options_together_give_the_bits_of_the_plain_loop(
    accumulate, precision, norm, size, schedule, tmp_path
):
    options = {"accumulate": accumulate, "clip_grad_norm": norm, "microbatch": size}
    skipped = fitted_and_by_hand(tmp_path, schedule, precision, **options)
    # The mean over a whole epoch is too small to overflow.
    assert bool(skipped) == (precision == "fp16" and accumulate < 9)


class Counting(torch_data.Sampler[int]):
    """Draws each order by how many it has given."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return len(arrays()[0])

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        generator = torch.Generator().manual_seed(self.passes)
        return iter(torch.randperm(len(self), generator=generator).tolist())


def test_a_sampler_that_counts_gives_the_orders_of_the_plain_loop(tmp_path):
    def shuffled() -> torch_data.DataLoader:
        data = torch_data.TensorDataset(*arrays())
        return torch_data.DataLoader(data, batch_size=8, sampler=Counting())

    plain, ours, own = model(), model(), shuffled()
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in (plain, ours)]
    told = by_hand.train(
        plain, lambda: own, epochs=EPOCHS, optimizer=optimizers[0], loss=cross_entropy
    )
    options = {"optimizer": optimizers[1], "loss": nn.CrossEntropyLoss(), **QUIET}
    history = colabkit.fit(ours, shuffled(), tmp_path, epochs=EPOCHS, **options)
    same_told(told, history)
    same_bits(plain, ours)
    assert "told the number of each by a method set_epoch" in str(history.verdict)


def test_a_schedule_may_be_given_as_its_class(tmp_path):
    told, optimizer = [], torch.optim.SGD(model().parameters(), 0.1)
    schedule = lr_scheduler.LinearLR(optimizer)
    for _ in range(EPOCHS):
        told.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    ours = model()
    history = colabkit.fit(
        ours,
        batches(),
        tmp_path,
        epochs=EPOCHS,
        optimizer=torch.optim.SGD(ours.parameters(), 0.1),
        scheduler=lr_scheduler.LinearLR,
        **QUIET,
    )
    assert [row["lr"] for row in history.epochs] == told


def mean_of(function: Any) -> Any:
    """Returns a loss that is a mean over samples, as the part that some samples are of a batch."""

    def part(output: torch.Tensor, target: torch.Tensor, count: int) -> torch.Tensor:
        value = function(output, target)
        return value if len(target) == count else value * (len(target) / count)

    return part


X, Y = arrays()
HOT = functional.one_hot(Y, 3).float()
SEVERAL = (HOT.roll(1, 0) + HOT).clamp(max=1)
WEIGHT = torch.tensor([0.2, 1.0, 3.0])
SOME = Y.where(torch.arange(len(Y)) % 5 > 1, -100)


class Pair(nn.Module):
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.one(x) * mask + self.other(x)


def narrow() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def scored(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.nll_loss(output.log_softmax(1), target)


def counted(output: torch.Tensor, target: torch.Tensor, count: int) -> torch.Tensor:
    """Cross-entropy whose mean is over the targets that count; for whole batches only."""
    return functional.cross_entropy(output, target, weight=WEIGHT, label_smoothing=0.1)


def binary(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(output, target.view(-1, 1).float())


# How a loss is asked for, the data it is for, and what it is.
LOSSES: dict[str, tuple[Any, Any, Any, Any]] = {
    "inferred classes": (None, model, (X, Y), cross_entropy),
    "by name": ("cross_entropy", model, (X, Y), cross_entropy),
    "a function": (functional.cross_entropy, model, (X, Y), cross_entropy),
    "probabilities": (nn.CrossEntropyLoss(), model, (X, HOT), mean_of(functional.cross_entropy)),
    "weights and ignored targets": (
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1), model, (X, SOME), counted,
    ),
    "several labels at once": (
        "bce", model, (X, SEVERAL), mean_of(functional.binary_cross_entropy_with_logits),
    ),
    "inferred yes or no": (None, narrow, (X, Y.clamp(max=1)), mean_of(binary)),
    "inferred numbers": (
        None, narrow, (X, X[:, 0]), mean_of(lambda o, t: functional.mse_loss(o, t[:, None])),
    ),
    "a column of numbers": ("mae", narrow, (X, X[:, :1]), mean_of(functional.l1_loss)),
    "l1": ("l1", narrow, (X, X[:, :1]), mean_of(functional.l1_loss)),
    "nll": (
        "nll", model, (X, Y), lambda o, t, n: functional.nll_loss(o, t, reduction="sum") / n,
    ),
    "huber": ("huber", narrow, (X, X[:, :1]), mean_of(functional.huber_loss)),
    "of one's own": (scored, model, (X, Y), mean_of(scored)),
    "two inputs": (None, Pair, (X, HOT, Y), cross_entropy),
}  # fmt: skip


# How the parts of a loss with weights and ignored targets weigh is test_microbatch's business.
@pytest.mark.parametrize(
    ("name", "size"),
    [(n, s) for n in LOSSES for s in (None, 3) if s is None or LOSSES[n][3] is not counted],
)
def test_each_loss_is_the_plain_one(name, size, tmp_path):
    loss, make, data, by_formula = LOSSES[name]
    plain, ours = make(), make()
    loader = torch_data.DataLoader(torch_data.TensorDataset(*data), batch_size=8)
    told = by_hand.train(
        plain,
        lambda: loader,
        epochs=EPOCHS,
        optimizer=torch.optim.SGD(plain.parameters(), 0.05),
        loss=by_formula,
        size=size,
        validation=list(loader),
    )
    history = colabkit.fit(
        ours,
        loader,
        tmp_path,
        epochs=EPOCHS,
        loss=loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.05),
        validation_data=loader,
        microbatch=size,
        **QUIET,
    )
    same_told(told, history)
    same_bits(plain, ours)


OPTIMIZERS = {
    None: functools.partial(torch.optim.AdamW, fused=True),
    "adamw": functools.partial(torch.optim.AdamW, fused=True),
    "adam": functools.partial(torch.optim.Adam, fused=True),
    "sgd": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=True),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_by_name_is_the_plain_one(name, tmp_path):
    plain, ours, data = model(), model(), batches()
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=EPOCHS,
        optimizer=OPTIMIZERS[name](plain.parameters()),
        loss=cross_entropy,
    )
    same_told(told, colabkit.fit(ours, data, tmp_path, epochs=EPOCHS, optimizer=name, **QUIET))
    same_bits(plain, ours)


def test_schedules_by_name_are_the_plain_ones(tmp_path):
    for name in ("cosine", "onecycle"):
        plain, ours, data = model(), model(), batches()
        optimizer = torch.optim.SGD(plain.parameters(), 0.01, momentum=0.9, fused=True)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS) if name == "cosine" else None
        cycle = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12) if not cosine else None
        told = by_hand.train(
            plain,
            lambda data=data: data,
            epochs=EPOCHS,
            optimizer=optimizer,
            loss=cross_entropy,
            each_step=cycle,
            each_epoch=(lambda row, cosine=cosine: cosine.step()) if cosine else None,
        )
        history = colabkit.fit(
            ours, data, tmp_path / name, epochs=EPOCHS, optimizer="sgd", scheduler=name, **QUIET
        )
        same_told(told, history)
        same_bits(plain, ours)


def rising(after: str | None, warmup: int, updates: int) -> Any:
    """The share of the highest rate as Transformers' schedules of these names have it."""

    def share(done: int) -> float:
        if done < warmup:
            return float(done) / float(max(1, warmup))
        if after is None:
            return 1.0
        if after == "linear":
            return max(0.0, float(updates - done) / float(max(1, updates - warmup)))
        progress = float(done - warmup) / float(max(1, updates - warmup))
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 0.5 * 2.0 * progress)))

    return share


WARM_UPS = {
    "linear": ("linear", None, 0),
    "linear after 3 steps": ("linear", 3, 3),
    "cosine after 3 steps": ("cosine", 3, 3),
    "cosine of steps": (("cosine", "step"), None, 0),
    "a share of all": ("cosine", 0.26, 2),
    "nothing after it": (None, 3, 3),
}


@pytest.mark.parametrize("name", WARM_UPS)
def test_a_warm_up_and_what_comes_after_are_those_written_by_hand(name, tmp_path):
    scheduler, warmup, steps = WARM_UPS[name]
    plain, ours, data = model(), model(), batches()
    optimizer = torch.optim.AdamW(plain.parameters(), 0.02, weight_decay=0.1, fused=True)
    after = scheduler[0] if isinstance(scheduler, tuple) else scheduler
    # Six batches an epoch, two to a step.
    each_step = lr_scheduler.LambdaLR(optimizer, rising(after, steps, 3 * EPOCHS))
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=EPOCHS,
        optimizer=optimizer,
        loss=cross_entropy,
        groups=2,
        each_step=each_step,
    )
    asked = {"scheduler": scheduler, "warmup": warmup, "lr": 0.02, "weight_decay": 0.1}
    history = colabkit.fit(ours, data, tmp_path, epochs=EPOCHS, accumulate=2, **asked, **QUIET)
    same_told(told, history)
    same_bits(plain, ours)


def test_a_cycle_is_as_long_as_the_optimizer_steps(tmp_path):
    plain, ours, data = model(), model(), batches()
    optimizer = torch.optim.SGD(plain.parameters(), 0.01, momentum=0.9, fused=True)
    cycle = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3 * EPOCHS)
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=EPOCHS,
        optimizer=optimizer,
        loss=cross_entropy,
        groups=2,
        each_step=cycle,
    )
    asked = {"optimizer": "sgd", "scheduler": "onecycle", "accumulate": 2}
    same_told(told, colabkit.fit(ours, data, tmp_path, epochs=EPOCHS, **asked, **QUIET))
    same_bits(plain, ours)


@pytest.mark.parametrize("precision", ["16-mixed", 16, "bf16-mixed", torch.bfloat16, 32, "no"])
def test_a_precision_by_another_name_is_the_same(precision, tmp_path):
    plain, ours, data = model(), model(), batches()
    kind = {"16-mixed": "fp16", 16: "fp16", 32: "fp32", "no": "fp32"}.get(precision, "bf16")
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=1,
        optimizer=torch.optim.AdamW(plain.parameters(), fused=True),
        loss=cross_entropy,
        dtype=DTYPES[kind],
    )
    same_told(told, colabkit.fit(ours, data, tmp_path, precision=precision, **QUIET))
    same_bits(plain, ours)


class Uncounted:
    """Batches that come without a length."""

    def __iter__(self) -> Any:
        return iter(batches())


class Overcounted(Uncounted):
    """Says that it has more batches than it gives."""

    def __len__(self) -> int:
        return 9


class Undercounted(Uncounted):
    """Says that it has fewer."""

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("make", "groups"), [(Uncounted, [4, 2]), (Overcounted, [4, 2]), (Undercounted, [2, 4])]
)
def test_a_group_that_nobody_foresaw_weighs_as_any_other(make, groups, tmp_path):
    """Its mean is made afterwards, from 4 to 2 batches without any rounding."""
    plain, ours = model(), model()
    told = by_hand.train(
        plain,
        batches,
        epochs=EPOCHS,
        optimizer=torch.optim.SGD(plain.parameters(), 0.05),
        loss=cross_entropy,
        groups=groups,
        clip=0.05,
    )
    history = colabkit.fit(
        ours,
        make(),
        tmp_path,
        epochs=EPOCHS,
        optimizer=torch.optim.SGD(ours.parameters(), 0.05),
        accumulate=4,
        clip_grad_norm=0.05,
        **QUIET,
    )
    same_told(told, history)
    same_bits(plain, ours)


class LogsInto:
    def __init__(self, told: list[int]) -> None:
        self._told = told

    def log(self, values: dict[str, float], step: int) -> None:
        self._told.append(step)


@pytest.mark.parametrize(
    "options",
    [
        {"save_every": 1, "keep": 3},
        {"save_every": "5min", "monitor": "loss"},
        {"tensorboard": True},
        {"logger": LogsInto([])},
        {"resume": False},
        {"seed": 9},
        {"callbacks": [colabkit.EarlyStopping("loss", patience=5), lambda event: None]},
        {"metrics": {"right": right, "top": "accuracy"}},
        {"microbatch": "auto"},
        {"precision": "fp32", "accumulate": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_asked_for_besides_changes_no_bit(options, tmp_path):
    plain, ours, data = model(), model(), batches()
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=EPOCHS,
        optimizer=torch.optim.Adam(plain.parameters(), 0.01),
        loss=cross_entropy,
    )
    history = colabkit.fit(
        ours,
        data,
        tmp_path,
        epochs=EPOCHS,
        loss="cross_entropy",
        optimizer=torch.optim.Adam(ours.parameters(), 0.01),
        **options,
        **QUIET,
    )
    same_told(told, history)
    same_bits(plain, ours)


class StopError(Exception):
    pass


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: colabkit.Run, step: int, logs: Any) -> None:
        run.flush()
        if step == self.step:
            raise StopError


@pytest.mark.parametrize("name", [None, "sgd", "rmsprop"])
def test_an_optimizer_by_name_that_takes_no_sparse_gradients_says_what_to_write(name, tmp_path):
    with pytest.raises(ArgumentError, match="embedding with sparse=True") as caught:
        colabkit.fit(Table(), batches(), tmp_path / "run", optimizer=name, **QUIET)
    assert "torch.optim.SGD(p, lr=0.1)" in caught.value.hint
    assert not (tmp_path / "run").exists()
    plain = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    colabkit.fit(Table(), batches(), tmp_path / "run", optimizer=plain, **QUIET)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sgd_by_name_has_the_bits_of_pytorchs_own_loop_for_narrow_weights_too(dtype, tmp_path):
    def squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # PyTorch 2.4 has no mse_loss of bfloat16 on a CPU.
        return (output - target).square().mean()

    x, y = torch.randn(24, 16), torch.randn(24, 8)
    ours, plain = nn.Linear(16, 8).to(dtype), nn.Linear(16, 8).to(dtype)
    plain.load_state_dict(ours.state_dict())
    rows = [(x[at : at + 8].to(dtype), y[at : at + 8].to(dtype)) for at in (0, 8, 16)]
    colabkit.fit(ours, rows, tmp_path, epochs=3, optimizer="sgd", loss=squares, **QUIET)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    for a, b in rows * 3:
        optimizer.zero_grad()
        squares(plain(a), b).backward()
        optimizer.step()
    same_bits(plain, ours)


@pytest.mark.parametrize("make", [model, Table])
def test_a_group_that_is_broken_off_and_resumed_has_the_bits_of_the_plain_loop(make, tmp_path):
    """Also within an epoch's last group, which is smaller."""
    plain, data = make(), batches()
    told = by_hand.train(
        plain,
        lambda: data,
        epochs=EPOCHS,
        optimizer=torch.optim.SGD(plain.parameters(), 0.05),
        loss=cross_entropy,
        groups=4,
    )

    def fit(*callbacks: StopAt) -> tuple[nn.Module, colabkit.History]:
        ours = make()
        optimizer = torch.optim.SGD(ours.parameters(), 0.05)
        options = {"accumulate": 4, "save_every": 1, "callbacks": callbacks, **QUIET}
        return ours, colabkit.fit(
            ours, data, tmp_path, epochs=EPOCHS, optimizer=optimizer, **options
        )

    for step in (2, 5, 6, 11):
        with pytest.raises(StopError):
            fit(StopAt(step))
    ours, history = fit()
    same_told(told, history)
    same_bits(plain, ours)


def test_validation_is_without_dropout_and_gradients_and_leaves_the_mode(tmp_path):
    ours = network(dropout=0.5)
    seen: list[bool] = []

    def noted(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(output.requires_grad)
        return right(output, target)

    modes: list[bool] = []
    history = colabkit.fit(
        ours,
        batches(),
        tmp_path,
        validation_data=[(X, Y)],
        metrics=noted,
        callbacks=[lambda event: modes.append(ours[2].training)],
        **QUIET,
    )
    assert seen == [*[True] * 6, False]
    assert all(modes)
    assert ours.training
    with torch.no_grad():
        expected = functional.cross_entropy(ours.eval()(X), Y).item()
    assert history.epochs[0]["val_loss"] == expected


def test_metrics_by_name_are_the_plain_ones(tmp_path):
    """A column of outputs beside a row of targets is no table of their differences."""
    ours = narrow()
    wanted = X[:, 0]
    history = colabkit.fit(
        ours,
        (X, wanted),
        tmp_path,
        metrics=["mae", "mse", "accuracy"],
        validation_data=[(X, wanted)],
        **QUIET,
    )
    with torch.no_grad():
        found = ours(X).squeeze(1)
    row = history.epochs[0]
    assert row["val_mae"] == functional.l1_loss(found, wanted).item()
    assert row["val_mse"] == functional.mse_loss(found, wanted).item()
    hits = (found > 0) == (wanted > 0.5)
    assert row["val_accuracy"] == hits.float().mean().item()


def test_an_epoch_begins_in_training_whatever_the_one_before_has_left(tmp_path):
    ours, modes = model(), []

    def told(event: Any) -> None:
        if event.name == "epoch_end":
            ours.eval()
        elif event.name == "batch_end":
            modes.append(ours.training)

    colabkit.fit(ours, batches(), tmp_path, epochs=EPOCHS, callbacks=[told], **QUIET)
    assert modes == [True] * 12


def test_a_norm_of_sparse_gradients_is_told(tmp_path):
    optimizer = lambda parameters: torch.optim.SGD(parameters, 0.05)  # noqa: E731
    with pytest.raises(ArgumentError, match="no norm of sparse") as caught:
        colabkit.fit(Table(), (X, Y), tmp_path, optimizer=optimizer, clip_grad_norm=1.0, **QUIET)
    assert "sparse=False" in caught.value.hint


@pytest.mark.parametrize("whose", [(), ("before",), ("after",), ("before", "after")])
def test_hooks_are_called_at_each_step_and_a_profilers_label_is_paid_for_no_other(
    whose, tmp_path, monkeypatch
):
    ours, calls, labels = model(), [], []
    optimizer = torch.optim.SGD(ours.parameters(), 0.05)
    if "before" in whose:
        optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    if "after" in whose:
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    enter = torch.autograd.profiler.record_function.__enter__
    monkeypatch.setattr(
        torch.autograd.profiler.record_function,
        "__enter__",
        lambda self: labels.append(self.name) or enter(self),
    )
    colabkit.fit(ours, batches(), tmp_path, epochs=EPOCHS, optimizer=optimizer, **QUIET)
    assert calls == list(whose) * 12
    assert len([each for each in labels if "step" in each]) == (12 if whose else 0)
