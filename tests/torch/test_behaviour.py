"""What fit does for the person at the keyboard, beyond exact resumes."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import (
    ArgumentError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    DiskFullError,
    DivergedError,
    LeaseLostError,
    StateError,
    StorageError,
)
from colabkit.fitting.torch.batch_statistics import takes_statistics
from tests.places import small_disk
from tests.torch.cases import SAMPLES, Augmented, arrays, loader, network

QUIET = {"progress": False, "device": "cpu"}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_nothing_is_added_to_the_arithmetic_of_the_plain_loop(make, tmp_path):
    plain, ours = network(dropout=0.0), network(dropout=0.0)
    batches = torch_data.DataLoader(torch_data.TensorDataset(*arrays()), batch_size=8)
    optimizer = make(plain.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        for x, y in batches:
            optimizer.zero_grad()
            loss = functional.cross_entropy(plain(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    own = make(ours.parameters(), lr=0.01)
    history = colabkit.fit(
        ours, batches, tmp_path, epochs=3, optimizer=own, loss=nn.CrossEntropyLoss(), **QUIET
    )
    assert same_weights(plain, ours)
    assert history.steps["loss"].tolist() == losses


def test_running_again_after_the_last_epoch_changes_nothing(tmp_path):
    first = network()
    history = colabkit.fit(first, arrays(), tmp_path, epochs=2, **QUIET)
    again = network()
    repeated = colabkit.fit(again, arrays(), tmp_path, epochs=2, **QUIET)
    assert same_weights(first, again)
    assert repeated.numbers()["epochs"] == history.numbers()["epochs"]


@pytest.mark.parametrize("resumed", [False, True])
def test_gradients_that_a_broken_step_has_left_are_not_added(resumed, tmp_path):
    clean, left = network(), network()
    for model, folder in ((clean, tmp_path / "clean"), (left, tmp_path / "left")):
        if resumed:
            colabkit.fit(model, arrays(), folder, epochs=1, **QUIET)
    for parameter in left.parameters():
        parameter.grad = torch.ones_like(parameter)
    for model, folder in ((clean, tmp_path / "clean"), (left, tmp_path / "left")):
        colabkit.fit(model, arrays(), folder, epochs=2, **QUIET)
    assert same_weights(clean, left)


def test_more_epochs_train_on_as_if_they_had_been_asked_for_at_once(tmp_path):
    longer, resumed = network(), network()
    colabkit.fit(longer, arrays(), tmp_path / "longer", epochs=4, **QUIET)
    colabkit.fit(network(), arrays(), tmp_path / "short", epochs=2, **QUIET)
    colabkit.fit(resumed, arrays(), tmp_path / "short", epochs=4, **QUIET)
    assert same_weights(longer, resumed)


class Interrupting:
    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run, step, logs):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_saves_and_returns(tmp_path):
    alone, resumed = network(), network()
    colabkit.fit(alone, loader(), tmp_path / "alone", epochs=2, **QUIET)
    history = colabkit.fit(
        network(), loader(), tmp_path / "run", epochs=2, callbacks=[Interrupting(8)], **QUIET
    )
    assert len(history.epochs) == 1
    assert colabkit.checkpoints(tmp_path / "run")[0].step == 8
    colabkit.fit(resumed, loader(), tmp_path / "run", epochs=2, **QUIET)
    assert same_weights(alone, resumed)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_interrupts_are_ignored_they_stay_so(tmp_path):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = colabkit.fit(
            network(), loader(), tmp_path, epochs=2, callbacks=[Interrupting(3)], **QUIET
        )
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(history.epochs) == 2


def test_a_pass_that_somebody_holds_on_to_keeps_no_session_open(tmp_path):
    run, held = colabkit.Run(tmp_path, progress=False), []

    def broken_off() -> None:
        for _ in run.epochs(2):
            held.append(run.items("abc"))
            for _ in held[0]:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run.save_status is None
    held[0].close()


def test_runs_that_end_in_the_order_they_began_keep_ctrl_c_and_give_it_back(tmp_path):
    older = colabkit.Run(tmp_path / "older", progress=False).items(range(9))
    newer = colabkit.Run(tmp_path / "newer", progress=False).items(range(9))
    for passing in (older, newer):
        next(passing)
    older.close()
    os.kill(os.getpid(), signal.SIGINT)  # held back by the newer
    with pytest.raises(KeyboardInterrupt):
        next(newer)
    assert colabkit.checkpoints(tmp_path / "newer")[0].step == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_processes_that_load_data_do_not_answer_an_interrupt(tmp_path):
    folder, said = tmp_path / "run", tmp_path / "said"
    run = colabkit.Run(folder)
    with said.open("w") as stream, contextlib.redirect_stdout(stream):
        passing = run.items(range(9))
        next(passing)
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGINT)
            stream.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        passing.close()
    assert "Finishing this step" not in said.read_text()


def test_a_second_interrupt_stops_at_once(tmp_path):
    def twice(event):
        if event.name == "batch_end" and event.step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        colabkit.fit(network(), arrays(), tmp_path, epochs=5, callbacks=[twice], **QUIET)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_diverged_loss_names_its_step_and_leaves_the_checkpoint(tmp_path):
    x, y = arrays()
    data = [(x[:8], y[:8])] * 5 + [(x[:8] * float("nan"), y[:8])] * 5
    with pytest.raises(DivergedError, match="step 5") as caught:
        colabkit.fit(network(), data, tmp_path, save_every=1, **QUIET)
    assert caught.value.step == 5
    model = network()
    assert colabkit.load(model, tmp_path).step <= 5
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_another_model_is_a_mismatch_that_lists_what_changed(tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, **QUIET)
    wider = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    with pytest.raises(CheckpointMismatchError, match=r"model\.0\.weight") as caught:
        colabkit.fit(wider, arrays(), tmp_path, epochs=2, **QUIET)
    then, now = caught.value.differences["model.0.weight"]
    assert (then, now) == ("torch.float32 [12, 6]", "torch.float32 [20, 6]")
    assert "resume=False" in str(caught.value)


def test_a_model_mended_before_its_first_step_is_no_mismatch(tmp_path, capsys):
    x, y = arrays()
    with pytest.raises(ArgumentError, match="classes 1 to 3"):
        colabkit.fit(nn.Linear(6, 3), (x, y + 1), tmp_path, **QUIET)
    spoken = QUIET | {"progress": True}
    mended = colabkit.fit(nn.Linear(6, 4), (x, y + 1), tmp_path, **spoken)
    said = capsys.readouterr()
    assert "was never trained and does not fit: begun anew." in said.out + said.err
    assert not mended.resumes
    assert len(colabkit.fit(nn.Linear(6, 4), (x, y + 1), tmp_path, epochs=2, **QUIET).resumes) == 1
    with pytest.raises(CheckpointMismatchError):
        colabkit.fit(nn.Linear(6, 3), (x, y), tmp_path, **QUIET)


def test_more_data_is_a_mismatch(tmp_path):
    x, y = arrays()
    colabkit.fit(network(), (x, y), tmp_path, **QUIET)
    with pytest.raises(CheckpointMismatchError, match="samples"):
        colabkit.fit(network(), (x[:40], y[:40]), tmp_path, epochs=2, **QUIET)


def test_another_seed_or_optimizer_is_a_mismatch(tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, **QUIET)
    with pytest.raises(CheckpointMismatchError, match="seed"):
        colabkit.fit(network(), arrays(), tmp_path, epochs=2, seed=5, **QUIET)
    with pytest.raises(CheckpointMismatchError, match="optimizer class"):
        colabkit.fit(network(), arrays(), tmp_path, epochs=2, optimizer="sgd", **QUIET)


def test_resume_false_starts_beside_and_deletes_nothing(tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, epochs=2, **QUIET)
    before = {info.name for info in colabkit.checkpoints(tmp_path)}
    for _ in range(2):
        history = colabkit.fit(network(), arrays(), tmp_path, epochs=1, resume=False, **QUIET)
        assert len(history.epochs) == 1
    after = {info.name for info in colabkit.checkpoints(tmp_path, verify=True) if not info.problem}
    assert before < after


def test_resume_weights_takes_what_fits(tmp_path):
    first = network()
    colabkit.fit(first, arrays(), tmp_path, **QUIET)
    second = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 5))
    seen = []

    def note(event):
        if event.name == "train_begin":
            seen.append(torch.equal(second[0].weight, first[0].weight))

    colabkit.fit(second, arrays(), tmp_path, resume="weights", callbacks=[note], **QUIET)
    assert seen == [True]


def test_load_gives_the_latest_the_best_or_a_step(tmp_path):
    model = network()
    x, y = arrays()
    colabkit.fit(model, (x, y), tmp_path, epochs=3, validation_data=(x, y), **QUIET)
    other = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 3))
    assert colabkit.load(other, tmp_path).step == 6
    assert same_weights(model, other)
    assert colabkit.load(other, tmp_path, "best").is_best
    assert colabkit.load(other, tmp_path, 6).step == 6
    with pytest.raises(CheckpointNotFoundError, match="whole ones are at steps"):
        colabkit.load(other, tmp_path, 5)
    with pytest.raises(CheckpointNotFoundError):
        colabkit.load(other, tmp_path / "nowhere")
    with pytest.raises(CheckpointMismatchError, match=r"0.weight: was .*, is missing") as caught:
        colabkit.load(nn.Linear(2, 2), tmp_path)
    assert "resume=" not in caught.value.hint
    with pytest.raises(ArgumentError, match="is the class Linear"):
        colabkit.load(nn.Linear, tmp_path)


def test_of_a_run_without_a_model_load_names_what_there_is(tmp_path):
    run = colabkit.Run(tmp_path, maker=network(), judge=network(), progress=False)
    assert len([*run.batches([1, 2])]) == 2
    with pytest.raises(ArgumentError, match="called model; it holds maker, judge") as caught:
        colabkit.load(network(), tmp_path)
    assert "weights_files" in caught.value.hint


def test_the_weights_open_under_the_models_own_names(tmp_path):
    model = network()
    colabkit.fit(model, arrays(), tmp_path, **QUIET)
    files = colabkit.checkpoints(tmp_path)[0].weights_files
    tensors = {k: v for path in files for k, v in load_file(path).items()}
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[k], v) for k, v in model.state_dict().items())


def test_the_history_survives_and_lies_in_the_folder(tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, epochs=2, metrics=["accuracy"], **QUIET)
    history = colabkit.fit(network(), arrays(), tmp_path, epochs=3, metrics=["accuracy"], **QUIET)
    assert [row["epoch"] for row in history.epochs] == [0, 1, 2]
    assert not np.isnan(history.steps["loss"]).any()
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


class HuggingFaceLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, inputs, labels=None):
        logits = self.head(inputs)
        loss = functional.cross_entropy(logits, labels) if labels is not None else None
        return {"loss": loss, "logits": logits}


def test_dicts_go_to_the_model_by_name_and_its_own_loss_is_used(tmp_path):
    x, y = arrays()
    data = {"inputs": x, "labels": y}
    history = colabkit.fit(HuggingFaceLike(), data, tmp_path, epochs=2, **QUIET)
    assert history.epochs[1]["loss"] < history.epochs[0]["loss"]


@pytest.mark.parametrize(
    ("target", "outputs"),
    [
        (lambda y: y.float(), 1),
        (lambda y: (y > 0).long(), 1),
        (lambda y: torch.stack([y, y, y], 1).float(), 3),
        (lambda y: y, 3),
    ],
)
def test_the_loss_follows_from_output_and_target(target, outputs, tmp_path):
    x, y = arrays()
    model = nn.Linear(6, outputs)
    history = colabkit.fit(model, (x, target(y)), tmp_path, epochs=2, **QUIET)
    assert np.isfinite(history.steps["loss"]).all()


def test_a_cycle_that_is_over_is_said_when_more_epochs_are_wanted(tmp_path):
    def cycle(optimizer):
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)

    options = {"scheduler": cycle, **QUIET}
    colabkit.fit(network(), arrays(), tmp_path, epochs=1, **options)
    with pytest.raises(ArgumentError, match="cannot go on") as caught:
        colabkit.fit(network(), arrays(), tmp_path, epochs=2, **options)
    assert caught.value.argument == "scheduler"


def test_a_plateau_that_watches_a_value_of_no_such_name_is_said(tmp_path):
    def plateau(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    with pytest.raises(ArgumentError, match="an epoch reports loss, lr"):
        colabkit.fit(network(), arrays(), tmp_path, scheduler=plateau, monitor="accu", **QUIET)


def test_a_seed_may_be_a_number_of_numpy(tmp_path):
    one, other = network(), network()
    colabkit.fit(one, arrays(), tmp_path / "numpy", seed=np.int64(-7), **QUIET)
    colabkit.fit(other, arrays(), tmp_path / "python", seed=-7, **QUIET)
    assert same_weights(one, other)


X, Y = arrays()
IMAGES = torch.rand(SAMPLES, 3, 8, 8)
# What a tired person passes as data: what is wrong with it, and what to do.
MISTAKES = {
    "float64": ((X.double(), Y), "its weights are float32", 'x.astype("float32")'),
    "uint8": ((X.to(torch.uint8), Y), "its weights are float32", "/ 255"),
    "a list of x and y": ([X, Y], "two batches", "a tuple"),
    "batches without targets": ([X[:8], X[:8]], "hold no target", "a tuple"),
    "lists": ((X.tolist(), Y.tolist()), "of plain numbers", "np.array(x"),
    "tables": ((pd.DataFrame(X.numpy()), pd.Series(Y.numpy())), "DataFrame", "to_numpy"),
    "a table": (pd.DataFrame(X.numpy()), "data is a DataFrame", "to_numpy"),
    "a path": ("MyDrive/cats", "data is a str", "ImageFolder"),
    "classes by name": ((X, np.array(["cat", "dog"])[Y.numpy() % 2]), "<U3", "np.unique"),
    "int32 classes": ((X, Y.int()), "targets of int32", "y.long()"),
    "float classes": ((X, Y.float()), "target of float32", "y.long()"),
    "a column of classes": ((X, Y[:, None]), "target of int64 [32, 1]", "y[:, 0]"),
    "classes from 1": ((X, Y + 1), "classes 1 to 3, and the model gives 3 outputs", "from 0"),
    "one-hot floats": ((X, functional.one_hot(Y, 3).float()), "one-hot", "y.argmax(1)"),
    "an archive": (Path("MyDrive/cats.zip"), "from which no batches", "colabkit.dataset(path)"),
    "one-hot": ((X, functional.one_hot(Y, 3)), "one-hot", "y.argmax(1)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_data_is_told_with_what_to_do(name, tmp_path):
    data, said, hint = MISTAKES[name]
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(network(), data, tmp_path, **QUIET)
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("loss", "samples"),
    [
        ("mse", 3),  # as many as there are classes: it would broadcast
        ("mae", 8),
        ("huber", 3),
        ("bce", 8),
        (functional.binary_cross_entropy_with_logits, 8),
        (nn.BCEWithLogitsLoss(), 8),
    ],
)
def test_a_loss_that_compares_numbers_is_told_to_have_other_numbers(loss, samples, tmp_path):
    with pytest.raises(ArgumentError, match="must have one shape") as caught:
        colabkit.fit(network(), (X[:samples], Y[:samples]), tmp_path, loss=loss, **QUIET)
    assert 'loss="cross_entropy"' in caught.value.hint


@pytest.mark.parametrize(
    ("images", "hint"),
    [(IMAGES.permute(0, 2, 3, 1), "x.permute(0, 3, 1, 2)"), (IMAGES[:, 0], "x.unsqueeze(1)")],
)
def test_images_whose_channels_lie_elsewhere_are_told(images, hint, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ArgumentError, match="images are") as caught:
        colabkit.fit(model, (images, Y), tmp_path, **QUIET)
    assert hint in caught.value.hint
    assert isinstance(caught.value.__cause__, RuntimeError)


def normalised(x: torch.Tensor) -> torch.Tensor:
    return functional.batch_norm(x, None, None, training=True)


class Normalising(nn.Linear):
    """Normalises over its batch by a function of the user's own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalised(super().forward(x))


class ByGroups(nn.Linear):
    """Normalises each of its outputs alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.group_norm(super().forward(x), 3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), "BatchNorm"),
        (lambda: Normalising(6, 3), "BatchNorm"),
        (lambda: nn.Sequential(nn.Linear(6, 3), nn.GroupNorm(3, 3)), "GroupNorm"),
        (lambda: ByGroups(6, 3), "GroupNorm"),
    ],
)
def test_a_last_batch_of_one_sample_is_told_before_the_first_where_a_layer_takes_none(
    make, name, tmp_path
):
    x, y = (each[:9] for each in arrays())
    with pytest.raises(ArgumentError, match=f"{name} cannot train on one sample alone") as caught:
        colabkit.fit(make(), (x, y), tmp_path, batch_size=8, **QUIET)
    assert "drop_last=True" in caught.value.hint
    assert not colabkit.checkpoints(tmp_path)
    history = colabkit.fit(make(), (x, y), tmp_path, batch_size=8, max_steps=1, **QUIET)
    assert len(history.numbers()["steps"]["loss"]) == 1


def test_a_part_of_one_sample_is_told_before_the_first_where_a_layer_takes_none(tmp_path):
    x, y = (each[:13] for each in arrays())
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    with pytest.raises(ArgumentError, match="of 5 samples has a part of 1, and Batch") as caught:
        colabkit.fit(model, (x, y), tmp_path, batch_size=8, microbatch=2, **QUIET)
    assert "microbatch" in caught.value.hint
    assert colabkit.fit(model, (x, y), tmp_path, batch_size=8, microbatch=3, **QUIET).epochs


@pytest.mark.parametrize("groups", [1, 3])
def test_a_last_batch_of_one_sample_is_trained_where_group_norm_takes_it(groups, tmp_path):
    shape = [lambda x: x, lambda x: x.repeat(1, 1, 2)][groups // 3]
    lines = Shaped(6, 3, nn.GroupNorm(groups, 3), shape)
    data = tuple(each[:9] for each in arrays())
    assert colabkit.fit(lines, data, tmp_path, batch_size=8, **QUIET).epochs


class Shaped(nn.Linear):
    """Normalises in a shape."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norm: nn.Module,
        shape: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__(inputs, outputs)
        self.norm, self.shape = norm, shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.shape(super().forward(x)[..., None])).mean(-1)


class NormalisingNothing(nn.Linear):
    """Has a switch by the name of what normalises."""

    batch_norm = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if not self.batch_norm else x


def test_a_switch_by_the_name_of_a_layer_is_none():
    assert not takes_statistics(NormalisingNothing(6, 3))
    assert takes_statistics(Normalising(6, 3))


def test_a_last_batch_of_one_image_is_trained_where_batch_norm_takes_it(tmp_path):
    images = torch.randn(9, 1, 4, 4)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    history = colabkit.fit(model, (images, arrays()[1][:9]), tmp_path, batch_size=8, **QUIET)
    assert history.epochs


@pytest.mark.parametrize(
    ("model", "hint"), [(network, "Pass network()."), (lambda: 0, "Pass a module.")]
)
def test_a_function_in_place_of_the_model_is_told(model, hint, tmp_path):
    with pytest.raises(ArgumentError, match="model is a function") as caught:
        colabkit.fit(model, arrays(), tmp_path, **QUIET)
    assert caught.value.hint == hint


def test_an_error_of_the_models_own_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        colabkit.fit(nn.Linear(5, 3), arrays(), tmp_path, **QUIET)


@pytest.mark.parametrize("given", [0.2, (X[:0], Y[:0]), X, [X, Y]])
def test_a_mistake_in_the_validation_data_is_told_as_such(given, tmp_path):
    with pytest.raises(ArgumentError, match="In validation_data: ") as caught:
        colabkit.fit(network(), arrays(), tmp_path, validation_data=given, **QUIET)
    assert caught.value.argument == "validation_data"


class Mute(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 3)

    def forward(self, x):
        super().forward(x)


OTHER = network()
WRONG = {
    "loss that cannot be inferred": ({"data": (torch.rand(8, 6), torch.rand(8, 2))}, "loss"),
    "unknown loss": ({"loss": "banana"}, "loss"),
    "a class as the loss": ({"loss": nn.MSELoss}, "loss"),
    "unknown optimizer": ({"optimizer": "banana"}, "optimizer"),
    "an optimizer of another model": (
        {"optimizer": torch.optim.SGD(OTHER.parameters())},
        "optimizer",
    ),
    "a scheduler of another optimizer": (
        {"scheduler": lr_scheduler.StepLR(torch.optim.SGD(OTHER.parameters()), 1)},
        "scheduler",
    ),
    "unknown metric": ({"metrics": ["banana"]}, "metrics"),
    "a metric class": ({"metrics": [nn.L1Loss]}, "metrics"),
    "two metrics of one name": ({"metrics": [lambda o, t: 1.0, lambda o, t: 2.0]}, "metrics"),
    "a loss of each sample": ({"loss": nn.CrossEntropyLoss(reduction="none")}, "loss"),
    "a loss of Python": ({"loss": lambda o, t: 3.0}, "loss"),
    "a model without numbers": ({"model": nn.Linear(6, 3, device="meta")}, "model"),
    "a lazy model": ({"model": nn.LazyLinear(3)}, "model"),
    "a model that returns nothing": ({"model": Mute()}, "model"),
    "text as target": ({"data": [(X[:4], ("cat", "dog", "cat", "dog"))]}, "data"),
    "a number as metric": ({"metrics": [1]}, "metrics"),
    "text as a norm": ({"clip_grad_norm": "1"}, "clip_grad_norm"),
    "unknown scheduler": ({"scheduler": "banana"}, "scheduler"),
    "a scheduler class that wants more": (
        {"scheduler": lr_scheduler.CosineAnnealingLR},
        "scheduler",
    ),
    "unknown precision": ({"precision": "fp8"}, "precision"),
    "unknown device": ({"device": "banana"}, "device"),
    "a device of Lightning's": ({"device": "gpu"}, "device"),
    "no epochs": ({"epochs": 0}, "epochs"),
    "epochs of a float": ({"epochs": 1.5}, "epochs"),
    "no batch": ({"batch_size": 0}, "batch_size"),
    "a callback class": ({"callbacks": [colabkit.EarlyStopping]}, "callbacks"),
    "an odd resume": ({"resume": "maybe"}, "resume"),
    "no step as resume": ({"resume": -1}, "resume"),
    "an odd save_every": ({"save_every": "often"}, "save_every"),
    "data of nothing": ({"data": 5}, "data"),
    "empty data": ({"data": []}, "data"),
    "arrays in a list": ({"data": [*arrays()]}, "data"),
    "arrays in a list to validate on": ({"validation_data": [*arrays()]}, "validation_data"),
    "uneven arrays": ({"data": (torch.rand(8, 6), torch.rand(7))}, "data"),
    "a batch of no form": ({"data": ["text"]}, "data"),
    "a model class": ({"model": nn.Linear}, "model"),
    "a frozen model": ({"model": network().requires_grad_(requires_grad=False)}, "model"),
    "lazy layers": ({"model": nn.Sequential(nn.LazyLinear(3))}, "model"),
    "an optimizer that asks for a closure": ({"optimizer": torch.optim.LBFGS}, "optimizer"),
    "one callback without a list": ({"callbacks": colabkit.EarlyStopping()}, "callbacks"),
    "callbacks that are a number": ({"callbacks": 5}, "callbacks"),
    "a seed of a float": ({"seed": 1.5}, "seed"),
    "a word for no progress": ({"progress": "no"}, "progress"),
    "a word that would give the machine back": ({"release_when_done": "no"}, "release_when_done"),
    "a word for the base": ({"save_base": "False"}, "save_base"),
    "a generator for two epochs": ({"data": iter([arrays()]), "epochs": 2}, "data"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_named_before_the_first_step(name, tmp_path):
    changed, argument = WRONG[name]
    made = {"model": network(), "data": arrays(), **QUIET, **changed}
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(made.pop("model"), made.pop("data"), tmp_path / "run", **made)
    assert caught.value.argument == argument
    assert caught.value.hint


def test_a_table_of_somebody_else_in_the_run_folder_stays_and_that_is_said(tmp_path, caplog):
    table = tmp_path / "history.csv"
    table.write_text("epoch,accuracy,loss\n0,0.5,1.5\n")  # as Keras' CSVLogger writes it
    for epochs in (1, 1, 2):
        colabkit.fit(network(), arrays(), tmp_path, epochs=epochs, **QUIET)
    assert table.read_text() == "epoch,accuracy,loss\n0,0.5,1.5\n"
    assert "history.csv is not of this run, and stays as it is" in caplog.text
    table.unlink()
    colabkit.fit(network(), arrays(), tmp_path, epochs=3, **QUIET)
    assert len(table.read_text().splitlines()) == 4


def test_a_third_part_of_batches_is_said_to_be_taken_for_the_target(tmp_path):
    class Weighed(nn.Linear):
        def forward(self, x, y):
            return super().forward(x)

    batch = (*arrays(), torch.ones(len(X)))
    with pytest.raises(ArgumentError, match="The target is a batch's last part") as caught:
        colabkit.fit(Weighed(6, 3), [batch], tmp_path, **QUIET)
    assert "Weights of samples are for a loop of your own over colabkit.Run" in caught.value.hint


@pytest.mark.parametrize("folder", [None, "", " ", 5, torch.zeros(3)])
def test_what_is_no_path_is_no_run_folder(folder):
    for call in (
        lambda: colabkit.fit(network(), arrays(), folder, **QUIET),
        lambda: colabkit.Run(folder, model=network(), progress=False),
        lambda: colabkit.load(network(), folder),
        lambda: colabkit.checkpoints(folder),
    ):
        with pytest.raises(ArgumentError, match="not the path of a folder") as caught:
            call()
        assert caught.value.argument == "ckpt_dir"


def test_a_run_folder_that_is_a_file_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(StorageError, match="is a file"):
        colabkit.fit(network(), arrays(), path, **QUIET)


class OfTheSystem(Augmented):
    def __getitem__(self, index):
        return self.x[index] + random.SystemRandom().random(), self.y[index]


class Counting(Augmented):
    calls = 0

    def __getitem__(self, index):
        self.calls += 1
        return self.x[index] + self.calls, self.y[index]


class Restless(torch_data.Sampler):
    start = 0

    def __iter__(self):
        self.start += 1
        return iter([(self.start + i) % SAMPLES for i in range(SAMPLES)])

    def __len__(self):
        return SAMPLES


class Unsteady:
    def __iter__(self):
        x, y = arrays()
        for _ in range(4):
            yield x[:8] + time.perf_counter_ns() % 10**9 / 1e6, y[:8]


INEXACT = {
    "draws from the system": (lambda: loader(OfTheSystem()), "another batch"),
    "counts its calls": (lambda: loader(Counting()), "another batch"),
    "restless sampler": (lambda: loader(sampler=Restless()), "another order"),
    "unsteady iterable": (Unsteady, "another first batch"),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_cannot_be_exact_is_said_with_its_reason(name, tmp_path):
    make, reason = INEXACT[name]
    verdict = colabkit.fit(network(), make(), tmp_path, **QUIET).verdict
    assert verdict.grade.value == "approximate"
    assert any(reason in said for said in verdict.reasons)


def test_another_number_of_threads_is_said(tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, **QUIET)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        verdict = colabkit.fit(network(), arrays(), tmp_path, epochs=2, **QUIET).verdict
    finally:
        torch.set_num_threads(threads)
    assert any("CPU threads" in said for said in verdict.reasons)


def test_another_default_dtype_is_said(tmp_path):
    model, data = network(), [(torch.ones(8, 6), torch.zeros(8).long())]
    colabkit.fit(model, data, tmp_path, **QUIET)
    torch.set_default_dtype(torch.float64)
    try:
        verdict = colabkit.fit(model, data, tmp_path, epochs=2, **QUIET).verdict
    finally:
        torch.set_default_dtype(torch.float32)
    assert "default dtype was torch.float32, is torch.float64" in verdict.reasons


def test_a_proof_finds_the_run_exact():
    proof = colabkit.verify_resume(network(), loader(), kills=2)
    assert proof.exact
    assert proof.kills == 2


class Forgetful:
    """Changes the weights by a count that no checkpoint knows."""

    def __init__(self, model):
        self.model, self.counts = model, itertools.count()

    def on_batch_end(self, run, step, logs):
        with torch.no_grad():
            self.model[0].bias.add_(next(self.counts) * 1e-3)


def test_a_proof_finds_a_planted_fault():
    model = network()
    proof = colabkit.verify_resume(model, arrays(), kills=2, callbacks=[Forgetful(model)])
    assert not proof.exact
    assert "model.0.bias" in proof.differences
    with pytest.raises(AssertionError):
        proof.raise_if_different()


SCRIPT = """
import sys, torch, colabkit
sys.path.insert(0, {root!r})
from tests.torch.cases import loader, network
torch.set_num_threads(1)
quiet = {{"progress": False, "device": "cpu"}}
colabkit.fit(network(), loader(), sys.argv[1], epochs=40, save_every=1, **quiet)
"""


def test_a_kill_at_any_moment_leaves_a_run_that_goes_on(tmp_path):
    root = str(Path(__file__).parents[2])
    script = SCRIPT.format(root=root)
    alone, killed = network(), network()
    colabkit.fit(alone, loader(), tmp_path / "alone", epochs=40, **QUIET)
    chooser = random.Random(3)
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    deaths = 0
    for _ in range(6):
        child = subprocess.Popen(command, cwd=root)
        time_to_live_s = 1.6 + chooser.random()
        try:
            child.wait(time_to_live_s)
            break
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            deaths += 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        colabkit.fit(killed, loader(), tmp_path / "killed", epochs=40, **QUIET)
    finally:
        torch.set_num_threads(threads)
    assert deaths
    assert same_weights(alone, killed)


def test_a_monitor_that_no_epoch_reports_is_said_once(tmp_path, capsys):
    colabkit.fit(
        network(), arrays(), tmp_path, epochs=3, monitor="val_acc", **QUIET | {"progress": True}
    )
    said = capsys.readouterr()
    told = "monitor is 'val_acc', but this epoch reports loss, lr: it cannot be the best."
    assert (said.out + said.err).count(told) == 1


@pytest.mark.parametrize("value", ["half", torch.zeros(3), None])
def test_a_value_that_is_no_number_is_named(value, tmp_path):
    run = colabkit.Run(tmp_path, progress=False)

    def loop() -> None:
        for _ in run.batches(list(range(3))):
            run.log(gain=value)

    with pytest.raises(ArgumentError, match="gain was logged as a") as caught:
        loop()
    assert caught.value.argument == "gain"


def test_a_logged_value_is_what_it_was_then_although_it_goes_on_changing(tmp_path):
    total, gain = torch.zeros(()), torch.zeros(2)
    run = colabkit.Run(tmp_path, progress=False)
    for item in run.items([1.0, 2.0, 3.0]):
        total += item
        gain[0] = item
        run.log(total=total, gain=gain[0])
    assert run.history.steps["total"].tolist() == [1, 3, 6]
    assert run.history.steps["gain"].tolist() == [1, 2, 3]


def test_a_value_may_not_take_the_name_of_a_column(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    with pytest.raises(ArgumentError, match="cannot be called epoch"):
        run.log_epoch(epoch=3)
    with pytest.raises(ArgumentError, match="seconds, step"):
        run.log(step=1, seconds=2.0)


def trained(folder: Path, epochs: int, **objects: nn.Module) -> colabkit.Run:
    run = colabkit.Run(folder, progress=False, **objects)
    for _ in run.epochs(epochs):
        for x, _ in run.batches([arrays()]):
            for model in objects.values():
                model(x)
    return run


@pytest.mark.parametrize("names", [("modèle", "modéle"), ("网络",), ("x" * 200,), ("a_1", "a_2")])
def test_a_run_goes_on_whatever_its_objects_are_called(names, tmp_path):
    trained(tmp_path, 1, **{name: network() for name in names})
    assert trained(tmp_path, 2, **{name: network() for name in names}).step == 2
    assert not any(info.problem for info in colabkit.checkpoints(tmp_path, verify=True))


@pytest.mark.parametrize("name", ["run", "objects", "gradients"])
def test_a_name_that_a_part_of_every_run_has_is_refused_before_the_first_step(name, tmp_path):
    with pytest.raises(StateError, match=f"called '{name}'"):
        trained(tmp_path, 1, objects={name: network()})


def test_a_disk_without_room_for_a_checkpoint_is_said_before_the_first_step(tmp_path):
    model = nn.Linear(6, 40_000)
    with small_disk(tmp_path, "size=200k"), pytest.raises(DiskFullError, match=r"takes 1\.1 MB"):
        colabkit.fit(model, arrays(), tmp_path / "run", loss=lambda o, _: o.mean(), **QUIET)


def test_a_disk_that_fills_up_costs_checkpoints_and_no_training(tmp_path):
    """The optimizer's state, three times the weights, finds no room from step 1 on."""
    model = nn.Linear(6, 8000)
    with small_disk(tmp_path, "size=500k"):
        with pytest.raises(CheckpointWriteError, match="is full") as caught:
            colabkit.fit(
                model,
                arrays(),
                tmp_path / "run",
                loss=lambda output, _: output.mean(),
                device="cpu",
                batch_size=8,
                epochs=3,
                save_every=1,
            )
        assert [info.step for info in colabkit.checkpoints(tmp_path / "run", verify=True)] == [0]
        assert "is that of step 0: a run goes on from there. What the" in caught.value.hint


def test_a_folder_that_may_not_be_written_is_said_before_the_first_step(tmp_path):
    with small_disk(tmp_path, "size=1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(StorageError, match="may write to"):
            colabkit.fit(network(), arrays(), tmp_path / "run", **QUIET)


class NewerSession:
    """Lets a second session go on in the same folder while the first one trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_batch_end(self, run, step, logs):
        if step == 5:
            run.flush()
            colabkit.fit(network(), loader(), self.folder, epochs=2, **QUIET)


def test_of_two_sessions_the_newer_goes_on_and_the_older_stops(tmp_path):
    alone = network()
    colabkit.fit(alone, loader(), tmp_path / "alone", epochs=2, **QUIET)
    with pytest.raises(LeaseLostError, match="taken over"):
        colabkit.fit(
            network(),
            loader(),
            tmp_path / "run",
            epochs=2,
            save_every=1,
            callbacks=[NewerSession(tmp_path / "run")],
            **QUIET,
        )
    kept = network()
    colabkit.load(kept, tmp_path / "run")
    assert same_weights(kept, alone)
