"""Arrays that a loop goes by and writes into through views are named once they have changed."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import colabkit
from tests.torch.steered import named_in, run_of


def rows(run: Any, step: Any) -> None:
    bank = torch.zeros(4)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + bank.sum())
        for each in bank.view(2, 2):
            each.add_(1.0)


def a_row_by_its_number(run: Any, step: Any) -> None:
    bank = torch.zeros(4, 2)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + bank.sum())
        slot = bank[run.step % 4]
        slot += 1.0


def chunks(run: Any, step: Any) -> None:
    bank = torch.zeros(4)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + bank.sum())
        first, _ = bank.chunk(2)
        first += 1.0


def what_a_function_gives(run: Any, step: Any) -> None:
    bank = torch.zeros(4, 2)

    def slot(number: int) -> torch.Tensor:
        return bank[number]

    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + bank.sum())
        slot(1).add_(1.0)


def an_attribute(run: Any, step: Any) -> None:
    own = types.SimpleNamespace(bank=torch.zeros(4))
    own.head = own.bank[:2]
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + own.bank.sum())
        own.head += 1.0


def numpy_memory(run: Any, step: Any) -> None:
    sums = np.zeros((2, 2))
    view = torch.from_numpy(sums)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + sums.sum())
        view[0].add_(1.0)


def a_table_of_banks(run: Any, step: Any) -> None:
    banks = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + banks["a"].sum())
        slot = banks["a"][run.step % 2]
        slot += 1.0


def half_of_each_number(run: Any, step: Any) -> None:
    bank = np.zeros(2, "complex64")
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        bank.real[:] = row.numpy()
        step(row.sum() + abs(bank).sum())
        bank.imag[:] += 1.0


def one_row_of_a_large_array(run: Any, step: Any) -> None:
    bank = np.zeros((512, 256))
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum() + bank.sum())
        slot = bank[3]
        slot[5] += 1.0


def copies_of_rows(run: Any, step: Any) -> None:
    bank = torch.zeros(4)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        for each in bank.view(2, 2):
            each = each.clone()
            each += 1.0
        step(row.sum() + bank.sum())


def what_is_shown(run: Any, step: Any) -> None:
    counts = torch.zeros(2, 2)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        step(row.sum())
        of_class = counts[1]
        of_class += 1.0
        print(counts)


def what_each_turn_fills(run: Any, step: Any) -> None:
    room, other = np.zeros(2, "float32"), torch.zeros(2)
    for row in run.batches(DataLoader(torch.ones(4), 2)):
        room[:] = row.numpy()
        other[...] = row
        step(torch.from_numpy(room).sum() + other.sum())


NAMED: dict[Callable[..., None], set[str]] = {
    rows: {"bank"},
    a_row_by_its_number: {"bank"},
    chunks: {"bank"},
    what_a_function_gives: {"bank"},
    an_attribute: {"own.bank"},
    numpy_memory: {"sums"},
    a_table_of_banks: {"banks"},
    half_of_each_number: {"bank"},
    one_row_of_a_large_array: {"bank"},
    copies_of_rows: set(),
    what_is_shown: set(),
    what_each_turn_fills: set(),
}


@pytest.mark.parametrize("loop", NAMED, ids=lambda loop: str(loop.__name__))
def test_what_is_written_through_a_view_is_named_where_steps_go_by_it(loop, tmp_path):
    assert named_in(run_of(loop, tmp_path)) == NAMED[loop]


class Ordered:
    """Has data, and saves where it stands in that."""

    def __init__(self) -> None:
        self.labels, self.at = torch.zeros(4), 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def test_what_an_object_has_beside_its_state_is_not_taken_for_saved(tmp_path):
    model, data = torch.nn.Linear(1, 1), Ordered()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(tmp_path, model=model, optimizer=optimizer, data=data, progress=False)
    labels, weight = data.labels[1:], model.weight.data
    for row in run.batches(DataLoader(torch.ones(4, 1), 2)):
        optimizer.zero_grad()
        (model(row).sum() + labels.sum() * weight.sum()).backward()
        optimizer.step()
        labels[0] += 1.0
        weight.clamp_(-1.0, 1.0)
    assert named_in(run) == {"labels"}
