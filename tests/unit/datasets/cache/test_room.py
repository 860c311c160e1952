"""Room is counted in blocks and files, and asked for before the first byte is written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import colabkit
from colabkit import errors
from colabkit.datasets.cache.room import Room, bytes_on_disk, check_room, room_at
from tests.places import small_disk
from tests.unit.datasets.sources import content_of, make_folder, make_tar, make_zip

HERE = Path("/content/datasets/cats")


def refusal(room: Room, *, needed_bytes: int, needed_files: int) -> errors.DiskFullError:
    with pytest.raises(errors.DiskFullError) as caught:
        check_room(room, folder=HERE, needed_bytes=needed_bytes, needed_files=needed_files)
    return caught.value


def test_small_files_take_whole_blocks():
    assert bytes_on_disk([0, 1, 4096, 4097], 4096) == 4 * 4096


def test_what_fits_passes():
    check_room(Room(100, 3, 1), folder=HERE, needed_bytes=100, needed_files=3)
    check_room(Room(100, None, 1), folder=HERE, needed_bytes=100, needed_files=10**9)


def test_missing_bytes_are_told():
    error = refusal(Room(3_000_000, None, 1), needed_bytes=5_000_000, needed_files=1)
    assert "5.0 MB are needed and 3.0 MB are free: 2.0 MB are missing" in str(error)
    assert "evict=True" in error.hint
    assert (error.needed_bytes, error.free_bytes) == (5_000_000, 3_000_000)


def test_room_for_an_archive_that_does_not_tell_its_content_is_the_least():
    room = Room(3_000_000, None, 1)
    with pytest.raises(errors.DiskFullError, match=r"at least 5\.0 MB are needed"):
        check_room(room, folder=HERE, needed_bytes=5_000_000, needed_files=1, is_exact=False)


def test_missing_files_are_told():
    error = refusal(Room(10**9, 1_000, 1), needed_bytes=1, needed_files=20_000)
    assert "20,000 files is needed and there is room for 1,000: 19,000 are missing" in str(error)


def test_a_folder_that_is_not_there_yet_has_the_room_of_its_disk(tmp_path):
    assert room_at(tmp_path / "a/b/c").block_bytes == os.statvfs(tmp_path).f_frsize


@pytest.fixture
def disk(tmp_path, request):
    """Yields a disk with the room that the test asks for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, request.param):
        yield folder


NOISE = {f"{n}.bin": os.urandom(20_000) for n in range(100)}


@pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
@pytest.mark.parametrize("disk", ["size=1m"], indirect=True)
def test_too_few_bytes_are_seen_before_the_first_is_written(tmp_path, disk, make):
    source = tmp_path / "source"
    make(source, NOISE)
    with pytest.raises(errors.DiskFullError, match="are missing"):
        colabkit.dataset(source, disk / "cats", progress=False)
    assert not any(path.suffix == ".bin" for path in disk.rglob("*"))


@pytest.mark.parametrize("disk", ["size=9m,nr_inodes=50"], indirect=True)
def test_too_few_files_are_seen_before_the_first_is_written(tmp_path, disk):
    archive = make_zip(tmp_path / "source", NOISE)
    with pytest.raises(errors.DiskFullError, match=r"room for \d+ files is needed"):
        colabkit.dataset(archive, disk / "cats", progress=False)
    assert not any(path.suffix == ".bin" for path in disk.rglob("*"))


@pytest.mark.parametrize("make", [make_zip, make_folder])
@pytest.mark.parametrize("disk", ["size=1m"], indirect=True)
def test_a_disk_that_is_full_to_the_last_byte_is_called_full(tmp_path, disk, make):
    source = tmp_path / "source"
    make(source, NOISE)
    room = os.statvfs(disk)
    (disk / "others").write_bytes(bytes(room.f_bavail * room.f_bsize))
    with pytest.raises(errors.DiskFullError, match="became full"):
        colabkit.dataset(source, disk / "cats", progress=False)


@pytest.mark.parametrize("disk", ["size=1m"], indirect=True)
def test_a_disk_that_becomes_full_ends_it_and_the_next_call_goes_on(tmp_path, disk):
    # How far a packed tar unpacks is known only when it is read.
    archive = make_tar(
        tmp_path / "t.tar.gz", {f"{n}": b"0" * 30_000 for n in range(60)}, mode="w:gz"
    )
    with pytest.raises(errors.DiskFullError) as caught:
        colabkit.dataset(archive, disk / "cats", progress=False)
    assert "nothing was published" in str(caught.value)
    assert not (disk / "cats").exists()
    subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
    made = colabkit.dataset(archive, disk / "cats", progress=False)
    assert len(content_of(made)) == 60
