"""Datasets whose samples are rows of named columns, as Hugging Face's are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError

QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "batch_size": 4}
IDS = [[n % 7, n % 5, n % 3, n % 2] for n in range(16)]
LABELS = [n % 3 for n in range(16)]
Rows = list[dict[str, Any]]


class Columns(torch_data.Dataset[Any]):
    """Gives rows of lists and numbers, or of tensors, as it is told."""

    def __init__(self, rows: Rows, kind: str | None = None) -> None:
        self.rows = rows
        self.format = {"type": kind}

    def with_format(self, kind: str) -> Columns:
        return Columns(self.rows, kind)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if self.format["type"] is None:
            return row
        return {k: v if isinstance(v, str) else torch.tensor(v) for k, v in row.items()}


class OwnLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.head = nn.Embedding(7, 8), nn.Linear(8, 3)

    def forward(self, input_ids: torch.Tensor, labels: Any = None, **more: Any) -> dict[str, Any]:
        assert not more
        logits = self.head(self.table(input_ids).mean(1))
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class NoLoss(OwnLoss):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.head(self.table(input_ids).mean(1))


def rows(target: str, **more: Any) -> Rows:
    pairs = zip(IDS, LABELS, strict=True)
    return [{"input_ids": ids, target: label, **more} for ids, label in pairs]


def weights_after(make: Callable[[], nn.Module], data: Any, folder: Any) -> list[torch.Tensor]:
    model = make()
    colabkit.fit(model, data, folder, epochs=2, **QUIET)
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("make", [OwnLoss, NoLoss])
@pytest.mark.parametrize(
    "data",
    [
        Columns(rows("labels")),
        Columns(rows("label")),
        Columns(rows("label_ids", text="a b"), "torch"),
    ],
    ids=["lists", "label", "label_ids and text"],
)
def test_columns_train_as_pairs_of_tensors_do(make, data, tmp_path):
    pairs = torch_data.TensorDataset(torch.tensor(IDS), torch.tensor(LABELS))
    expected = weights_after(NoLoss, pairs, tmp_path / "pairs")
    found = weights_after(make, data, tmp_path / "rows")
    assert all(map(torch.equal, found, expected))


def test_lists_of_numbers_in_a_loader_say_what_to_do(tmp_path):
    loader = torch_data.DataLoader(Columns(rows("labels")), batch_size=4)
    with pytest.raises(ArgumentError, match=r"input_ids came as a list of 4 tensors.*with_format"):
        weights_after(OwnLoss, loader, tmp_path)


@pytest.mark.parametrize("kind", [None, "torch"])
def test_samples_of_several_lengths_say_which_and_what_to_do(kind, tmp_path):
    uneven = [row | {"input_ids": row["input_ids"][: 1 + n % 4]} for n, row in enumerate(rows("y"))]
    with pytest.raises(ArgumentError, match=r"input_ids of \d to \d.*DataCollatorWithPadding"):
        weights_after(OwnLoss, Columns(uneven, kind), tmp_path)


def test_parts_of_a_dataset_are_not_data(tmp_path):
    parts = {"train": Columns(rows("label")), "test": Columns(rows("label"))}
    with pytest.raises(ArgumentError, match=r"a dict of train, test.*data\['train'\]"):
        weights_after(OwnLoss, parts, tmp_path)
