"""Streams that are read again, or as they are: what is promised of them, and in every session."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.training.data_check import ReadingAgain

SAMPLES = 64


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(1))
    return list(zip(x, (x.sum(1) > 0).long(), strict=True))


class ShuffledByTheSystem(torch_data.IterableDataset):
    """Shuffles with a generator of its own making, as streams of shards do.

    Args:
        last_only: Whether only the last worker's share is shuffled.
    """

    def __init__(self, *, last_only: bool = False) -> None:
        self.last_only = last_only

    def __iter__(self) -> Iterator[Any]:
        info = torch_data.get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        mine = pairs()[number::workers]
        if not self.last_only or number == workers - 1:
            random.Random(os.urandom(8)).shuffle(mine)
        return iter(mine)


def fit(folder: Any, data: Any, **more: Any) -> colabkit.History:
    torch.manual_seed(0)
    return colabkit.fit(nn.Linear(6, 2), data, folder, progress=False, **{"epochs": 2, **more})


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}], ids=["here", "in workers"])
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_a_stream_that_differs_is_named_in_every_session_and_goes_on(
    options, last_only, tmp_path, capsys
):
    """One look at a batch of each worker, before the first step; no session forgets it."""
    for max_steps in (3, 5, 11, None):
        stream = ShuffledByTheSystem(last_only=last_only)
        loader = torch_data.DataLoader(stream, batch_size=8, **options)
        history = fit(tmp_path, loader, max_steps=max_steps)
        said = capsys.readouterr().out
        assert "gave another first batch when read again" in str(history.verdict)
        assert "Resume is exact" not in said
    assert len(history.epochs) == 2


class Doubling(torch_data.DataLoader):
    """Finishes its batches where it makes its iterator, as loaders of graphs do."""

    def _get_iterator(self) -> Any:
        return ((2 * x, y) for x, y in super()._get_iterator())


class WholeBatches(torch_data.IterableDataset):
    """Gives batches that are made already, by a loader within."""

    def __init__(self) -> None:
        self.loader = torch_data.DataLoader(pairs(), batch_size=16)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@pytest.mark.parametrize(
    ("data", "shape", "factor"),
    [
        (lambda: Doubling(pairs(), batch_size=8), (8, 6), 2),
        (WholeBatches, (16, 6), 1),
    ],
    ids=["an iterator of its own", "batches made within"],
)
def test_batches_are_those_that_the_loader_itself_would_give(data, shape, factor, tmp_path):
    given: list[torch.Tensor] = []

    class Seen(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            given.append(x.clone())
            return super().forward(x)

    for max_steps in (2, 3, None):
        torch.manual_seed(0)
        model = Seen(6, 2)
        given.clear()
        colabkit.fit(model, data(), tmp_path, epochs=1, progress=False, max_steps=max_steps)
    by_itself = [x for x, _ in data()]
    assert given[-1].shape == shape
    assert torch.equal(given[-1], by_itself[-1])
    assert torch.equal(given[-1][0] / factor, pairs()[SAMPLES - shape[0]][0])


def test_reading_a_long_stream_again_says_how_far_it_is():
    now_s, said = 0.0, []
    reading = ReadingAgain(1000, said.append, clock=lambda: now_s)
    for number in range(1, 1001):
        now_s = number * 0.05
        reading(number)
    assert 2 <= len(said) <= 5
    assert "batch 60 of 1,000, about 47 s more" in said[0]


def test_what_is_read_again_at_once_is_not_worth_a_word(tmp_path, capsys):
    for max_steps in (3, None):
        fit(tmp_path, torch_data.DataLoader(ShuffledInOrder(), batch_size=8), max_steps=max_steps)
    assert "read again up to its place" not in capsys.readouterr().out


class ShuffledInOrder(torch_data.IterableDataset):
    def __iter__(self) -> Iterator[Any]:
        return iter(pairs())


class Each:
    """Transforms in a transform, as libraries of augmentations nest them."""

    def __init__(self, *inner: Any) -> None:
        self.inner = inner

    def __call__(self, value: Any) -> Any:
        for each in self.inner:
            value = each(value)
        return value


class Rarely:
    def __init__(self) -> None:
        self.source = np.random.RandomState()

    def __call__(self, value: Any) -> Any:
        return value * 1.5 if self.source.rand() < 0.1 else value


class Augmented(torch_data.Dataset):
    def __init__(self, depth: int) -> None:
        self.items = pairs()
        self.change: Any = Rarely()
        for _ in range(depth):
            self.change = Each(self.change)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        x, y = self.items[index]
        return self.change(x), y


@pytest.mark.parametrize("depth", [1, 4, 9])
def test_a_generator_in_transforms_of_transforms_is_seeded_by_its_place(depth, tmp_path):
    def ends(name: str, *stops: int | None) -> list[float]:
        for max_steps in stops:
            history = fit(tmp_path / name, Augmented(depth), batch_size=8, max_steps=max_steps)
        return [row["loss"] for row in history.epochs]

    assert ends("killed", 3, 11, None) == ends("alone", None)
