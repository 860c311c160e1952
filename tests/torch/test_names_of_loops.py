"""What a loop's steps set is there behind it, wherever a session ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.torch.killing import in_child
from tests.torch.plain_notebook import EPOCHS, ROWS, Notebook, train


class Noting(Notebook):
    """Takes down a number in each epoch."""

    def __init__(self, folder: Path | None, dies_at: int) -> None:
        super().__init__(folder, dies_at)
        self.kept = self.run.state(numbers=[])

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.model(x), y)


def behind_an_evaluation(book: Noting) -> None:
    for _ in book.run.epochs(EPOCHS):
        for x, y in book.run.batches(ROWS):
            loss = book.loss(x, y)
            book.step(loss)
        for x, y in book.run.batches(ROWS):
            with torch.no_grad():
                value = book.loss(x, y)
            book.end_step()
        book.kept.numbers.append((loss.item(), value.item()))


def behind_a_break(book: Noting) -> None:
    for _ in book.run.epochs(EPOCHS):
        for x, y in book.run.batches(ROWS):
            loss = book.loss(x, y)
            book.step(loss)
            if loss < 10:
                break
        book.end_step()
        book.kept.numbers.append(loss.item())


def trained(book: Noting) -> float:
    for x, y in book.run.batches(ROWS):
        loss = book.loss(x, y)
        book.step(loss)
        if loss < 10:
            return loss.item()
    return 0.0


def returned(book: Noting) -> None:
    for _ in book.run.epochs(EPOCHS):
        number = trained(book)
        book.end_step()
        book.kept.numbers.append(number)


@pytest.mark.parametrize(
    ("loop", "dies_at"),
    [
        (behind_an_evaluation, 6),
        (behind_an_evaluation, 8),
        (behind_an_evaluation, 15),
        (behind_a_break, 2),
        (returned, 2),
    ],
)
def test_a_session_that_ends_behind_a_loop_goes_on_with_what_it_set(loop, dies_at, tmp_path):
    def numbers(folder: Path | None, dies_at: int = -1) -> list[Any]:
        seen: list[Any] = []

        def noted(book: Noting) -> None:
            loop(book)
            seen.extend(book.kept.numbers)

        weights, _ = train(noted, folder, dies_at=dies_at, kind=Noting)
        return [weights, seen]

    def die() -> None:
        numbers(tmp_path / "run", dies_at)

    assert not in_child(die, report=tmp_path / "report")
    assert numbers(tmp_path / "run") == numbers(None)
