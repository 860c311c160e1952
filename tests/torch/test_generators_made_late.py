"""Generators that data makes when it is first asked, and those that persistent workers hold."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit

ROWS, STEPS_IN_EPOCH = 24, 6


class Noise:
    """A transform that makes its generator when it is first called."""

    @functools.cached_property
    def generator(self) -> np.random.Generator:
        return np.random.default_rng(5)

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        return row + torch.from_numpy(self.generator.normal(0, 1, 4)).float()


class MadeInRows(torch_data.Dataset[Any]):
    """Makes one in the first sample of each process, and its transforms more."""

    def __init__(self) -> None:
        self.rows = torch.arange(4.0 * ROWS).reshape(ROWS, 4) / ROWS
        self.generator: np.random.Generator | None = None
        self.transforms = [Noise(), Noise()]

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.generator is None:
            self.generator = np.random.default_rng(7)
        row = self.rows[place] + float(self.generator.normal())
        for each in self.transforms:
            row = each(row)
        return row, row.sum() > 0


class Rarely:
    """A transform that makes its generator for the first row of a certain place."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, row: torch.Tensor) -> torch.Tensor:
        if row[0] < self.place / ROWS:
            return row
        if not hasattr(self, "drawing"):
            self.drawing = {"generator": np.random.default_rng(self.place)}
        return row + torch.from_numpy(self.drawing["generator"].normal(0, 1, 4)).float()


class MadeInSomeRows(torch_data.Dataset[Any]):
    """Its transforms make theirs one after the other, the last first."""

    def __init__(self) -> None:
        self.rows = torch.arange(float(ROWS)).reshape(ROWS, 1).expand(ROWS, 4) / ROWS
        self.transforms = [(Rarely(place),) for place in (17, 9, 5)]

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = self.rows[place]
        for (each,) in self.transforms:
            row = each(row)
        return row, row.sum() > 0


class Masking:
    """A collator that makes its generator for its first batch."""

    generator: torch.Generator | None = None

    def __call__(self, rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.generator is None:
            self.generator = torch.Generator().manual_seed(3)
        stacked = torch.stack(rows)
        kept = torch.rand(stacked.shape, generator=self.generator) > 0.3
        return stacked * kept, stacked.sum(1) > 0


def made_in_rows(workers: int) -> torch_data.DataLoader[Any]:
    return torch_data.DataLoader(MadeInRows(), 4, shuffle=True, num_workers=workers)


def made_in_some_rows(workers: int) -> torch_data.DataLoader[Any]:
    return torch_data.DataLoader(MadeInSomeRows(), 4, num_workers=workers)


def made_in_batches(workers: int) -> torch_data.DataLoader[Any]:
    rows = list(torch.linspace(-1, 1, ROWS * 4).reshape(ROWS, 4))
    return torch_data.DataLoader(rows, 4, True, collate_fn=Masking(), num_workers=workers)  # type: ignore[arg-type]


def trained(loader: Any, folder: Any, **more: Any) -> tuple[list[torch.Tensor], Any]:
    """Returns weights and verdict."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target.long())

    options: dict[str, Any] = {"optimizer": optimizer, "loss": loss, "progress": False, **more}
    history = colabkit.fit(model, loader, folder, epochs=2, **options)
    return [each.detach().clone() for each in model.parameters()], history.verdict


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [made_in_rows, made_in_some_rows, made_in_batches])
def test_generators_that_data_makes_when_it_is_first_asked_are_seeded(
    make: Any, workers: int, tmp_path: Any
) -> None:
    whole, verdict = trained(make(workers), tmp_path / "whole")
    assert verdict.reasons == ()
    for max_steps in (2, 4, STEPS_IN_EPOCH + 3, None):
        told = {} if max_steps is None else {"max_steps": max_steps}
        again, verdict = trained(make(workers), tmp_path / "again", **told)
    assert verdict.reasons == ()
    assert all(map(torch.equal, whole, again))


class ReadOn(torch_data.IterableDataset[Any]):
    """Makes one at its tenth row."""

    def __init__(self) -> None:
        self.drawing = MadeInSomeRows()

    def __iter__(self) -> Any:
        return map(self.drawing.__getitem__, range(ROWS))


def test_a_stream_that_makes_generators_as_it_is_read_is_named(tmp_path: Any) -> None:
    _, verdict = trained(torch_data.DataLoader(ReadOn(), 4), tmp_path)
    assert any("makes random generators as it is read" in each for each in verdict.reasons)


class Drawing(torch_data.IterableDataset[Any]):
    """Draws its rows from a generator of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(1)

    def __iter__(self) -> Any:
        for _ in range(ROWS // 2):
            row = torch.from_numpy(self.generator.normal(0, 1, 4)).float()
            yield row, row.sum() > 0


def test_persistent_workers_begin_each_pass_as_those_of_a_resume_do(tmp_path: Any) -> None:
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def loader() -> Any:
        told = {"num_workers": 2, "persistent_workers": True}
        return loaders.StatefulDataLoader(Drawing(), 4, **told)

    whole, verdict = trained(loader(), tmp_path / "whole")
    assert verdict.reasons == ()
    for max_steps in (2, STEPS_IN_EPOCH + 2, None):
        told = {} if max_steps is None else {"max_steps": max_steps}
        again, verdict = trained(loader(), tmp_path / "again", **told)
    assert verdict.reasons == ()
    assert all(map(torch.equal, whole, again))
