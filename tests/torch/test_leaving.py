"""Loops over a Run that are left by break, return or an error, and what is saved then."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import colabkit
from colabkit.errors import ArgumentError
from tests.torch.cases import arrays, loader, network
from tests.torch.killing import in_child, kill_self


class Training:
    """A small training whose steps are taken by hand, and saved only when something ends."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        given = {"save_every": "300s", "progress": False, **options}
        self.run = colabkit.Run(folder, model=self.model, optimizer=self.optimizer, **given)
        self.x, self.y = arrays()

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.run.log(loss=loss)


def saved(folder: Path, model: nn.Module) -> int:
    """The newest step, if its weights are those that the model has."""
    there = network()
    step = colabkit.load(there, folder).step
    pairs = zip(there.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    return step


def wrapped(steps: Any) -> Iterator[Any]:
    yield from steps


@pytest.mark.parametrize("around", [iter, wrapped, enumerate])
def test_what_a_loop_left_by_break_has_trained_is_saved(around, tmp_path):
    training = Training(tmp_path)
    for _ in around(training.run.items(range(9))):
        training.step(training.x[:8], training.y[:8])
        if training.run.batch == 3:
            break
    assert training.run.step == 4
    assert saved(tmp_path, training.model) == 4
    assert training.run.save_status is None
    again = Training(tmp_path)
    assert list(again.run.items(range(9))) == []


def test_a_break_before_the_step_counts_no_step(tmp_path):
    training = Training(tmp_path)
    for place in training.run.items(range(9)):
        if place == 3:
            break
        training.step(training.x[:8], training.y[:8])
    assert saved(tmp_path, training.model) == training.run.step == 3


def test_epochs_left_by_break_are_done_and_more_of_them_train_on(tmp_path, capsys):
    training = Training(tmp_path)
    held = training.run.epochs(9)
    for epoch in held:
        for x, y in training.run.batches(loader()):
            training.step(x, y)
        if epoch == 1:
            break
    steps = training.run.step
    assert len(training.run.history.epochs) == 2
    assert saved(tmp_path, training.model) == steps
    again = Training(tmp_path, progress=True)
    assert list(again.run.epochs(9)) == []
    assert "its loop was left in epoch 2" in capsys.readouterr().out
    longer = Training(tmp_path)
    assert next(iter(longer.run.epochs(10))) == 2


def test_a_loop_left_by_an_error_is_entered_again_where_it_was_saved(tmp_path):
    alone, broken = Training(tmp_path / "alone"), Training(tmp_path / "run", save_every=2)
    for x, y in alone.run.batches(loader()):
        alone.step(x, y)

    def fail() -> None:
        for x, y in broken.run.batches(loader()):
            broken.step(x, y)
            broken.run.flush()
            if broken.run.batch == 4:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert colabkit.checkpoints(tmp_path / "run")[0].step == 4
    resumed = Training(tmp_path / "run")
    for x, y in resumed.run.batches(loader()):
        resumed.step(x, y)
    assert resumed.run.step == alone.run.step
    assert saved(tmp_path / "run", alone.model) == alone.run.step


class Torn(torch.utils.data.Dataset):
    """Fails at one sample, until it is mended."""

    is_torn = True

    def __len__(self) -> int:
        return 40

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        if place == 35 and self.is_torn:
            raise OSError("the file is torn")
        x, y = arrays()
        return x[place % len(x)], y[place % len(y)]


def test_data_that_fails_between_two_steps_loses_none_of_them(tmp_path):
    data, training = Torn(), Training(tmp_path)

    def train(training: Training) -> None:
        for x, y in training.run.batches(data, batch_size=8, shuffle=False):
            training.step(x, y)

    with pytest.raises(OSError, match="torn"):
        train(training)
    assert saved(tmp_path, training.model) == 4
    data.is_torn = False
    mended = Training(tmp_path)
    train(mended)
    assert mended.run.step == 5


def test_epochs_whose_batches_never_go_through_the_run_are_saved_as_they_pass(tmp_path):
    def train(folder: Path, *, dies: bool) -> Training:
        training = Training(folder, save_every="1s")
        training.run._checkpoints._policy = type(training.run._checkpoints._policy)(seconds=1e-6)
        for epoch in training.run.epochs(6):
            training.step(training.x + torch.rand(6), training.y)
            training.run.flush()
            if dies and epoch == 4:
                kill_self()
        return training

    alone = train(tmp_path / "alone", dies=False)
    assert not in_child(
        lambda: train(tmp_path / "run", dies=True) and None, report=tmp_path / "report"
    )
    assert colabkit.checkpoints(tmp_path / "run")[0].epoch >= 3
    train(tmp_path / "run", dies=False)
    saved(tmp_path / "run", alone.model)


@pytest.mark.parametrize("around", [wrapped, iter])
def test_enumerate_around_batches_is_named_beforehand(around, tmp_path):
    training = Training(tmp_path)
    for number, (x, y) in enumerate(around(training.run.batches(loader()))):
        training.step(x * (1 + number), y)
    assert "run.batch" in str(training.run.verdict)


def one_ahead(steps: Any) -> Iterator[Any]:
    steps = iter(steps)
    newest = next(steps, None)
    while newest is not None:
        current, newest = newest, next(steps, None)
        yield current


class Ahead:
    """Has the next batch on its way while one is trained, as many do for a GPU."""

    def __init__(self, steps: Any) -> None:
        self.steps = iter(steps)
        self.preload()

    def preload(self) -> None:
        try:
            self.x, self.y = next(self.steps)
        except StopIteration:
            self.x = None

    def __iter__(self) -> Iterator[Any]:
        while self.x is not None:
            current = self.x, self.y
            self.preload()
            yield current


def first_of_pairs(steps: Any) -> Iterator[Any]:
    for first, _ in itertools.pairwise(steps):
        yield first


def one_of_two(steps: Any) -> Iterator[Any]:
    yield from itertools.tee(steps)[0]


READING_AHEAD = {
    "one_ahead": one_ahead,
    "preload": Ahead,
    "tee": one_of_two,
    "pairwise": first_of_pairs,
}


@pytest.mark.parametrize("name", READING_AHEAD)
def test_what_reads_ahead_of_a_loop_is_named_beforehand(name, tmp_path):
    training = Training(tmp_path)
    for x, y in READING_AHEAD[name](training.run.batches(loader())):
        training.step(x, y)
    assert any(f"{name}() has read" in each for each in training.run.verdict.reasons)


def test_a_trainer_that_asks_for_one_batch_a_step_is_exact(tmp_path):
    class Trainer(Training):
        def train_one(self) -> None:
            self.batch = next(self.steps)
            self.step(*self.batch)

        def take(self) -> Any:
            return next(self.steps, None)

    training = Trainer(tmp_path)
    training.steps = iter(training.run.batches(loader()))
    training.train_one()
    while (batch := training.take()) is not None:
        training.step(*batch)
    assert not training.run.verdict.reasons


def test_batches_that_another_thread_reads_are_an_error_of_both(tmp_path):
    training, errors = Training(tmp_path), []
    waiting: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        try:
            waiting.put(next(iter(training.run.batches(loader()))))
        except ArgumentError as error:
            errors.append(error)

    def train() -> None:
        for _ in training.run.epochs(1):
            reader.start()
            training.step(*waiting.get())

    reader = threading.Thread(target=read)
    with pytest.raises(ArgumentError) as caught:
        train()
    reader.join()
    assert "another thread" in str(caught.value)
    assert "another thread" in str(errors[0])


def test_an_enumerate_whose_numbers_are_only_shown_is_no_reason(tmp_path):
    training = Training(tmp_path)
    for number, (x, y) in enumerate(training.run.batches(loader())):
        training.step(x, y)
        if number % 2 == 0:
            print(f"batch {number}")
    assert not training.run.verdict.reasons


def test_a_loop_that_calls_next_in_turns_of_its_own_is_named(tmp_path):
    training = Training(tmp_path)
    steps = iter(training.run.batches(loader()))
    for _ in range(3):
        training.step(*next(steps))
    assert any("calls next()" in each for each in training.run.verdict.reasons)


def test_what_a_while_statement_that_calls_next_goes_by_is_named(tmp_path):
    training = Training(tmp_path)
    steps, done = iter(training.run.batches(loader())), 0
    while done < 3:
        training.step(*next(steps))
        done += 1
    assert "done begins anew" in str(training.run.verdict)


def test_an_enumerate_of_something_else_is_no_reason(tmp_path):
    training, others = Training(tmp_path), enumerate("ab")
    for x, y in training.run.batches(loader()):
        training.step(x, y)
    assert not training.run.verdict.reasons
    assert next(others) == (0, "a")


def test_a_reason_once_found_stays_in_the_verdict_of_later_sessions(tmp_path):
    training = Training(tmp_path)
    for number, (x, y) in enumerate(training.run.batches(loader())):
        training.step(x * (1 + number), y)
    later = Training(tmp_path)
    assert later.run.verdict.reasons == training.run.verdict.reasons
    assert not Training(tmp_path, resume=False).run.verdict.reasons


def test_an_iterator_held_and_left_counts_its_batch_at_the_end_of_the_epoch(tmp_path):
    training = Training(tmp_path)
    for _ in training.run.epochs(1):
        steps = iter(training.run.batches(loader()))
        for x, y in steps:
            training.step(x, y)
            if training.run.batch == 2:
                break
    assert saved(tmp_path, training.model) == training.run.step == 3
    with contextlib.suppress(StopIteration):
        next(steps)
    assert training.run.step == 3


def test_a_save_asks_for_no_more_snapshots_than_it_writes(tmp_path, monkeypatch):
    asked = []
    of_module = nn.Module.state_dict
    training = Training(tmp_path)

    def count(module: nn.Module, *given: Any, **named: Any) -> Any:
        asked.extend([module] if module is training.model else [])
        return of_module(module, *given, **named)

    monkeypatch.setattr(nn.Module, "state_dict", count)
    for x, y in training.run.batches(loader()):
        training.step(x, y)
    assert len(colabkit.checkpoints(tmp_path)) == 2
    # What is saved at the beginning and the end, a look at the room, and a trial.
    assert len(asked) <= 4
