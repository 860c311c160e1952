"""The folder goes straight into what people train with."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_files

import colabkit
from tests.unit.datasets.sources import make_zip


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    files = {}
    for number in range(8):
        buffer = io.BytesIO()
        np.save(buffer, np.full(4, number, np.float32))
        files[f"{'cats' if number % 2 else 'dogs'}/{number}.npy"] = buffer.getvalue()
    files["labels.csv"] = b"name,label\n" + b"".join(b"%d,%d\n" % (n, n % 2) for n in range(8))
    return colabkit.dataset(make_zip(tmp_path / "pets.zip", files), progress=False)


class Pets(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(path.relative_to(root) for path in root.glob("*/*.npy"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.root / self.names[index]))


def test_a_loaders_workers_read_it(data_dir):
    loader = torch.utils.data.DataLoader(
        Pets(data_dir), batch_size=4, num_workers=1, multiprocessing_context="spawn"
    )
    assert torch.cat(list(loader)).shape == (8, 4)


def test_pandas_reads_its_tables(data_dir):
    assert list(pd.read_csv(data_dir / "labels.csv")["label"]) == [0, 1] * 4


def test_classes_are_its_folders(data_dir):
    found = load_files(data_dir, load_content=False)
    assert found.target_names == ["cats", "dogs"]
    assert len(found.filenames) == 8


def test_what_takes_text_takes_it(data_dir):
    assert sorted(os.listdir(data_dir)) == ["cats", "dogs", "labels.csv"]  # noqa: PTH208 - meant
    assert np.load(os.path.join(data_dir, "cats", "1.npy")).sum() == 4  # noqa: PTH118 - meant
    assert f"{data_dir}/cats" == str(data_dir / "cats")
