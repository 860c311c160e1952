"""Files that no checkpoint names are removed, but never those somebody is still writing."""

from __future__ import annotations

import pytest

from colabkit.checkpoint import CheckpointStore, RunFolder
from tests.unit.checkpoint.saving import Machine, loaded_step
from tests.unit.checkpoint.slow_volume import Clock, StagingMachine, eventually


def shards(store: CheckpointStore) -> set[str]:
    return set(store.volume.list("shards"))


def put(store: CheckpointStore, *names: str) -> set[str]:
    """Leaves files there as saves that were broken off do."""
    folder = store.volume.root / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"half of a")
    return set(names)


@pytest.fixture
def finished(tmp_path):
    """A run that two sessions trained to its end."""
    machine = Machine(tmp_path / "run")
    for steps in ((1, 2), (3, 4)):
        saver = machine.open()
        for step in steps:
            machine.save(step)
        machine.close()
    newest = machine.store.names()[0]
    assert (newest.generation, newest.sequence) == (2, 2)
    assert saver.status().step == 4
    return machine


def test_a_finished_run_is_rid_of_what_a_kill_in_mid_removal_left(finished):
    owner = finished.store.names()[0].owner
    whole = shards(finished.store)
    put(
        finished.store,
        "model-a01-g0001-00000007-0badcafe.safetensors",
        f"model-a01-g0002-00000001-{owner}.safetensors",
    )
    RunFolder(finished.root).tidy("history.csv", "")
    assert shards(finished.store) == whole
    assert loaded_step(finished.root) == 4


def test_a_finished_run_keeps_what_another_session_may_be_writing(finished):
    owner = finished.store.names()[0].owner
    whole = shards(finished.store)
    others = put(
        finished.store,
        "model-a01-g0002-00000001-0badcafe.safetensors",
        f"model-a01-g0002-00000003-{owner}.safetensors",
        "model-a01-g0003-00000001-0badcafe.safetensors",
        "model-a02-g0003-00000001-0badcafe.safetensors",
        "pretrained.safetensors",
    )
    RunFolder(finished.root).tidy("history.csv", "")
    assert shards(finished.store) == whole | others


def test_a_session_that_has_the_lease_removes_all_that_is_left(finished):
    whole = shards(finished.store)
    put(finished.store, "model-a01-g0003-00000001-0badcafe.safetensors")
    foreign = put(finished.store, "pretrained.safetensors")
    RunFolder(finished.root).open_saver(finished.backend).close()
    assert shards(finished.store) == whole | foreign


def test_nothing_goes_while_a_manifest_cannot_be_read(finished):
    _, older = finished.store.names()
    orphans = put(finished.store, "model-a01-g0001-00000007-0badcafe.safetensors")
    (finished.store.volume.root / "checkpoints" / f"{older}.json").write_text("torn")
    RunFolder(finished.root).tidy("history.csv", "")
    assert orphans <= shards(finished.store)


def test_a_manifest_that_a_kill_left_empty_keeps_nothing_from_going_for_long(finished):
    name = "a01-g0001-00000007-0badcafe"
    orphans = put(finished.store, f"model-{name}.safetensors")
    (finished.store.volume.root / "checkpoints" / f"{name}.json").touch()
    finished.open()
    finished.save(5)
    finished.close()
    assert name not in map(str, finished.store.names())
    RunFolder(finished.root).open_saver(finished.backend).close()
    assert not orphans & shards(finished.store)
    assert loaded_step(finished.root) == 5


def test_a_copy_to_a_slow_volume_that_was_broken_off_goes_once_a_newer_one_has_arrived(tmp_path):
    clock = Clock()
    machine = StagingMachine(tmp_path, clock=clock)
    put(machine.far, "model-a01-g0001-00000004-0badcafe.safetensors")
    newer = put(machine.far, "model-a01-g0009-00000001-0badcafe.safetensors")
    for _ in range(2):  # the sessions are the first and the second generation
        machine.open()
        machine.drive.uploads = False
        machine.save(1)
        eventually(lambda: machine.uploader.status().committed_step == 1)
        before = shards(machine.far)
        machine.drive.uploads = True
        eventually(lambda: machine.uploader.status().confirmed_step == 1)
        machine.close()
    assert "model-a01-g0001-00000004-0badcafe.safetensors" in before
    assert "model-a01-g0001-00000004-0badcafe.safetensors" not in shards(machine.far)
    assert newer <= shards(machine.far)
    assert all(machine.far.verify(str(name)) == "" for name in machine.far.names())
