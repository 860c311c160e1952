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
@pytest.mark.parametrize("make", [made_in_rows, made_in_batches])
def test_generators_that_data_makes_when_it_is_first_asked_are_seeded(
    make: Any, workers: int, tmp_path: Any
) -> None:
    whole, verdict = trained(make(workers), tmp_path / "whole")
    assert verdict.reasons == ()
    for max_steps in (2, STEPS_IN_EPOCH + 1, None):
        told = {} if max_steps is None else {"max_steps": max_steps}
        again, verdict = trained(make(workers), tmp_path / "again", **told)
    assert verdict.reasons == ()
    assert all(map(torch.equal, whole, again))


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
