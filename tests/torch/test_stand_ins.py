"""Averages that stand in for the weights while they are evaluated are not taken for these."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.nn import functional

import colabkit
from tests.torch.averages import Average
from tests.torch.killing import in_child
from tests.torch.plain_notebook import EPOCHS, ROWS, Notebook, train


class Averaged(Notebook):
    """A loop that evaluates the averages in passes of their own."""

    counted = True

    def __init__(self, folder: Path | None, dies_at: int) -> None:
        super().__init__(None, dies_at)
        self.average = Average(self.model, counted=self.counted)
        objects = {"m": self.model, "o": self.optimizer, "average": self.average}
        if folder is not None:
            self.run = colabkit.Run(folder, save_every=1, progress=False, **objects)
        self.kept = self.run.state(losses=[])

    def train(self) -> None:
        for x, y in self.run.batches(ROWS):
            self.step(functional.cross_entropy(self.model(x), y))
            self.average.update()

    def evaluate(self) -> None:
        self.average.put()
        total = 0.0
        for x, y in self.run.batches(ROWS):
            total += functional.cross_entropy(self.model(x), y).item()
            self.end_step()
        self.average.take()
        self.kept.losses.append(total)


class Unseen(Averaged):
    counted = False


def behind(book: Averaged) -> None:
    for _ in book.run.epochs(EPOCHS):
        book.train()
        book.evaluate()


def before(book: Averaged) -> None:
    for _ in book.run.epochs(EPOCHS):
        book.evaluate()
        book.train()


def without_epochs(book: Averaged) -> None:
    for _ in range(EPOCHS):
        book.train()
        book.evaluate()


def trained_on(book: Averaged) -> None:
    """What is put behind the first pass stays, and the second one trains."""
    for _ in book.run.epochs(EPOCHS):
        book.train()
        book.average.put()
        book.train()


LOOPS: list[Callable[[Any], None]] = [behind, before, without_epochs, trained_on]
STEPS = len(ROWS)


@pytest.mark.parametrize("dies_at", [STEPS + 2, 3 * STEPS - 1])
@pytest.mark.parametrize(
    ("loop", "kind"), [(behind, Unseen), *((loop, Averaged) for loop in LOOPS)]
)
def test_a_session_that_ends_in_any_pass_goes_on_with_the_weights(loop, dies_at, kind, tmp_path):
    by_hand, _ = train(loop, None, kind=kind)
    died = not in_child(
        lambda: train(loop, tmp_path / "run", dies_at=dies_at, kind=kind) and None,
        report=tmp_path / "report",
    )
    assert died
    again, run = train(loop, tmp_path / "run", kind=kind)
    assert again == by_hand
    assert run.step == 2 * STEPS * EPOCHS


def test_a_pass_that_trains_is_saved_although_weights_were_set_behind_the_one_before(tmp_path):
    dies_at = STEPS + 3
    in_child(
        lambda: train(trained_on, tmp_path / "run", dies_at=dies_at, kind=Averaged) and None,
        report=tmp_path / "report",
    )
    assert colabkit.checkpoints(tmp_path / "run")[0].step >= dies_at - 1


def test_an_interrupt_waits_until_the_weights_are_back(tmp_path):
    by_hand, _ = train(behind, None, kind=Averaged)

    class Interrupted(Averaged):
        def end_step(self) -> None:
            if self.run.step == STEPS + 2:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(behind, tmp_path / "run", kind=Interrupted)
    assert colabkit.checkpoints(tmp_path / "run")[0].epoch == 1
    assert train(behind, tmp_path / "run", kind=Averaged)[0] == by_hand
