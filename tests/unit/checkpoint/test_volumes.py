"""The store's promises hold wherever a run folder lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from colabkit.checkpoint import CheckpointStore, RunFolder, SaveFacts
from colabkit.errors import CheckpointCorruptError, LeaseLostError, StorageError
from colabkit.storage import volume_at
from tests.unit.checkpoint.numpy_backend import NumpyBackend
from tests.unit.checkpoint.saving import Machine, loaded_step


@pytest.fixture(autouse=True)
def memory_is_emptied() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def machine(place: str) -> Iterator[Machine]:
    machine = Machine(place, volume=volume_at(place))
    machine.open()
    yield machine
    machine.close()


def files_of(volume: Any) -> tuple[set[str], set[str]]:
    return set(volume.list("checkpoints")), set(volume.list("shards"))


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def torn(content: bytes) -> bytes:
    return content[:-5]


def test_what_is_committed_is_read_back_bit_for_bit_and_verified(machine, place):
    machine.save(1)
    machine.save(2)
    assert loaded_step(place) == 2
    store = CheckpointStore(volume_at(place))
    assert [info.step for info in store.infos()] == [2, 1]
    assert [store.verify(str(name)) for name in store.names()] == ["", ""]


def test_pruning_leaves_just_what_the_kept_checkpoints_name(machine, place):
    for step in range(1, 5):
        machine.save(step)
    store = CheckpointStore(volume_at(place))
    names = store.names()
    manifests, shards = files_of(store.volume)
    assert [store.manifest(name).facts.step for name in names] == [4, 3]
    assert manifests == {f"{name}.json" for name in names}
    assert shards == {shard for name in names for shard in store.manifest(name).shards}


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(machine, place):
    machine.save(1)
    machine.save(2)
    volume = volume_at(place)
    store = CheckpointStore(volume)
    newest, before = store.names()
    shards = set(store.manifest(newest).shards) - set(store.manifest(before).shards)
    shard, manifest = f"shards/{min(shards)}", f"checkpoints/{newest}.json"
    for name, damaged in [(shard, flipped), (shard, torn), (manifest, flipped), (shard, None)]:
        content = volume.read(name).tobytes()
        if damaged is None:
            volume.delete([name])
        else:
            volume.write(name, [np.frombuffer(damaged(content), np.uint8)])
        loaded = RunFolder(place).newest_valid(NumpyBackend())
        assert loaded is not None
        assert loaded.facts.step == 1
        assert [told[0] for told in loaded.skipped] == [str(newest)]
        volume.write(name, [np.frombuffer(content, np.uint8)])
    assert loaded_step(place) == 2


def test_only_damaged_checkpoints_are_an_error_and_not_a_new_start(machine, place):
    machine.save(1)
    volume = volume_at(place)
    for name in volume.list("checkpoints"):
        volume.write(f"checkpoints/{name}", [np.frombuffer(b"{}", np.uint8)])
    with pytest.raises(CheckpointCorruptError, match="None of the 1 checkpoints"):
        RunFolder(place).newest_valid(NumpyBackend())


def test_the_newer_session_takes_over_and_the_older_stops(machine, place):
    machine.save(1)
    newer = Machine(place, volume=volume_at(place))
    newer.open()
    with pytest.raises(LeaseLostError, match="has taken over"):
        machine.save(2)
    newer.save(3)
    newer.close()
    assert loaded_step(place) == 3


def test_a_slow_place_has_a_spool_and_says_what_has_arrived(place):
    folder = RunFolder(place)
    machine = Machine(place, volume=volume_at(place))
    saver = folder.open_saver(machine.backend)
    try:
        assert saver.offer(machine.sections(1), SaveFacts(step=1), is_guarded=lambda _: False)
        saver.flush()
        if saver.uploader is None:
            assert not place.startswith(("s3", "gs", "rclone", "memory"))
            return
        assert folder.staging_location
        assert saver.uploader.wait_copied(timeout_s=300)
        assert saver.uploader.wait_uploaded(timeout_s=300)
        assert saver.status().upload.confirmed_step == 1
    finally:
        saver.close()
    loaded = RunFolder(place).load(folder.store.infos()[0], machine.backend)
    assert loaded.facts.step == 1


def test_the_spool_of_one_url_is_not_that_of_another(bucket):
    one, other = RunFolder(f"{bucket}/cats"), RunFolder(f"{bucket}/dogs")
    assert one.staging_location != other.staging_location
    assert one.staging_location == RunFolder(f"{bucket}/cats/").staging_location


def test_what_cannot_be_listed_is_no_new_start(signed_in):
    with pytest.raises(StorageError, match="there is no such bucket"):
        RunFolder("s3://no-such-bucket-here/run").newest_valid(NumpyBackend())


def test_what_cannot_be_read_at_the_moment_is_not_called_damaged(monkeypatch):
    place = "memory://moody/run"
    machine = Machine(place, volume=volume_at(place))
    machine.open()
    machine.save(1)
    machine.close()

    def unreachable(*_: object, **__: object) -> bytes:
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", unreachable)
    with pytest.raises(StorageError, match="cannot be reached"):
        RunFolder(place).newest_valid(machine.backend)
