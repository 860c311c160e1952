"""What stands between two passes of an epoch is done again with the weights of then, or named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import colabkit
from tests.torch.plain_notebook import EPOCHS, ROWS, SAMPLES, Notebook, X, Y, check_killed, train

DEATHS = (5, 7, 14)  # in second passes, of the first and the second epoch


def plain_step(book: Notebook, x: torch.Tensor, y: torch.Tensor) -> None:
    book.step(functional.cross_entropy(book.model(x), y))


def labels_between(book: Notebook) -> None:
    run, model = book.run, book.model
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(ROWS):
            plain_step(book, x, y)
        with torch.no_grad():
            labels = model(X).argmax(1)
        for x, y in run.batches(DataLoader(TensorDataset(X, labels), 20)):
            plain_step(book, x, y)


def anchor_between(book: Notebook) -> None:
    run, model = book.run, book.model
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(ROWS):
            plain_step(book, x, y)
        anchor = copy.deepcopy(model)
        for x, y in run.batches(ROWS):
            told = anchor(x).detach()
            book.step(functional.cross_entropy(model(x), y) + (model(x) - told).pow(2).mean())


@torch.no_grad()
def share_right(model: Any) -> float:
    model.eval()
    found = (model(X).argmax(1) == Y).float().mean().item()
    model.train()
    return found


def evaluation_between(book: Notebook) -> None:
    run, model = book.run, book.model
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(ROWS):
            plain_step(book, x, y)
        right = share_right(model)
        for x, y in run.batches(ROWS):
            book.step((1.5 - right) * functional.cross_entropy(model(x), y))


def passes_in_functions(book: Notebook) -> None:
    def one(rows: list[int]) -> None:
        for x, y in book.run.batches(DataLoader(TensorDataset(X[rows], Y[rows]), 10)):
            plain_step(book, x, y)

    for _ in book.run.epochs(EPOCHS):
        rows = list(range(30))
        for _ in range(3):
            one(rows)
            with torch.no_grad():
                losses = functional.cross_entropy(book.model(X), Y, reduction="none")
            rows = losses.argsort()[:20].tolist()


def rounds_without_epochs(book: Notebook) -> None:
    run, model, known = book.run, book.model, [*range(0, SAMPLES, 4)]
    for _ in range(5):
        for x, y in run.batches(DataLoader(TensorDataset(X[known], Y[known]), 5)):
            plain_step(book, x, y)
        with torch.no_grad():
            sure = model(X).softmax(1).max(1).values
        known += [n for n in sure.argsort().tolist() if n not in known][:5]


HELD = [
    labels_between,
    anchor_between,
    evaluation_between,
    passes_in_functions,
    rounds_without_epochs,
]


@pytest.mark.parametrize("loop", HELD)
def test_one_killed_in_a_later_pass_ends_with_the_bits_of_the_plain_loop(loop, tmp_path):
    check_killed(loop, tmp_path, DEATHS)


@pytest.mark.parametrize(
    ("loop", "names"),
    [(labels_between, "labels"), (anchor_between, "anchor"), (rounds_without_epochs, "known")],
)
def test_where_weights_are_too_many_to_be_held_it_is_named(loop, names, tmp_path, monkeypatch):
    monkeypatch.setattr("colabkit.frameworks.small_copies._WEIGHTS_BYTES_MAX", 0)
    _, run = train(loop, tmp_path)
    assert any(each.startswith(f"{names} is made with") for each in run.verdict.reasons)


def test_what_is_held_of_all_passes_has_one_limit(tmp_path, monkeypatch):
    size = sum(each.nbytes for each in Notebook(None, -1).model.parameters())
    monkeypatch.setattr("colabkit.frameworks.small_copies._WEIGHTS_BYTES_MAX", 3 * size)
    _, run = train(rounds_without_epochs, tmp_path)
    held = [bool(each["objects"].get("weights")) for each in run._state.stops.values()]
    assert held.count(True) == 3
    assert any(each.startswith("known is made with") for each in run.verdict.reasons)


def sums_in_second_pass(book: Notebook) -> None:
    for _ in book.run.epochs(EPOCHS):
        for x, y in book.run.batches(ROWS):
            plain_step(book, x, y)
        total = 0.0
        for x, y in book.run.batches(ROWS):
            loss = functional.cross_entropy(book.model(x), y)
            total += loss.item()
            book.step(loss)
        book.optimizer.param_groups[0]["lr"] = 0.1 / (1 + total)


def trains_where_no_look_sees_it(book: Notebook) -> None:
    train = [book.step]
    for _ in book.run.epochs(EPOCHS):
        for x, y in book.run.batches(ROWS):
            plain_step(book, x, y)
        total = 0.0
        for x, y in book.run.batches(ROWS):
            loss = functional.cross_entropy(book.model(x), y)
            total += loss.item()
            train[0](loss)
        book.optimizer.param_groups[0]["lr"] = 0.1 / (1 + total)


def sums_of_evaluation(book: Notebook) -> None:
    for _ in book.run.epochs(EPOCHS):
        for x, y in book.run.batches(ROWS):
            plain_step(book, x, y)
        total = 0.0
        with torch.no_grad():
            for x, y in book.run.batches(ROWS):
                total += functional.cross_entropy(book.model(x), y).item()
        book.optimizer.param_groups[0]["lr"] = 0.1 / (1 + total)


def evaluates_first(book: Notebook) -> None:
    for _ in book.run.epochs(EPOCHS):
        book.model.eval()
        found = []
        with torch.no_grad():
            for x, _ in book.run.batches(ROWS):
                found.append(book.model(x))
        center = torch.cat(found).mean(0)
        book.model.train()
        for x, y in book.run.batches(ROWS):
            far = (book.model(x).mean(0) - center).pow(2).sum()
            book.step(functional.cross_entropy(book.model(x), y) + far)


SUMS = {
    sums_in_second_pass: {"total"},
    trains_where_no_look_sees_it: {"total"},
    sums_of_evaluation: set(),
    evaluates_first: {"found"},
}


@pytest.mark.parametrize("loop", SUMS)
def test_what_a_pass_sums_up_is_named_where_it_goes_on_at_the_batch(loop, tmp_path):
    book = Notebook(tmp_path, -1)
    book.dies_at = 1_000  # waits for each save
    loop(book)
    told = {each.split("begins anew")[0].split()[-1] for each in book.run.verdict.reasons}
    assert told == SUMS[loop]


def test_predictions_that_a_loop_without_an_optimizer_gathers_are_named(tmp_path):
    model, found = Notebook(None, -1).model, []
    run = colabkit.Run(tmp_path, model=model, progress=False)
    for x, _ in run.batches(ROWS):
        found.append(model(x))
    assert len(torch.cat(found)) == SAMPLES
    assert "found begins anew" in str(run.verdict)
