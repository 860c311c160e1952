"""A lock is one process's at a time, and ends with the block, whoever else has its descriptor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

import colabkit
from colabkit.datasets.cache.slots import alone_at, alone_with, hold, let_go
from colabkit.datasets.origins.archive import ArchiveOrigin
from colabkit.errors import StorageError
from tests.unit.datasets.sources import content_of, make_zip


def descriptor_of(path: Path) -> int:
    descriptors = Path("/proc/self/fd").iterdir()
    return next(int(fd.name) for fd in descriptors if fd.resolve() == path.resolve())


def test_nobody_waits_unless_told_to(tmp_path):
    with alone_at(tmp_path / "lock") as first, alone_at(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with alone_at(tmp_path / "lock") as third:
        assert third


def test_who_waits_has_it_once_it_is_free(tmp_path):
    holder = alone_at(tmp_path / "lock")
    holder.__enter__()
    waited = []

    def wait() -> None:
        waited.append(1)
        holder.__exit__(None, None, None)

    with alone_at(tmp_path / "lock", wait=wait) as is_held:
        assert is_held
    assert waited == [1]


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_forked_meanwhile_does_not_hold_it_on(tmp_path, fails):
    # What a fork does to a descriptor, without one.
    try:
        with alone_at(tmp_path / "lock"):
            inherited = os.dup(descriptor_of(tmp_path / "lock"))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    with alone_at(tmp_path / "lock") as is_held:
        assert is_held
    os.close(inherited)


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"), alone_at(tmp_path / "lock"):
        pass
    assert not (tmp_path / "other").exists()


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks_here(request, tmp_path, monkeypatch):
    """A folder on a disk that answers every lock with an error, as some mounts do."""
    folder = tmp_path / "mount"
    folder.mkdir()
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    flock = fcntl.flock

    def refused(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_relative_to(folder):
            raise OSError(request.param, os.strerror(request.param))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refused)
    return folder


def test_where_a_disk_has_no_locks_one_works_at_a_time_all_the_same(no_locks_here):
    lock, other = no_locks_here / "lock", no_locks_here / "other"
    with alone_at(lock) as first, alone_at(lock) as second, alone_at(other) as third:
        assert (first, second, third) == (True, False, True)
    with alone_at(lock) as again:
        assert again


def test_where_a_disk_has_no_locks_a_folder_in_use_is_known_by_any_name(no_locks_here):
    folder = no_locks_here / "a"
    folder.mkdir()
    assert hold(folder)
    folder = folder.rename(no_locks_here / "b")
    with alone_with(folder) as alone:
        assert not alone
    let_go(folder)
    with alone_with(folder) as alone:
        assert alone


@pytest.mark.parametrize("is_link", [False, True])
def test_what_stands_for_locks_is_this_users_own(no_locks_here, monkeypatch, is_link):
    folder = Path(tempfile.gettempdir()) / f"colabkit-locks-{os.getuid()}"
    (folder.parent / "theirs").mkdir()
    if is_link:
        folder.symlink_to(folder.parent / "theirs")
    else:
        owner = os.getuid() + 1
        folder.parent.joinpath(f"colabkit-locks-{owner}").mkdir()
        monkeypatch.setattr(os, "getuid", lambda: owner)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(PermissionError, match="somebody else's"), alone_at(no_locks_here / "lock"):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not list((folder.parent / "theirs").iterdir())


def test_where_a_disk_has_no_locks_it_is_said_once_that_machines_do_not_wait(
    no_locks_here, tmp_path, capsys
):
    archive = make_zip(tmp_path / "cats.zip", {"1.txt": b"cat"})
    dest = no_locks_here / "cats"
    for _ in range(2):
        assert content_of(colabkit.dataset(archive, dest)) == {"1.txt": b"cat"}
    said = capsys.readouterr().out
    assert said.count(f"The disk of {no_locks_here} has no locks: let only one machine") == 1


def test_where_a_disk_has_no_locks_two_machines_that_disturb_each_other_publish_nothing_wrong(
    no_locks_here, tmp_path, monkeypatch
):
    # A machine has a folder for temporary files of its own, so that nobody waits.
    files = {f"{n}.bin": bytes([n]) * 50_000 for n in range(40)}
    archive = make_zip(tmp_path / "cats.zip", files)
    dest = no_locks_here / "cats"
    fill = ArchiveOrigin.fill

    def both_at_once(origin, staging, before):
        with monkeypatch.context() as other:
            other.setattr(ArchiveOrigin, "fill", fill)
            elsewhere = tmp_path / "tmp of another"
            elsewhere.mkdir()
            other.setattr(tempfile, "tempdir", str(elsewhere))
            colabkit.dataset(archive, dest, progress=False)
        return fill(origin, staging, before)

    monkeypatch.setattr(ArchiveOrigin, "fill", both_at_once)
    with contextlib.suppress(StorageError):  # what it was at may be gone
        colabkit.dataset(archive, dest, progress=False)
    assert content_of(colabkit.dataset(archive, dest, progress=False)) == files
