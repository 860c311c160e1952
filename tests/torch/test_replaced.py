"""Weights that a loop puts others in the place of in mid-run go on exactly, or are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import colabkit
from colabkit.errors import StateError
from tests.torch.plain_notebook import EPOCHS, ROWS, Notebook, PlainLoop, check_killed, train


class Words(nn.Module):
    """Reads words by a table, and gives them by the same."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.table, self.middle = nn.Embedding(8, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 8, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.middle(self.table((x[:, 0] > 0).long()))))


class Moments(Notebook):
    """Trains by Adam, which keeps something of each weight."""

    def __init__(self, folder: Path | None, dies_at: int) -> None:
        self.dies_at, self.run = dies_at, PlainLoop()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.model = self.made()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        if folder is not None:
            objects = {"model": self.model, "optimizer": self.optimizer}
            self.run = colabkit.Run(folder, save_every=1, progress=False, **objects)

    def made(self) -> Any:
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


class Tied(Moments):
    def made(self) -> Any:
        return Words(tied=True)


class Untied(Moments):
    def made(self) -> Any:
        return Words(tied=False)


def with_change(change: Callable[[Any], None], epochs: int = EPOCHS) -> Callable[[Any], None]:
    def loop(book: Any) -> None:
        for epoch in book.run.epochs(epochs):
            if epoch == 1:
                change(book)
            for x, y in book.run.batches(ROWS):
                book.step(nn.functional.cross_entropy(book.model(x), y))

    return loop


def new_head(book: Any) -> None:
    torch.manual_seed(5)
    book.model[2] = nn.Linear(8, 2)


def new_head_in_group_of_its_own(book: Any) -> None:
    new_head(book)
    book.optimizer.add_param_group({"params": [*book.model[2].parameters()], "lr": 0.1})


def new_head_in_the_group(book: Any) -> None:
    new_head(book)
    book.optimizer.param_groups[0]["params"] = [*book.model.parameters()]


def new_head_that_nobody_trains(book: Any) -> None:
    book.model[2].weight = nn.Parameter(torch.linspace(-1, 1, 16).reshape(2, 8))


def untied(book: Any) -> None:
    book.model.head.weight = nn.Parameter(book.model.table.weight.detach().clone())


def untied_and_trained(book: Any) -> None:
    untied(book)
    book.optimizer.add_param_group({"params": [book.model.head.weight]})


def tied(book: Any) -> None:
    book.model.head.weight = book.model.table.weight


CHANGES = [
    (new_head_in_group_of_its_own, Moments),
    (new_head_in_the_group, Moments),
    (new_head_that_nobody_trains, Moments),
    (untied, Tied),
    (untied_and_trained, Tied),
    (tied, Untied),
]


@pytest.mark.parametrize(("change", "kind"), CHANGES)
def test_a_loop_killed_before_in_and_behind_the_epoch_of_the_change_ends_with_its_bits(
    change, kind, tmp_path
):
    check_killed(with_change(change), tmp_path, [3, 6, 10], kind)


def rests_and_goes_on(book: Any) -> None:
    for epoch in book.run.epochs(EPOCHS):
        parts = book.model[2] if epoch == 1 else book.model
        book.optimizer.param_groups[0]["params"] = [*parts.parameters()]
        for x, y in book.run.batches(ROWS):
            book.step(nn.functional.cross_entropy(book.model(x), y))


def test_moments_of_weights_that_are_not_trained_for_an_epoch_go_on(tmp_path):
    check_killed(rests_and_goes_on, tmp_path, [3, 6, 10], Moments)


def larger_head(book: Any) -> None:
    book.model[2] = nn.Linear(8, 3)


def normed(book: Any) -> None:
    parametrizations.weight_norm(book.model[0])
    book.optimizer.param_groups[0]["params"] = [*book.model.parameters()]


def group_of_strangers(book: Any) -> None:
    book.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})


@pytest.mark.parametrize(
    ("change", "named", "said"),
    [
        (larger_head, "model.2.weight, model.2.bias", "model.2.weight cannot be loaded"),
        (normed, "model.0.parametrizations", "cannot be loaded"),
        (group_of_strangers, "a group of optimizer", "optimizer cannot be loaded"),
    ],
)
def test_what_must_be_done_again_before_the_run_is_named_behind_the_change(
    change, named, said, tmp_path
):
    _, run = train(with_change(change, epochs=2), tmp_path, kind=Moments)
    (reason,) = run.verdict.reasons
    assert reason.startswith(named)
    assert "must be so before the run is made" in reason
    with pytest.raises(StateError, match=said):
        Moments(tmp_path, -1)
