"""Run folders written by the first format are read, and go on, in every later version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import colabkit
from tests.abilities import FROZEN_TORCH
from tests.torch.frozen import (
    FOLDER,
    KILLED_AT,
    STEPS_A_EPOCH,
    TRAININGS,
    Memory,
    loop,
    untouched,
    written,
)


def thawed(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / name, tmp_path / name))


@pytest.mark.parametrize("name", TRAININGS)
def test_the_first_formats_checkpoints_are_whole_and_lie_amid_an_epoch(name):
    found = colabkit.checkpoints(FOLDER / name, verify=True)
    assert {info.problem for info in found} == {""}
    assert found[0].step == KILLED_AT
    assert 0 < found[0].batch < STEPS_A_EPOCH


@pytest.mark.needs(FROZEN_TORCH)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_run_of_the_first_format_ends_with_the_bits_it_was_begun_for(name, tmp_path):
    ended = TRAININGS[name](thawed(name, tmp_path), untouched)
    assert f"{ended}\n" == (FOLDER / f"{name}.txt").read_text().replace(",\n", ", ")
    assert colabkit.checkpoints(tmp_path / name)[0].epoch == 3


def test_the_first_format_gives_back_every_kind_of_value(tmp_path):
    memory = Memory()
    loop(thawed("loop", tmp_path), untouched, memory)
    assert memory.loaded is not None
    assert written(memory.loaded) == written(
        {**Memory().state_dict(), "count": memory.loaded["count"]}
    )
