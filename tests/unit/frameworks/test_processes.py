"""Processes that a launcher has started together never train copies into one run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import colabkit
from colabkit.errors import ArgumentError
from colabkit.frameworks.processes import process_count

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 1),
        (TORCHRUN, 2),
        ({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}, 1),
        ({"WORLD_SIZE": "4"}, 1),
        ({**TORCHRUN, "WORLD_SIZE": "many"}, 1),
    ],
)
def test_a_launcher_says_how_many_processes_train_together(
    environ: dict[str, str], count: int
) -> None:
    assert process_count(environ) == count


def test_a_loop_of_ones_own_in_several_processes_is_an_error_that_shows_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match="2 processes were started together") as raised:
        colabkit.Run(tmp_path, progress=False)
    assert "colabkit.fit(model, data, ckpt_dir)" in str(raised.value)
    assert not list(tmp_path.iterdir())
