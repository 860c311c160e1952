"""What is spooled reaches the volume, in order, whatever the volume does meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import threading

import numpy as np
import pytest

from colabkit.checkpoint import CheckpointStore, Lease, SaveFacts, SaveState, Section
from colabkit.errors import DiskFullError, LeaseLostError, StorageError
from colabkit.storage import LocalVolume
from tests.unit.checkpoint.numpy_backend import Tensor
from tests.unit.checkpoint.saving import Machine
from tests.unit.checkpoint.slow_volume import Clock, StagingMachine, eventually

_HOUR_S = 3600.0


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def machine(tmp_path, clock):
    made = StagingMachine(tmp_path, clock=clock)
    made.open()
    yield made
    made.drive.gate.set()
    made.close()


def test_a_save_is_spooled_then_on_the_volume_then_uploaded(machine):
    machine.drive.gate.clear()
    machine.drive.uploads = False
    machine.save(1)
    assert machine.saver.status().state is SaveState.STAGED
    assert machine.saver.status().upload.committed_step is None
    machine.drive.gate.set()
    eventually(lambda: machine.saver.status().upload.committed_step == 1)
    assert machine.saver.status().upload.confirmed_step is None
    machine.drive.uploads = True
    eventually(lambda: machine.saver.status().upload.confirmed_step == 1)
    assert machine.saver.status().upload.is_idle


def test_saving_does_not_wait_for_the_volume(machine):
    machine.drive.gate.clear()
    for step in range(1, 6):
        machine.save(step)
    assert machine.far_steps() == []
    assert machine.saver.status().step == 5


def test_the_newest_overtakes_those_that_have_not_left_yet(machine, clock):
    machine.save(1)
    eventually(lambda: machine.uploader.status().confirmed_step == 1)
    for step in (2, 3, 4):
        machine.save(step)
    clock.now_s += 100
    eventually(lambda: machine.uploader.status().confirmed_step == 4)
    assert machine.far_steps() == [4, 1]


def test_nothing_is_removed_from_the_volume_before_its_successor_is_uploaded(machine, clock):
    for step in (1, 2):
        clock.now_s += 100
        machine.save(step)
        eventually(lambda step=step: machine.uploader.status().confirmed_step == step)
    machine.drive.uploads = False
    for step in (3, 4, 5):
        clock.now_s += 100
        machine.save(step)
        eventually(lambda: machine.uploader.status().committed_step == 3)
    assert machine.far_steps() == [3, 2, 1]
    machine.drive.uploads = True
    eventually(lambda: machine.uploader.status().confirmed_step == 5)
    eventually(lambda: machine.far_steps() == [5, 3])


def test_a_lost_volume_keeps_everything_here_and_gets_it_in_order_when_it_is_back(machine, clock):
    machine.save(1)
    eventually(lambda: machine.uploader.status().confirmed_step == 1)
    machine.drive.lost = True
    for step in range(2, 8):
        clock.now_s += 100
        machine.save(step)
        eventually(lambda: machine.uploader.status().error is not None)
    status = machine.uploader.status()
    assert status.waiting == 2
    assert status.committed_step == 1
    machine.drive.lost = False
    machine.uploader.hurry()
    eventually(lambda: machine.uploader.status().confirmed_step == 7)
    assert machine.uploader.status().error is None
    order = [name.split("-")[2] for name in machine.drive.manifests]
    assert order == sorted(order)
    eventually(lambda: machine.far_steps() == [7, 6])


def test_what_a_remount_lost_on_its_way_is_carried_once_more(machine, clock):
    machine.save(1)
    eventually(lambda: machine.uploader.status().confirmed_step == 1)
    machine.drive.uploads = False
    clock.now_s += 100
    machine.save(2)
    eventually(lambda: machine.uploader.status().committed_step == 2)
    machine.drive.lost = True
    newest = machine.drive.manifests[-1]
    machine.drive.forget(newest)
    machine.drive.lost = False
    machine.drive.uploads = True
    machine.drive.uploaded.clear()
    machine.uploader.hurry()
    eventually(lambda: machine.drive.manifests.count(newest) == 2)
    eventually(lambda: machine.uploader.status().confirmed_step == 2)
    assert machine.far.verify(newest.removeprefix("checkpoints/").removesuffix(".json")) == ""


def test_an_older_one_that_is_carried_once_more_is_not_taken_for_the_newest(machine, clock):
    machine.drive.uploads = False
    for step in (1, 2, 3):
        machine.save(step)
        assert machine.uploader.wait_copied(timeout_s=300)
    machine.drive.lost = True
    older = machine.drive.manifests[1]
    machine.drive.forget(older)
    machine.drive.lost = False
    machine.drive.uploads = True
    machine.uploader.hurry()
    eventually(lambda: machine.drive.manifests.count(older) == 2)
    assert machine.uploader.wait_uploaded(timeout_s=300)
    assert machine.uploader.status().committed_step == 3
    assert machine.uploader.status().confirmed_step == 3


def test_the_spool_keeps_what_is_not_uploaded_yet(machine, clock):
    machine.drive.uploads = False
    machine.save(1)
    eventually(lambda: machine.uploader.status().committed_step == 1)
    for step in range(2, 7):
        machine.save(step)
    assert set(machine.staged_steps()) >= {1, 5, 6}
    assert len(machine.staged_steps()) <= 4


def test_a_volume_that_does_not_say_what_is_uploaded_is_trusted_after_a_while(machine, clock):
    machine.drive.silent = True
    for step in (1, 2, 3):
        machine.save(step)
        eventually(lambda step=step: machine.uploader.status().committed_step == step)
        assert machine.uploader.status().confirmed_step is None
        clock.now_s += 400
    eventually(lambda: len(machine.far_steps()) == 2)


def test_a_full_volume_is_tried_again_and_again(machine, clock):
    machine.drive.failure = DiskFullError("full", path=machine.drive.root)
    machine.save(1)
    eventually(lambda: machine.uploader.status().error is not None)
    assert not machine.uploader.status().is_idle
    machine.drive.failure = None
    clock.now_s += 5
    eventually(lambda: machine.uploader.status().confirmed_step == 1)


def test_a_note_that_finds_no_room_here_costs_nothing_of_what_has_arrived(machine, monkeypatch):
    write = LocalVolume.write

    def full(self, name, parts):
        if name == "carried.json":
            raise DiskFullError("The disk is full.", path=self.root / name)
        write(self, name, parts)

    monkeypatch.setattr(LocalVolume, "write", full)
    machine.save(1)
    eventually(lambda: machine.uploader.status().committed_step == 1)
    assert machine.uploader.wait_uploaded(timeout_s=300)
    assert machine.uploader.status().confirmed_step == 1


def test_landing_says_whether_it_came_in_time(machine):
    machine.drive.gate.clear()
    machine.save(1)
    assert not machine.uploader.wait_copied(timeout_s=0.05)
    machine.drive.gate.set()
    assert machine.uploader.wait_copied(timeout_s=300)
    assert machine.uploader.wait_uploaded(timeout_s=300)


def test_landing_ends_at_an_error(machine):
    machine.drive.failure = StorageError("no", path=machine.drive.root)
    machine.save(1)
    assert machine.uploader.wait_copied(timeout_s=300)
    assert machine.uploader.status().error is not None


def test_a_folder_taken_over_by_another_session_ends_this_one(machine, tmp_path, clock):
    def save_until_told() -> None:
        # The save itself says so, if the uploader has come that far by then.
        machine.save(1)
        eventually(lambda: machine.uploader.failure is not None)
        machine.saver.raise_if_failed()

    other = StagingMachine(tmp_path, clock=clock)
    other.open()
    try:
        with pytest.raises(LeaseLostError, match="taken over"):
            save_until_told()
    finally:
        other.close()


def test_an_interrupt_while_it_closes_leaves_no_thread_behind(tmp_path, clock):
    machine = StagingMachine(tmp_path, clock=clock)
    saver = machine.open()
    saving = threading.Event()
    machine.backend.before_copy = lambda count: saving.wait(300) if count else None
    offering = Section("model", {"w": Tensor(np.zeros(50_000))}, weights=True)
    assert saver.offer([offering], SaveFacts(step=1), is_guarded=lambda _: True)

    def interrupt() -> None:
        eventually(lambda: saver._stopping)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        saver.close()
    saving.set()
    interrupting.join()
    ours = {"colabkit-uploader", "colabkit-saver"}
    eventually(lambda: not ours & {thread.name for thread in threading.enumerate()})


def test_an_error_while_removing_old_ones_costs_nothing(machine, clock):
    for step in (1, 2, 3):
        clock.now_s += 100
        machine.save(step)
        eventually(lambda step=step: machine.uploader.status().confirmed_step == step)
    eventually(lambda: machine.far_steps() == [3, 2])
    plain = machine.drive.delete
    machine.drive.delete = lambda names: (_ for _ in ()).throw(
        StorageError("errno 107", path=machine.drive.root)
    )
    machine.save(4)
    clock.now_s += 100
    eventually(lambda: machine.uploader.status().error is not None)
    machine.drive.delete = plain
    machine.save(5)
    clock.now_s += 100
    eventually(lambda: machine.uploader.status().confirmed_step == 5)
    eventually(lambda: len(machine.far_steps()) == 2)


def is_whole_again(machine, step) -> bool:
    """Does what the main thread does between steps; returns whether the step is uploaded."""
    status = machine.uploader.status()
    # The clock stands still here: what rests after a copy would rest for ever.
    if status.error is not None or (status.waiting and not status.busy_s):
        machine.uploader.hurry()
    return status.confirmed_step == step


def test_twelve_hours_with_the_mount_lost_every_four_lose_nothing(machine, clock):
    step, began_s = 0, clock.now_s
    lost_at_s = [4 * _HOUR_S, 8 * _HOUR_S, 11.5 * _HOUR_S]
    while clock.now_s - began_s < 12 * _HOUR_S:
        now_s = clock.now_s - began_s
        machine.drive.lost = any(t <= now_s < t + 0.4 * _HOUR_S for t in lost_at_s)
        step += 1
        clock.now_s += 300
        machine.save(step)
        if machine.drive.lost:
            eventually(lambda: machine.uploader.status().error is not None)
        else:
            eventually(lambda step=step: is_whole_again(machine, step))
        assert len(machine.staged_steps()) <= 5
        assert machine.uploader.status().waiting <= 3
        assert machine.saver.status().step == step
    assert step == 144
    eventually(lambda: machine.far_steps() == [144, 143])
    assert [machine.far.verify(str(name)) for name in machine.far.names()] == ["", ""]


def test_a_failing_look_at_the_uploads_is_told_and_gets_better(machine, clock):
    machine.drive.uploads = False
    machine.save(1)
    eventually(lambda: machine.uploader.status().committed_step == 1)
    machine.drive.failure = StorageError("x", path=machine.drive.root)
    machine.drive.failure.errno = errno.EIO
    eventually(lambda: machine.uploader.status().error is not None)
    machine.drive.failure, machine.drive.uploads = None, True
    clock.now_s += 100
    eventually(lambda: machine.uploader.status().error is None)
    clock.now_s += 100
    machine.save(2)
    eventually(lambda: machine.uploader.status().confirmed_step == 2)


def copying(machine, clock) -> bool:
    clock.now_s += 0.01
    return machine.uploader.status().busy_s > 0


def test_what_is_being_copied_stays_until_it_has_arrived(machine, clock):
    machine.drive.gate.clear()
    machine.save(1)
    eventually(lambda: copying(machine, clock))
    for step in (2, 3, 4, 5):
        machine.save(step)
    assert 1 in machine.staged_steps()
    machine.drive.gate.set()
    eventually(lambda: machine.uploader.status().committed_step == 1)


def test_the_newest_best_replaces_the_best_of_earlier_sessions(tmp_path):
    for session in range(3):
        machine = Machine(tmp_path)
        machine.open()
        for place in range(3):
            machine.save(10 * session + place, is_best=place == 0)
        machine.close()
    store = CheckpointStore(LocalVolume(tmp_path))
    assert [store.manifest(name).facts.step for name in store.names()] == [22, 21, 20]


def with_one_on_its_way(tmp_path, clock) -> StagingMachine:
    machine = StagingMachine(tmp_path, clock=clock)
    machine.open()
    for step in (1, 2):
        clock.now_s += 100
        machine.save(step)
        eventually(lambda step=step: machine.uploader.status().confirmed_step == step)
    machine.drive.uploads = False
    clock.now_s += 100
    machine.save(3)
    eventually(lambda: machine.uploader.status().committed_step == 3)
    assert machine.far_steps() == [3, 2, 1]
    return machine


def test_the_end_of_a_session_removes_what_its_last_upload_made_superfluous(tmp_path, clock):
    machine = with_one_on_its_way(tmp_path, clock)
    machine.drive.uploads = True
    machine.close()
    assert machine.far_steps() == [3, 2]
    assert machine.uploader.status().confirmed_step == 3


def test_nothing_is_removed_from_a_folder_that_was_taken_over(tmp_path, clock):
    machine = with_one_on_its_way(tmp_path, clock)
    Lease(machine.drive).acquire(0)
    machine.drive.uploads = True
    machine.close()
    assert machine.far_steps() == [3, 2, 1]
