"""What a broken-off session left in its spool is found again, and brought where it belongs."""

from __future__ import annotations

import pytest

from colabkit.checkpoint import CheckpointStore, RunFolder, SaveFacts, Section, upload_stranded
from colabkit.errors import StorageError
from colabkit.storage import FsspecVolume
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor
from tests.unit.checkpoint.saving import weights_of
from tests.unit.checkpoint.slow_volume import eventually

BACKEND = NumpyBackend()


class Session:
    """A session on a run folder, whose volume may be closed to it."""

    def __init__(self, place):
        self.folder = RunFolder(place)
        self.folder.newest_valid(BACKEND)
        self.saver = self.folder.open_saver(BACKEND)

    def save(self, step, **facts):
        section = Section("model", {"w": Tensor(weights_of(step))}, weights=True)
        taken = SaveFacts(step=step, **facts)
        assert self.saver.offer([section], taken, is_guarded=lambda _: False)
        self.saver.flush()
        self.saver.settle()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    return f"memory://{tmp_path.name}/run"


@pytest.fixture
def closed(monkeypatch):
    """Refuses to take any file but leases."""
    write, state = FsspecVolume.write, {"closed": False}

    def refused(self, name, parts):
        if state["closed"] and name != "lease.json":
            raise StorageError("The bucket is closed.", path=name, operation="write")
        write(self, name, parts)

    monkeypatch.setattr(FsspecVolume, "write", refused)
    return lambda is_so: state.update(closed=is_so)


def steps(place):
    store = CheckpointStore(FsspecVolume(place))
    assert all(store.verify(str(name)) == "" for name in store.names())
    return [store.manifest(name).facts.step for name in store.names()]


def strand(place, closed, step):
    session = Session(place)
    closed(True)
    session.save(step)
    eventually(lambda: session.saver.uploader.status().error is not None)
    session.saver.close()
    closed(False)
    return session


def test_what_is_stranded_is_brought_over_once_and_said(place, closed):
    strand(place, closed, 7)
    assert steps(place) == []
    said = []
    upload_stranded(said.append)
    assert steps(place) == [7]
    (sentence,) = said
    assert "step 7 waited on this machine" in sentence
    assert place in sentence
    upload_stranded(said.append)
    assert len(said) == 1


def test_a_cache_below_the_home_folder_is_found_again(place, closed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLABKIT_CACHE", "~/cache")
    monkeypatch.chdir(tmp_path)
    strand(place, closed, 7)
    upload_stranded(lambda _: None)
    assert steps(place) == [7]


def test_what_has_landed_is_asked_of_nobody(place, closed, monkeypatch):
    session = Session(place)
    session.save(1)
    eventually(lambda: session.saver.uploader.status().committed_step == 1)
    session.saver.close()
    monkeypatch.setattr(FsspecVolume, "list", lambda *_: pytest.fail("the volume was asked"))
    upload_stranded(pytest.fail)


def test_the_next_session_brings_it_over_itself(place, closed):
    strand(place, closed, 7)
    session = Session(place)
    eventually(lambda: session.saver.uploader.status().committed_step == 7)
    session.saver.close()
    upload_stranded(pytest.fail)


def best_stranded(place, closed):
    session = Session(place)
    session.save(1, is_best=True)
    eventually(lambda: session.saver.uploader.status().committed_step == 1)
    closed(True)
    for step in (2, 3, 4, 5):
        session.save(step, is_best=step == 2)
    session.saver.close()
    closed(False)


def test_the_next_session_brings_the_best_over_too(place, closed):
    best_stranded(place, closed)
    session = Session(place)
    eventually(lambda: session.saver.uploader.status().committed_step == 5)
    session.saver.close()
    assert steps(place)[:2] == [5, 2]


def test_what_is_stranded_is_brought_over_with_the_best(place, closed):
    best_stranded(place, closed)
    upload_stranded(lambda _: None)
    assert steps(place)[:2] == [5, 2]


def test_what_another_session_has_gone_on_without_stays(place, closed, tmp_path, monkeypatch):
    strand(place, closed, 7)
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "another machine"))
    other = Session(place)
    other.save(3)
    eventually(lambda: other.saver.uploader.status().committed_step == 3)
    other.saver.close()
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    upload_stranded(pytest.fail)
    assert steps(place) == [3]


def test_what_cannot_be_brought_over_is_an_error(place, closed):
    strand(place, closed, 7)
    closed(True)
    with pytest.raises(StorageError, match=r"step 7 of .* is on this machine only: .* closed"):
        upload_stranded(pytest.fail)
    closed(False)
    upload_stranded(lambda _: None)
    assert steps(place) == [7]


def test_nothing_is_brought_to_the_bare_folder_of_what_was_mounted(place, closed, tmp_path):
    strand(place, closed, 7)
    (account,) = (tmp_path / "cache" / "spool").glob("*/carried.json")
    account.write_text(account.read_text().replace(place, str(tmp_path / "mount" / "run")))
    with pytest.raises(StorageError, match=r"step 7 of .* on this machine only: .* mounted"):
        upload_stranded(pytest.fail)
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"place": "memory://x/run"}'])
def test_a_damaged_account_costs_nothing(place, closed, tmp_path, damage):
    strand(place, closed, 7)
    (account,) = (tmp_path / "cache" / "spool").glob("*/carried.json")
    account.write_text(damage)
    upload_stranded(pytest.fail)
    session = Session(place)
    eventually(lambda: session.saver.uploader.status().committed_step == 7)
    session.saver.close()
    assert steps(place) == [7]


def test_a_session_knows_what_it_goes_on_from_and_that_it_is_uploaded(place):
    first = Session(place)
    assert first.saver.status().found is None
    first.save(7)
    eventually(lambda: first.saver.status().upload.confirmed_step == 7)
    first.saver.close()
    second = Session(place)
    found = second.saver.status().found
    assert (found.step, found.is_staged) == (7, False)
    eventually(lambda: second.saver.status().upload.confirmed_step == 7)
    second.save(9)
    assert second.saver.status().found == found
    second.saver.close()


def test_a_session_knows_that_what_it_goes_on_from_is_on_this_machine_alone(place, closed):
    strand(place, closed, 7)
    closed(True)
    second = Session(place)
    status = second.saver.status()
    assert (status.found.step, status.found.is_staged) == (7, True)
    assert status.upload.committed_step is None
    second.saver.close()


def test_the_next_saver_of_a_folder_goes_on_from_what_the_last_one_saved(place):
    session = Session(place)
    session.save(7)
    eventually(lambda: session.saver.status().upload.confirmed_step == 7)
    session.saver.close()
    session.folder.note_saved(session.saver)
    again = session.folder.open_saver(BACKEND)
    assert (again.status().found.step, again.status().found.is_staged) == (7, False)
    assert again.status().upload.committed_step == 7
    again.close()
    session.folder.begin_attempt()
    anew = session.folder.open_saver(BACKEND)
    assert anew.status().found is None
    anew.close()
