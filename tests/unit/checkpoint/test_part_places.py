"""Where several processes may write parts: on one machine's disk, or where each machine sees it."""

from __future__ import annotations

import fsspec
import pytest

from colabkit.checkpoint import PartPlace, RunFolder, SaveFacts, Section, store_of_parts
from colabkit.errors import StorageError
from colabkit.storage import MountedVolume, mounts
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor
from tests.unit.checkpoint.saving import weights_of

BACKEND = NumpyBackend()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    yield
    fsspec.filesystem("memory").store.clear()


class Others:
    """The other processes, which find some places and others not."""

    def __init__(self, folder: RunFolder, *, sees_disk: bool, sees_volume: bool = True) -> None:
        self._folder, self._sees_disk, self._sees_volume = folder, sees_disk, sees_volume
        self.asked: list[str] = []

    def find(self, place: PartPlace) -> bool:
        self.asked.append(place.where)
        # Asked once this session's word lies there.
        assert store_of_parts(self._folder.location, place)
        return self._sees_disk if place.where else self._sees_volume


def opened(folder: RunFolder, others: Others):
    return folder.open_saver(BACKEND, find=others.find)


def save(saver, step: int) -> None:
    section = Section("model", {"w": Tensor(weights_of(step))}, weights=True)
    assert saver.offer([section], SaveFacts(step=step), is_guarded=lambda _: False)
    saver.flush()


def test_in_a_folder_of_this_disk_they_are_asked_for_that_one(tmp_path):
    folder = RunFolder(tmp_path / "run")
    others = Others(folder, sees_disk=False)
    opened(folder, others).close()
    assert others.asked == [""]


def test_on_one_machine_they_write_to_its_disk_on_the_way_to_a_bucket():
    folder = RunFolder("memory://bucket/one")
    others = Others(folder, sees_disk=True)
    saver = opened(folder, others)
    assert others.asked == [folder.staging_location]
    assert saver.uploader is not None
    saver.close()


def test_on_several_they_write_into_the_bucket_and_what_waited_on_the_disk_is_there():
    place = "memory://bucket/several"
    before = RunFolder(place)
    saver = before.open_saver(BACKEND)
    save(saver, 1)
    saver.uploader.wait_copied(timeout_s=60)
    save(saver, 2)
    saver.uploader.wait_copied(timeout_s=60)
    saver.close()
    # As if the machine had been gone before the second was copied.
    newest = before.store.names()[0]
    before.store.volume.delete([f"checkpoints/{newest}.json"])
    folder = RunFolder(place)
    assert folder.newest_valid(BACKEND).facts.step == 2
    others = Others(folder, sees_disk=False)
    saver = opened(folder, others)
    assert others.asked == [before.staging_location, ""]
    assert saver.uploader is None
    assert not folder.staging_location
    assert [info.step for info in RunFolder(place).store.infos()] == [2, 1]
    save(saver, 3)
    saver.close()
    assert RunFolder(place).newest_valid(BACKEND).facts.step == 3


def test_where_a_bucket_is_not_found_either_all_goes_by_way_of_the_disk():
    folder = RunFolder("memory://bucket/none")
    others = Others(folder, sees_disk=False, sees_volume=False)
    saver = opened(folder, others)
    assert others.asked == [folder.staging_location, ""]
    assert saver.uploader is not None
    saver.close()


@pytest.mark.parametrize(("kind", "asked"), [("nfs4", 2), ("fuse.rclone", 1)])
def test_what_a_program_mounts_says_not_when_all_machines_see_a_file(
    kind, asked, monkeypatch, tmp_path
):
    mounted = mounts.Mounted("/", kind)
    monkeypatch.setattr("colabkit.storage.mounted_volume.mounted_below", lambda _: mounted)
    monkeypatch.setattr("colabkit.storage.mounts.filesystem_type", lambda _: kind)
    folder = RunFolder(tmp_path / "run")
    assert isinstance(folder.store.volume, MountedVolume)
    others = Others(folder, sees_disk=False)
    opened(folder, others).close()
    assert len(others.asked) == asked


def test_a_folder_that_another_session_has_taken_is_not_found(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    seen: list[PartPlace] = []
    first.open_saver(BACKEND, find=lambda place: bool(seen.append(place))).close()
    second.open_saver(BACKEND).close()
    with pytest.raises(StorageError, match="not the folder that process 0 writes to"):
        store_of_parts(tmp_path / "run", seen[0])


def test_the_folder_of_another_run_is_not_found_though_as_many_sessions_had_it(tmp_path):
    seen: list[PartPlace] = []
    for name in ("one", "other"):
        folder = RunFolder(tmp_path / name)
        folder.open_saver(BACKEND, find=lambda place: bool(seen.append(place))).close()
    assert seen[0].generation == seen[1].generation
    with pytest.raises(StorageError, match="not the folder that process 0 writes to"):
        store_of_parts(tmp_path / "other", seen[0])
