"""A call of dataset() that is killed at any instant leaves nothing wrong, and is continued."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import colabkit
from tests.integration.making_datasets import Caller
from tests.unit.datasets.sources import content_of, inodes_of, make_folder, make_tar, make_zip

SOAK = bool(os.environ.get("COLABKIT_SOAK"))
SEEDS = range(50 if SOAK else 2)
KILLS = 3
THREADS = 32
Content = Mapping[str, bytes]


def files(seed: int) -> dict[str, bytes]:
    draw = random.Random(seed)
    small = {f"{n % 9}/{n:04}.bin": draw.randbytes(draw.randint(0, 30_000)) for n in range(900)}
    return {**small, **{f"large/{n}": draw.randbytes(4 << 20) for n in range(3)}}


FIRST, SECOND = files(1), files(2)
# So many that processes write them.
MANY = {f"{n % 9}/{n:05}.txt": b"%d" % n * 200 for n in range(6000)}


def make_tar_gz(path: Path, content: Content) -> Path:
    return make_tar(path, content, mode="w:gz")


def whole_files(folder: Path | None, content: Content) -> dict[str, int]:
    """Returns the files of a folder that are what they should be, with their numbers."""
    numbers: dict[str, int] = {}
    for name, number in inodes_of(folder).items() if folder else ():
        with contextlib.suppress(FileNotFoundError):
            if (folder / name).read_bytes() == content.get(name):
                numbers[name] = number
    return numbers


def killed_call(source: Path, dest: Path, after_s: float) -> bool:
    """Kills a call after a while; returns whether it was over by then."""
    caller = Caller(source, dest)
    caller.go()
    time.sleep(after_s)
    os.set_blocking(caller.process.stdout.fileno(), False)
    was_done = caller.line().startswith("done")
    caller.kill()
    return was_done


@pytest.fixture(scope="module")
def duration_s(tmp_path_factory) -> float:
    """Returns how long an undisturbed call takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    archive = make_zip(folder / "a.zip", FIRST)
    caller = Caller(archive, folder / "out")
    began_s = time.monotonic()
    caller.go()
    caller.lines_until_done()
    duration_s = time.monotonic() - began_s
    caller.end()
    return duration_s


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [make_zip, make_tar_gz, make_folder])
def test_killed_anywhere_it_is_never_wrong_and_no_whole_file_is_made_twice(
    tmp_path, duration_s, make, seed
):
    draw = random.Random(f"{make.__name__} {seed}")
    source, dest = tmp_path / "source", tmp_path / "out"
    make(source, FIRST)
    work = tmp_path / ".colabkit/out/work"
    for _ in range(KILLS):
        if killed_call(source, dest, draw.uniform(0, 1.1 * duration_s)):
            break
        if dest.exists():
            assert content_of(dest) == FIRST
    kept = whole_files(dest if dest.exists() else next(work.glob("tree-*"), None), FIRST)
    assert colabkit.dataset(source, dest, progress=False) == dest
    assert content_of(dest) == FIRST
    numbers = inodes_of(dest)
    made_twice = [name for name, number in kept.items() if numbers[name] != number]
    # A folder tells no CRCs: what its copying threads had not noted yet is copied again.
    assert len(made_twice) <= (THREADS if make is make_folder else 0)
    assert not work.exists()


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_while_it_swaps_there_is_one_version_or_the_other(tmp_path, duration_s, seed):
    draw = random.Random(f"swap {seed}")
    archive, dest = make_zip(tmp_path / "a.zip", FIRST), tmp_path / "out"
    colabkit.dataset(archive, dest, progress=False)
    make_zip(archive, SECOND)
    for _ in range(KILLS):
        # Most of what can go wrong here happens at the end.
        killed_call(archive, dest, draw.triangular(0, 1.5 * duration_s, duration_s))
        if dest.exists():
            assert content_of(dest) in (FIRST, SECOND)
    colabkit.dataset(archive, dest, progress=False)
    assert content_of(dest) == SECOND


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_processes_of_a_killed_call_harm_nothing(tmp_path, duration_s, make, seed):
    draw = random.Random(f"many {seed}")
    source, dest = tmp_path / "source", tmp_path / "out"
    make(source, MANY)
    killed_call(source, dest, draw.uniform(0.2, 3) * duration_s)
    assert colabkit.dataset(source, dest, progress=False) == dest
    assert content_of(dest) == MANY
    assert dataset_is_told_whole(source, dest)


def dataset_is_told_whole(source: Path, dest: Path) -> bool:
    """Whether reading every byte finds nothing to mend."""
    before = inodes_of(dest)
    colabkit.dataset(source, dest, progress=False, verify="full")
    return inodes_of(dest) == before
