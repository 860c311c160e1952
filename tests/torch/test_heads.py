"""What a loop makes with the model at the head of an epoch is made with the weights of then."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from tests.torch.killing import in_child
from tests.torch.plain_notebook import (
    BATCH,
    EPOCHS,
    ROWS,
    SAMPLES,
    Notebook,
    X,
    Y,
    check_killed,
    train,
)

DEATHS = (2, 5, 7)


def pseudo_labels(book: Notebook) -> None:
    run, model = book.run, book.model
    for _ in run.epochs(EPOCHS):
        with torch.no_grad():
            sure, labels = model(X).softmax(1).max(1)
        chosen = [n for n in range(SAMPLES) if sure[n] > 0.55] or [0, 1, 2]
        loader = DataLoader(Subset(TensorDataset(X, labels), chosen), BATCH)
        for x, y in run.batches(loader):
            book.step(functional.cross_entropy(model(x), y))


def anchored(book: Notebook) -> None:
    run, model = book.run, book.model
    for _ in run.epochs(EPOCHS):
        anchor = [each.detach().clone() for each in model.parameters()]
        for x, y in run.batches(ROWS):
            pairs = zip(model.parameters(), anchor, strict=True)
            far = sum(((a - b) ** 2).sum() for a, b in pairs)
            book.step(functional.cross_entropy(model(x), y) + far)


class Relabelled(Dataset[Any]):
    def __init__(self) -> None:
        self.labels = Y.clone()

    def relabel(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        return X[index], self.labels[index]


@torch.no_grad()
def predicted(model: nn.Module) -> torch.Tensor:
    return model(X).argmax(1)


def relabelled(book: Notebook) -> None:
    run, model, data = book.run, book.model, Relabelled()
    for _ in run.epochs(EPOCHS):
        data.relabel(predicted(model))
        for x, y in run.batches(DataLoader(data, BATCH)):
            book.step(functional.cross_entropy(model(x), y))


class Miner(Notebook):
    """Negatives that a method mines, for a method that trains."""

    def mine(self) -> None:
        with torch.no_grad():
            places = self.model(X)
        apart = torch.cdist(places, places) + 1e9 * (Y[:, None] == Y[None])
        self.negatives = apart.argmin(1)

    def train(self) -> None:
        self.mine()
        for rows in self.run.batches(list(torch.arange(SAMPLES).split(BATCH))):
            ours, theirs = self.model(X[rows]), self.model(X[self.negatives[rows]])
            self.step(functional.relu(1 - (ours - theirs).pow(2).sum(1)).mean())


def mined(book: Miner) -> None:
    for _ in book.run.epochs(EPOCHS):
        book.train()


def by_difficulty(book: Notebook) -> None:
    run, model = book.run, book.model

    def easiest(count: int) -> list[int]:
        with torch.no_grad():
            losses = functional.cross_entropy(model(X), Y, reduction="none")
        return losses.argsort()[:count].tolist()

    for epoch in run.epochs(EPOCHS):
        rows = easiest(20 + 10 * epoch)
        for x, y in run.batches(DataLoader(Subset(TensorDataset(X, Y), rows), BATCH)):
            book.step(functional.cross_entropy(model(x), y))


def kept(book: Notebook) -> None:
    run, model = book.run, book.model
    own = run.state(labels=Y.clone(), rows=list(range(SAMPLES)))
    for _ in run.epochs(EPOCHS):
        own.labels = predicted(model)
        own.rows = [n for n in range(SAMPLES) if own.labels[n] or n % 2]
        chosen = TensorDataset(X[own.rows], own.labels[own.rows])  # copies of what is kept
        for x, y in run.batches(DataLoader(chosen, BATCH)):
            book.step(functional.cross_entropy(model(x), y))


def played(book: Notebook) -> None:
    """Steps of a game, whose place is kept, and assigned at each of them."""
    run, model = book.run, book.model
    own = run.state(place=X[0] + 0)
    for _ in run.epochs(EPOCHS):
        places, moves = [], []
        for _ in range(SAMPLES):
            with torch.no_grad():
                moves.append(model(own.place[None])[0].argmax())
            places.append(own.place)
            own.place = 0.9 * own.place.roll(1) + 0.3 * (moves[-1] - 0.5)
        seen = TensorDataset(torch.stack(places), torch.stack(moves))
        for x, y in run.batches(DataLoader(seen, BATCH)):
            book.step(functional.cross_entropy(model(x), 1 - y))


LOOPS = [pseudo_labels, anchored, relabelled, mined, by_difficulty, kept, played]


@pytest.mark.parametrize("loop", LOOPS)
def test_one_killed_in_mid_epoch_ends_with_the_bits_of_the_plain_loop(loop, tmp_path):
    check_killed(loop, tmp_path, DEATHS, Miner if loop is mined else Notebook)


def teacher_of_before(book: Notebook) -> None:
    run, model = book.run, book.model
    teacher = copy.deepcopy(model)
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(ROWS):
            with torch.no_grad():
                told = teacher(x)
            book.step(functional.cross_entropy(model(x), y) + functional.mse_loss(model(x), told))


def teacher_now_and_then(book: Notebook) -> None:
    run, model, teacher = book.run, book.model, None
    for epoch in run.epochs(EPOCHS):
        if epoch % 2:
            teacher = copy.deepcopy(model)
        for x, y in run.batches(ROWS):
            loss = functional.cross_entropy(model(x), y)
            book.step(loss if teacher is None else loss + (model(x) - teacher(x).detach()).mean())


def without_epochs(book: Notebook) -> None:
    labels = predicted(book.model)
    for rows in book.run.batches(list(torch.arange(SAMPLES).split(BATCH))):
        book.step(functional.cross_entropy(book.model(X[rows]), labels[rows]))


NAMED = {teacher_of_before: "teacher", teacher_now_and_then: "teacher", without_epochs: "labels"}


class FirstStep(Exception):  # noqa: N818
    """That a loop has come to its first step."""


class Watched(Notebook):
    def step(self, loss: torch.Tensor) -> None:
        raise FirstStep


@pytest.mark.parametrize("loop", NAMED)
def test_what_a_resume_would_make_with_later_weights_is_named_before(loop, tmp_path):
    book = Watched(tmp_path, -1)
    with pytest.raises(FirstStep):
        loop(book)
    (reason,) = book.run.verdict.reasons
    assert NAMED[loop] in reason
    assert "run.state(" in reason


def test_where_weights_are_too_many_to_be_held_it_is_named_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("colabkit.frameworks.small_copies._WEIGHTS_BYTES_MAX", 0)
    folder = tmp_path / "run"
    killed = functools.partial(train, pseudo_labels, folder, dies_at=5)
    assert not in_child(killed, report=tmp_path / "report")
    _, run = train(pseudo_labels, folder)
    named = {each.split()[0] for each in run.verdict.reasons}
    assert {"chosen", "labels"} <= named
    assert run.epoch == EPOCHS


def test_what_is_assigned_to_a_kept_value_is_given_back_without_those_weights(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("colabkit.frameworks.small_copies._WEIGHTS_BYTES_MAX", 0)
    check_killed(kept, tmp_path, DEATHS)
