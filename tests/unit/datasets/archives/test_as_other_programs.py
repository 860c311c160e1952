"""Invented archives come out as other programs unpack them, or are refused for a reason."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

import pytest

import colabkit
from colabkit.errors import ArchiveError
from tests.abilities import BSDTAR, SEVEN_ZIP, SOAK, UNZIP
from tests.unit.datasets.archives.inventing import invented
from tests.unit.datasets.archives.inventing.encoded import invented_names
from tests.unit.datasets.archives.inventing.members import Invented
from tests.unit.datasets.archives.inventing.parts import cut_in_parts
from tests.unit.datasets.archives.inventing.sevens import invented_7z
from tests.unit.datasets.archives.judging import differences, is_named, judged_by
from tests.unit.datasets.building import side_by_side
from tests.unit.datasets.sources import content_of

pytestmark = [pytest.mark.needs(BSDTAR), pytest.mark.needs(SEVEN_ZIP), pytest.mark.needs(UNZIP)]
BATCH = 40
# All those up to here were looked at; the sweep goes on behind them.
FIRST_OF_SWEEP, BATCHES_OF_SWEEP, BATCHES_OF_KINDS = 1000, 150, 25


def judge(one: Invented, outer: Path, source: Path | None = None) -> None:
    """Fails where what is made of an invented archive is no other program's answer.

    Args:
        one: The archive.
        outer: A folder of its own.
        source: What to make a dataset of, where it is not the archive itself.
    """
    outer.mkdir(exist_ok=True)
    archive = outer / f"archive{one.suffix}"
    archive.write_bytes(one.data)
    theirs = judged_by(archive, one.suffix, outer)
    said = io.StringIO()
    try:
        # Each is small, which threads would not be started for.
        with contextlib.redirect_stdout(said), side_by_side(really=one.number % 2 == 1):
            made = colabkit.dataset(source or archive, progress=False)
    except ArchiveError as error:
        wrong = [] if is_named(error, theirs) else [f"refused: {error}"]
    else:
        wrong = differences(made, theirs, said.getvalue())
    assert not wrong, "\n".join([str(one), *wrong])


def judge_plain(number: int, outer: Path) -> None:
    judge(invented(number), outer)


def judge_parts(number: int, outer: Path) -> None:
    """Judges an archive that is read from any one of its parts."""
    one, draw = invented(number), random.Random(-1 - number)
    folder = outer / "parts"
    folder.mkdir(parents=True)
    parts = cut_in_parts(one, draw)
    for name, data in parts.items():
        (folder / name).write_bytes(data)
    judge(one, outer, folder / draw.choice(list(parts)))


def judge_names(number: int, outer: Path) -> None:
    """Judges an archive by the names that were written into it."""
    one, encoding, content = invented_names(number)
    outer.mkdir()
    archive = outer / f"archive{one.suffix}"
    archive.write_bytes(one.data)
    made = content_of(colabkit.dataset(archive, encoding=encoding, progress=False))
    assert made == content, f"{one}\n{sorted(made)} and not {sorted(content)}"


def judge_7z(number: int, outer: Path) -> None:
    pytest.importorskip("py7zr")
    judge(invented_7z(number, outer / "packing"), outer)


KINDS = {"plain": judge_plain, "parts": judge_parts, "names": judge_names, "7z": judge_7z}


@pytest.mark.parametrize("batch", range(3))
def test_an_invented_archive_comes_out_as_other_programs_unpack_it(tmp_path, cache, batch):
    for number in range(batch * BATCH, (batch + 1) * BATCH):
        judge_plain(number, tmp_path / str(number))


@pytest.mark.parametrize(("kind", "count"), [("parts", 20), ("names", 60), ("7z", 10)])
def test_an_invented_archive_of_another_kind_comes_out_so(tmp_path, cache, kind, count):
    for number in range(count):
        KINDS[kind](number, tmp_path / str(number))


@pytest.mark.soak
@pytest.mark.needs(SOAK)
@pytest.mark.parametrize("batch", range(BATCHES_OF_SWEEP))
def test_a_sweep_of_invented_archives_comes_out_so(tmp_path, cache, batch):
    first = FIRST_OF_SWEEP + batch * BATCH
    for number in range(first, first + BATCH):
        judge_plain(number, tmp_path / str(number))


@pytest.mark.soak
@pytest.mark.needs(SOAK)
@pytest.mark.parametrize("kind", ["parts", "names", "7z"])
@pytest.mark.parametrize("batch", range(BATCHES_OF_KINDS))
def test_a_sweep_of_other_kinds_comes_out_so(tmp_path, cache, kind, batch):
    first = FIRST_OF_SWEEP + batch * BATCH
    for number in range(first, first + BATCH):
        KINDS[kind](number, tmp_path / str(number))
