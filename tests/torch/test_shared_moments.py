"""An optimizer that was given another's state_dict goes on with the very tensors of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from tests.torch.plain_notebook import ROWS, Notebook, PlainLoop, check_killed, network


class Population(Notebook):
    """Two networks, each with an optimizer of its own."""

    makes: Any = staticmethod(lambda each: torch.optim.SGD(each, lr=0.1, momentum=0.9))

    def __init__(self, folder: Path | None, dies_at: int) -> None:
        self.dies_at, self.run = dies_at, PlainLoop()
        self.model = nn.ModuleList([network(), network()])
        self.optimizers = [self.makes(each.parameters()) for each in self.model]
        if folder is not None:
            named = dict(zip(("first", "second"), self.optimizers, strict=True))
            self.run = colabkit.Run(folder, save_every=1, progress=False, model=self.model, **named)


class Adams(Population):
    makes = staticmethod(lambda each: torch.optim.Adam(each, lr=0.05))


def exploiting(book: Any) -> None:
    """After the first epoch the second goes on from the first."""
    for epoch in book.run.epochs(3):
        for x, y in book.run.batches(ROWS):
            for number, optimizer in enumerate(book.optimizers):
                optimizer.zero_grad()
                nn.functional.cross_entropy(book.model[number](x * (1 + number)), y).backward()
                optimizer.step()
            book.end_step()
        if epoch == 0:
            book.model[1].load_state_dict(book.model[0].state_dict())
            book.optimizers[1].load_state_dict(book.optimizers[0].state_dict())


@pytest.mark.parametrize("kind", [Population, Adams])
def test_moments_that_two_optimizers_share_are_shared_after_a_resume(kind, tmp_path):
    check_killed(exploiting, tmp_path, [5, 9], kind=kind)
