"""Invented archives come out as other programs unpack them, or are refused for a reason."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

import colabkit
from colabkit.errors import ArchiveError
from tests.abilities import BSDTAR, SEVEN_ZIP, SOAK, UNZIP
from tests.unit.datasets.archives.inventing import invented
from tests.unit.datasets.archives.judging import differences, is_named, judged_by

pytestmark = [pytest.mark.needs(BSDTAR), pytest.mark.needs(SEVEN_ZIP), pytest.mark.needs(UNZIP)]
BATCH = 40
# All those up to here were looked at; the sweep goes on behind them.
FIRST_OF_SWEEP, BATCHES_OF_SWEEP = 1000, 150


def judge(number: int, outer: Path) -> None:
    """Fails where what is made of an invented archive is no other program's answer."""
    one = invented(number)
    outer.mkdir()
    archive = outer / f"archive{one.suffix}"
    archive.write_bytes(one.data)
    theirs = judged_by(archive, one.suffix, outer)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            made = colabkit.dataset(archive, progress=False)
    except ArchiveError as error:
        wrong = [] if is_named(error, theirs) else [f"refused: {error}"]
    else:
        wrong = differences(made, theirs, said.getvalue())
    assert not wrong, "\n".join([str(one), *wrong])


@pytest.mark.parametrize("batch", range(3))
def test_an_invented_archive_comes_out_as_other_programs_unpack_it(tmp_path, cache, batch):
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        judge(number, tmp_path / str(number))


@pytest.mark.soak
@pytest.mark.needs(SOAK)
@pytest.mark.parametrize("batch", range(BATCHES_OF_SWEEP))
def test_a_sweep_of_invented_archives_comes_out_so(tmp_path, cache, batch):
    first = FIRST_OF_SWEEP + batch * BATCH
    for number in range(first, first + BATCH):
        judge(number, tmp_path / str(number))
