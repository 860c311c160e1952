"""Whose a run folder is: the newest session's, whatever reaches the volume late or not at all."""

from __future__ import annotations

import json

import pytest

from colabkit.checkpoint import Lease
from colabkit.errors import LeaseLostError, StorageError
from colabkit.storage import LocalVolume


class Refusing(LocalVolume):
    """A folder whose reads can be refused."""

    refuses = False

    def read(self, name):
        if self.refuses:
            raise StorageError("Input/output error", path=self.root)
        return super().read(name)


@pytest.fixture
def volume(tmp_path):
    return Refusing(tmp_path)


@pytest.fixture
def sessions(volume):
    older, newer = Lease(volume), Lease(volume)
    older.acquire(0)
    newer.acquire(0)
    return older, newer


def owner(volume) -> str:
    return json.loads(volume.read("lease.json").tobytes())["owner"]


def test_the_older_session_learns_of_the_newer(sessions):
    older, newer = sessions
    newer.check()
    with pytest.raises(LeaseLostError, match="taken over"):
        older.check()


def test_a_read_that_is_refused_once_does_not_give_the_folder_back(sessions, volume):
    older, newer = sessions
    volume.refuses = True
    with pytest.raises(StorageError):
        older.check()
    volume.refuses = False
    assert owner(volume) == newer.owner
    with pytest.raises(LeaseLostError):
        older.check()


def test_a_heartbeat_of_the_older_that_arrives_late_stops_only_the_older(sessions, volume):
    older, newer = sessions
    older._write()
    newer.check()
    assert owner(volume) == newer.owner
    with pytest.raises(LeaseLostError):
        older.check()


def test_two_that_began_at_once_agree_on_one(volume):
    one, other = Lease(volume), Lease(volume)
    one.acquire(0)
    volume.delete(["lease.json"])
    other.acquire(0)
    assert one.generation == other.generation
    stays, goes = sorted((one, other), key=lambda lease: lease.owner, reverse=True)
    stays.check()
    with pytest.raises(LeaseLostError):
        goes.check()
    stays.check()


def test_a_lease_that_is_missing_or_nonsense_is_written_anew(sessions, volume):
    _, newer = sessions
    volume.delete(["lease.json"])
    newer.check()
    assert owner(volume) == newer.owner
    (volume.root / "lease.json").write_bytes(b"\xff nonsense")
    newer.check()
    assert owner(volume) == newer.owner


def test_a_lease_that_cannot_be_read_keeps_nobody_out(volume):
    Lease(volume).acquire(0)
    volume.refuses = True
    late = Lease(volume)
    late.acquire(7)
    assert late.generation == 8
