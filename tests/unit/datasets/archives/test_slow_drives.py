"""Unpacking from a slow Drive reads little more than the archive; bench_slow_drive times it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from benchmarks.slow_source import MODELS, DriveModel, SlowSource
from colabkit.datasets import plan_archive, unpack

NBYTES = 64_000_000


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "a.zip"
    block = bytes(range(256)) * 80
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(NBYTES // 2 // len(block)):
            packed.writestr(f"small/{number % 9}/{number}", block)
        packed.writestr("large", block * (NBYTES // 2 // len(block)))
    return path


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_a_zip_is_read_once(tmp_path, archive, model: DriveModel):
    source = SlowSource(archive, model)
    manifest = unpack(plan_archive(source), source, tmp_path)
    assert sum(file.nbytes for file in manifest) <= source.nbytes
    assert source.bytes_fetched <= 1.05 * source.nbytes
