"""Streams that are read again, or as they are: what is promised of them, and in every session."""

from __future__ import annotations

import functools
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
from colabkit.errors import ArgumentError
from colabkit.runs.data_check import ReadingAgain

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
    """Finishes its batches where it makes its iterator, as loaders of graphs do.

    It can be called as well, for a batch of certain samples.
    """

    def __call__(self, indices: list[int]) -> Any:
        return torch_data.default_collate([self.dataset[index] for index in indices])

    def _get_iterator(self) -> Any:
        return ((2 * x, y) for x, y in super()._get_iterator())


class Backwards(torch_data.DataLoader):
    """Takes its samples in an order of its own making."""

    @property
    def _index_sampler(self) -> Any:
        return [batch[::-1] for batch in super()._index_sampler]


class BatchByBatch(torch_data.DataLoader):
    """Asks its dataset for whole batches, though it knows a batch size."""

    _auto_collation = False

    def __init__(self) -> None:
        whole = list(torch_data.DataLoader(pairs(), batch_size=16))
        super().__init__(whole, batch_size=4, collate_fn=lambda batch: batch)


class WholeBatches(torch_data.IterableDataset):
    """Gives batches that are made already, by a loader within."""

    def __init__(self) -> None:
        self.loader = torch_data.DataLoader(pairs(), batch_size=16)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (lambda: Doubling(pairs(), batch_size=8), (8, 6)),
        (lambda: Backwards(pairs(), batch_size=8), (8, 6)),
        (BatchByBatch, (16, 6)),
        (WholeBatches, (16, 6)),
    ],
    ids=["an iterator of its own", "its own order", "asked by batches", "batches made within"],
)
def test_batches_are_those_that_the_loader_itself_would_give(data, shape, tmp_path):
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


class ByEpoch(torch_data.Sampler):
    """Has another order in each epoch, which it must be told."""

    epoch = -1

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng(self.epoch).permutation(SAMPLES).tolist())

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_a_sampler_is_told_the_epoch_by_a_loader_that_is_read_as_it_is(tmp_path):
    seen: list[list[float]] = []
    for max_steps in (3, 9, None):
        loader = Doubling(pairs(), batch_size=8, sampler=ByEpoch())
        model = nn.Linear(6, 2)
        run = colabkit.Run(tmp_path, model=model, progress=False, max_steps=max_steps)
        for _ in run.epochs(2):
            seen += [x[:, 0].tolist() for x, _ in run.batches(loader)]
    x = torch.stack([x for x, _ in pairs()])[:, 0]
    orders = [np.random.default_rng(epoch).permutation(SAMPLES) for epoch in (0, 1)]
    expected = torch.cat([2 * x[torch.from_numpy(order)] for order in orders])
    assert [each for batch in seen for each in batch] == expected.tolist()


class Loading(torch_data.IterableDataset):
    """Reads from a loader with workers among its stages, as webdataset's loader does."""

    def __init__(self, stream: Any) -> None:
        self.pipeline = [torch_data.DataLoader(stream, batch_size=8, num_workers=2), "a stage"]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.pipeline[0])


def test_a_batch_of_each_worker_of_a_loader_within_is_looked_at(tmp_path):
    verdict = fit(tmp_path / "last", Loading(ShuffledByTheSystem(last_only=True))).verdict
    assert "gave another first batch when read again" in str(verdict)
    assert not fit(tmp_path / "none", Loading(ShuffledInOrder())).verdict.reasons


class Graph:
    """A batch that is neither a tuple nor a dict."""

    def __init__(self) -> None:
        self.x, self.y = torch.ones(8, 6), torch.zeros(8, dtype=torch.long)


def test_of_batches_that_fit_cannot_take_apart_the_error_names_the_loop(tmp_path):
    with pytest.raises(ArgumentError, match="came as Graph") as caught:
        fit(tmp_path, [Graph(), Graph()])
    assert "colabkit.Run" in caught.value.hint


def test_reading_a_long_stream_again_says_how_far_it_is():
    now_s, said = 0.0, []
    reading = ReadingAgain(1000, said.append, clock=lambda: now_s)
    for number in range(1, 1001):
        now_s = number * 0.05
        reading(number)
    assert 2 <= len(said) <= 5
    assert "batch 60 of 1,000, about 47 s more" in said[0]


def test_items_that_are_read_again_say_how_far_they_are(tmp_path, monkeypatch, capsys):
    from colabkit.runs import data_check

    now_s = iter(range(10_000))
    clocked = functools.partial(ReadingAgain, clock=lambda: next(now_s))
    monkeypatch.setattr(data_check, "ReadingAgain", clocked)
    seen: list[int] = []
    for max_steps in (30, None):
        run = colabkit.Run(tmp_path, max_steps=max_steps)
        seen += run.items(iter(range(40)))
    assert seen == list(range(40))
    assert "up to its place: item 3 of 30, about 27 s more" in capsys.readouterr().out


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


OF_THE_MODULE = np.random.default_rng(3)


class DrawsFromItsClass:
    source = np.random.RandomState()

    def __call__(self, value: Any) -> Any:
        return value * 1.5 if self.source.rand() < 0.3 else value


class DrawsFromTheModule:
    def __call__(self, value: Any) -> Any:
        return value * 1.5 if OF_THE_MODULE.random() < 0.3 else value


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("change", [DrawsFromItsClass, DrawsFromTheModule])
def test_a_generator_of_a_class_or_module_is_seeded_by_its_place(change, workers, tmp_path):
    def ends(name: str, *stops: int | None) -> list[float]:
        for max_steps in stops:
            data = Augmented(1)
            data.change = Each(change())
            loader = torch_data.DataLoader(data, batch_size=8, shuffle=True, num_workers=workers)
            history = fit(tmp_path / name, loader, max_steps=max_steps)
        assert str(history.verdict) == "Resume is exact."
        return [row["loss"] for row in history.epochs]

    assert ends("killed", 3, 11, None) == ends("alone", None)


class DrawsInItsForward(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float(OF_THE_MODULE.random())


def test_a_generator_of_a_module_that_a_model_draws_from_goes_on(tmp_path):
    at_start = OF_THE_MODULE.bit_generator.state

    def losses(name: str, *stops: int | None) -> list[float]:
        for max_steps in stops:
            OF_THE_MODULE.bit_generator.state = at_start  # as in a session that begins
            torch.manual_seed(0)
            history = colabkit.fit(
                DrawsInItsForward(6, 2),
                torch_data.DataLoader(pairs(), batch_size=8),
                tmp_path / name,
                progress=False,
                max_steps=max_steps,
            )
        return history.steps["loss"].tolist()

    assert losses("killed", 3, 5, None) == losses("alone", None)


class Counts(Augmented):
    """Counts its samples, and keeps the newest: attributes that change with each of them."""

    def __init__(self) -> None:
        super().__init__(1)
        self.count = 0
        self.newest: Any = None

    def __getitem__(self, index: int) -> Any:
        self.count += 1
        self.newest = {"index": index}
        return super().__getitem__(index)


def test_a_dataset_that_counts_is_not_searched_for_generators_at_each_batch(monkeypatch):
    from colabkit.frameworks import own_generators

    searched: list[object] = []
    search = own_generators.search_in_data
    monkeypatch.setattr(
        own_generators, "search_in_data", lambda *given: searched.append(given[0]) or search(*given)
    )
    data = Counts()
    generators = own_generators.OwnGenerators(data)
    for batch in range(50):
        generators.reseed(batch)
        data[batch]
    assert sum(each is data for each in searched) == 1
    data.change = Rarely()
    generators.reseed(50)
    assert sum(each is data for each in searched) == 2
