"""Unpacking from a slow Drive is bound by its link, and never slower than copying first."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import pytest

from benchmarks.slow_source import MODELS, DriveModel, SlowSource
from colabkit.datasets import plan_archive, unpack

# Little enough to be quick; what a few chunks cost at the start and the end weighs more then.
NBYTES = 64_000_000
COPIED_BYTES = 8 << 20
WAIT_S = 0.6


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
def test_a_zip_comes_at_the_speed_of_the_link(tmp_path, archive, model: DriveModel):
    source = SlowSource(archive, model)
    began_s = time.monotonic()
    manifest = unpack(plan_archive(source), source, tmp_path)
    took_s = time.monotonic() - began_s
    assert sum(file.nbytes for file in manifest) <= source.nbytes
    assert source.bytes_fetched <= 1.05 * source.nbytes
    assert took_s <= 1.6 * source.floor_s + WAIT_S
    copied_s = SlowSource(archive, model).copy_s(COPIED_BYTES) * source.nbytes / COPIED_BYTES
    assert took_s <= copied_s + WAIT_S
