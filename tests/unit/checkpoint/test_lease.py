"""A run folder belongs to the newest session, also where reading fails now and then."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.checkpoint import Lease
from colabkit.errors import LeaseLostError, StorageError
from colabkit.storage import Bytes, LocalVolume


class Moody(LocalVolume):
    """A volume whose reads fail while it is ``moody``."""

    moody = False

    def read(self, name: str) -> Bytes:
        if self.moody:
            message = "Could not read: Input/output error."
            raise StorageError(message, path=self.root, operation="read")
        return super().read(name)


@pytest.fixture
def volume(tmp_path: Path) -> Moody:
    return Moody(tmp_path)


def leased(volume: Moody) -> Lease:
    lease = Lease(volume)
    lease.acquire(0)
    return lease


def test_a_read_that_fails_does_not_give_the_folder_back_to_the_older_session(volume):
    older, newer = leased(volume), leased(volume)
    volume.moody = True
    with pytest.raises(StorageError, match="Input/output"):
        older.check()
    volume.moody = False
    newer.check()
    with pytest.raises(LeaseLostError):
        older.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"generation": "x"}'])
def test_a_lease_that_cannot_be_understood_is_no_missing_lease(volume, content):
    older = leased(volume)
    (volume.root / "lease.json").write_bytes(content)
    with pytest.raises(StorageError, match="not what was written"):
        older.check()
    assert (volume.root / "lease.json").read_bytes() == content


def test_a_lease_that_was_deleted_is_written_again(volume):
    lease = leased(volume)
    (volume.root / "lease.json").unlink()
    lease.check()
    assert (volume.root / "lease.json").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_new_session_takes_over_whatever_lease_is_there(volume, content):
    leased(volume)
    (volume.root / "lease.json").write_bytes(content)
    newer = Lease(volume)
    newer.acquire(7)
    assert newer.generation == 8
    newer.check()


def test_a_new_session_takes_over_where_the_lease_cannot_be_read(volume):
    leased(volume)
    volume.moody = True
    newer = Lease(volume)
    newer.acquire(0)
    volume.moody = False
    newer.check()
