"""Snapshots are of the moment they were asked for, and failures cost nothing already saved."""

from __future__ import annotations

import errno
import itertools
import linecache
import os
import resource
import shutil
import sys
import threading
import time
from types import FrameType
from typing import Any

import numpy as np
import pytest

from colabkit.checkpoint import RunFolder, SaveFacts, SaveState, Section, TensorSpec
from colabkit.errors import (
    CheckpointWriteError,
    DiskFullError,
    LeaseLostError,
    StateError,
    StorageError,
)
from colabkit.storage import Files, LocalVolume
from tests.places import small_disk
from tests.unit.checkpoint.numpy_backend import NumpyBackend, Tensor
from tests.unit.checkpoint.saving import Machine, loaded_step
from tests.unit.checkpoint.slow_volume import eventually

LARGE = 50_000


def offered(machine: Machine, *tensors: Tensor, guarded: tuple[Tensor, ...] = (), **more) -> bool:
    assert machine.saver is not None
    addresses = {t.values.ctypes.data for t in guarded}

    def is_guarded(spec: TensorSpec) -> bool:
        return spec.address in addresses

    state = {str(place): tensor for place, tensor in enumerate(tensors)}
    section = Section("model", state, weights=True)
    return machine.saver.offer([section], SaveFacts(step=1), is_guarded=is_guarded, **more)


def newest(machine: Machine) -> dict[str, Tensor]:
    loaded = RunFolder(machine.root).newest_valid(machine.backend)
    assert loaded is not None
    return loaded.sections["model"]


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path / "run")
    made.open()
    yield made
    made.close()


def test_an_unguarded_tensor_is_saved_as_it_was_when_offered(machine):
    tensor = Tensor(np.zeros(LARGE))
    assert offered(machine, tensor)
    tensor.values[:] = 7
    machine.saver.flush()
    assert not newest(machine)["0"].values.any()


def test_a_guarded_tensor_may_change_once_the_barrier_is_passed(machine):
    tensor = Tensor(np.zeros(LARGE))
    let_go = threading.Event()
    machine.backend.before_copy = lambda count: let_go.wait() if count else None
    assert offered(machine, tensor, guarded=(tensor,))
    assert machine.saver.copying
    let_go.set()
    machine.saver.barrier()
    tensor.values[:] = 7
    machine.saver.flush()
    assert not newest(machine)["0"].values.any()


@pytest.mark.parametrize("place", range(1, 32))
def test_an_interrupt_anywhere_in_an_offer_leaves_nobody_waiting(machine, place):
    tensor, events = Tensor(np.zeros(LARGE)), itertools.count(1)
    offering = type(machine.saver).offer.__code__

    def interrupt(frame: FrameType, event: str, _: object) -> Any:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # Where a block is left, a real interrupt waits until its lock is given back.
        is_taken = frame.f_code is offering and event == "line" and "with " not in line
        if is_taken and next(events) == place:
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        offered(machine, tensor, guarded=(tensor,))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    eventually(lambda: not machine.saver.copying)


def test_a_save_under_way_makes_the_next_one_wait_its_turn(machine):
    tensor = Tensor(np.zeros(LARGE))
    let_go = threading.Event()
    machine.backend.before_copy = lambda count: let_go.wait() if count else None
    assert offered(machine, tensor, guarded=(tensor,))
    assert not offered(machine, tensor, guarded=(tensor,))
    let_go.set()
    machine.saver.flush()
    assert offered(machine, tensor, guarded=(tensor,))


def test_a_guarded_tensor_that_changed_all_the_same_is_never_saved_torn(machine):
    tensor = Tensor(np.zeros(LARGE))
    assert offered(machine, tensor, guarded=(tensor,), still_valid=lambda _: False)
    machine.saver.flush()
    assert machine.saver.status().wants_retake
    assert machine.store.names() == []
    assert offered(machine, tensor, guarded=(tensor,), still_valid=lambda _: False)
    tensor.values[:] = 7
    machine.saver.flush()
    assert not newest(machine)["0"].values.any()


def test_a_steady_tensor_that_changes_without_notice_is_never_saved_torn(machine):
    steady, other = Tensor(np.zeros(LARGE)), Tensor(np.zeros(LARGE))
    for _ in range(2):
        assert offered(machine, steady, other)
        machine.saver.flush()
    machine.backend.before_copy = lambda count: count and steady.values.fill(3)
    assert offered(machine, steady, other)
    machine.saver.flush()
    machine.backend.before_copy = lambda _: None
    assert machine.saver.status().wants_retake
    assert not newest(machine)["0"].values.any()
    assert offered(machine, steady, other)
    machine.saver.flush()
    assert (newest(machine)["0"].values == 3).all()


def test_the_best_is_kept_though_a_tensor_changed_that_had_long_been_steady(tmp_path):
    machine = Machine(tmp_path, size=LARGE)
    machine.open()
    machine.save(1)
    machine.save(1)
    machine.save(2, is_best=True)
    machine.save(3)
    machine.close()
    steps = {info.step: info.is_best for info in machine.store.infos()}
    assert steps[2]


def test_what_did_not_change_is_not_written_again(tmp_path):
    machine = Machine(tmp_path, size=10_000)
    machine.frozen = Tensor(np.zeros(1_000_000))
    machine.open()
    machine.save(1)
    machine.save(2)
    machine.save(3)
    written = machine.saver.status().timings.nbytes
    machine.close()
    assert written <= 1.2 * 4 * 10_000


def test_sections_whose_names_differ_by_steady_share_no_file(machine):
    steady, trained = Tensor(np.ones(LARGE)), Tensor(np.zeros(LARGE))
    sections = [Section("model", {"w": steady}, weights=True)]
    sections.append(Section("model-steady", {"w": trained}, weights=True))
    for step in range(3):
        trained.values[:] = step
        assert machine.saver.offer(
            sections,
            SaveFacts(step=step),
            is_guarded=lambda spec: spec.address == trained.values.ctypes.data,
        )
        machine.saver.flush()
        loaded = RunFolder(machine.root).newest_valid(machine.backend)
        assert loaded.facts.step == step
        assert (loaded.sections["model"]["w"].values == 1).all()
        assert (loaded.sections["model-steady"]["w"].values == step).all()


def test_a_file_that_somebody_removed_is_written_again(tmp_path):
    machine = Machine(tmp_path, size=LARGE)
    machine.open()
    machine.save(1)
    machine.save(2)
    for path in (tmp_path / "shards").glob("model-steady-*"):
        path.unlink()
    machine.save(3)
    machine.close()
    assert loaded_step(tmp_path, size=LARGE) == 3


def test_a_folder_that_somebody_removed_costs_one_save(tmp_path):
    machine = Machine(tmp_path / "run", size=LARGE)
    machine.open()
    machine.save(1)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(CheckpointWriteError, match="No such file"):
        machine.save(2)
    machine.save(2)
    machine.close()
    assert loaded_step(tmp_path / "run", size=LARGE) == 2


def test_the_weights_open_with_plain_safetensors(tmp_path):
    from safetensors.numpy import load_file

    machine = Machine(tmp_path)
    machine.open()
    machine.save(1)
    machine.close()
    (info,) = machine.store.infos()
    tensors = {k: v for path in info.weights_files for k, v in load_file(path).items()}
    assert tensors.keys() == {"w", "frozen"}
    assert np.array_equal(tensors["w"], machine.weights.values)


def test_the_cost_of_a_save_stays_flat_over_many(tmp_path):
    calls: list[int] = []

    class Counting(Files):
        count = 0

        def __getattribute__(self, name):
            if not name.startswith("_") and name != "count":
                type(self).count += 1
            return super().__getattribute__(name)

    machine = Machine(tmp_path, files=Counting(), size=8)
    machine.open()
    for step in range(1, 401):
        before = Counting.count
        machine.save(step % 5)
        calls.append(Counting.count - before)
    machine.close()
    assert max(calls[300:]) <= max(calls[5:50])
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert len(list((tmp_path / "shards").iterdir())) <= 12


@pytest.mark.soak
def test_ten_thousand_saves_cost_no_more_at_their_end(tmp_path):
    """The folder stays small, and so do what one save and finding the newest touch."""
    count = 10_000 if os.environ.get("COLABKIT_SOAK") else 1_000
    machine = Machine(tmp_path, size=8)
    machine.open()
    seconds: list[tuple[float, float]] = []
    for step in range(count):
        began_s = time.perf_counter()
        machine.save(step % 5)
        saved_s = time.perf_counter()
        assert machine.store.names()
        seconds.append((saved_s - began_s, time.perf_counter() - saved_s))
    machine.close()
    files = sum(1 for path in tmp_path.rglob("*") if path.is_file())
    assert files <= 16
    if count == 10_000:
        early, late = np.median(seconds[500:2500], axis=0), np.median(seconds[-2000:], axis=0)
        print(f"a save {late[0] / early[0]:.2f}×, finding the newest {late[1] / early[1]:.2f}×")


def test_the_newer_session_takes_over_and_the_older_stops(tmp_path):
    older, newer = Machine(tmp_path), Machine(tmp_path)
    older.open()
    older.save(1)
    newer.open()
    newer.save(2)
    older.weights.values[:] = 99
    older.saver.offer(older.sections(9), SaveFacts(step=9), is_guarded=lambda _: False)
    with pytest.raises(LeaseLostError, match="taken over"):
        older.saver.flush()
    with pytest.raises(LeaseLostError):
        older.saver.raise_if_failed()
    newer.save(3)
    older.close()
    newer.close()
    assert loaded_step(tmp_path) == 3


def test_a_full_disk_costs_the_save_and_nothing_else(tmp_path):
    class Full(Files):
        left = 10**9

        def write(self, descriptor, data):
            Full.left -= len(data)
            if Full.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(descriptor, data)

    machine = Machine(tmp_path, files=Full())
    machine.open()
    machine.save(1)
    shards = sorted((tmp_path / "shards").iterdir())
    for room in range(0, 900, 75):
        Full.left = room
        with pytest.raises(CheckpointWriteError, match="full") as caught:
            machine.save(2)
        assert isinstance(caught.value.__cause__, DiskFullError)
        assert loaded_step(tmp_path) == 1
        assert sorted((tmp_path / "shards").iterdir()) == shards
    Full.left = 10**9
    machine.save(3)
    assert machine.saver.status().error is None
    machine.close()
    assert loaded_step(tmp_path) == 3


def test_a_checkpoint_that_has_its_name_is_whole_though_no_file_can_be_opened(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)

    class Crowded(Files):
        full = False

        def fsync_folder(self, path):
            if Crowded.full and path.name == "checkpoints":
                resource.setrlimit(resource.RLIMIT_NOFILE, (1, limit[1]))
            try:
                super().fsync_folder(path)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)

    machine = Machine(tmp_path, files=Crowded())
    machine.open()
    machine.save(1)
    Crowded.full = True
    machine.save(2)
    machine.close()
    assert loaded_step(tmp_path) == 2


def test_a_disk_that_is_really_full(tmp_path):
    with small_disk(tmp_path, "size=200k"):
        machine = Machine(tmp_path, size=4000)
        machine.open()
        machine.save(1)
        machine.frozen = Tensor(np.ones(40_000))
        with pytest.raises(CheckpointWriteError, match="full"):
            machine.save(2)
        machine.close()
        assert loaded_step(tmp_path, size=4000) == 1


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path):
    class ReadOnly(Files):
        def create(self, path):
            raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(StorageError, match="Pass a folder that you may write to"):
        Machine(tmp_path, files=ReadOnly()).open()


def test_a_run_folder_that_is_a_file_is_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(StorageError, match="is a file"):
        RunFolder(path)
    assert path.read_text() == "mine"


def test_foreign_files_are_left_alone(tmp_path):
    names = ["checkpoints/notes.json", "shards/mine.safetensors", "photo.jpg", "checkpoints/a.txt"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    machine = Machine(tmp_path)
    machine.open()
    for step in range(1, 6):
        machine.save(step)
    machine.close()
    assert loaded_step(tmp_path) == 5
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_what_cannot_be_stored_is_named_by_its_path(machine):
    section = Section("run", {"scheduler": {"rule": lambda: 0}}, weights=False)
    with pytest.raises(StateError, match=r"scheduler\.rule is a function"):
        machine.saver.offer([section], SaveFacts(step=1), is_guarded=lambda _: False)


def test_the_status_tells_how_far_a_save_has_come(machine):
    assert machine.saver.status().state is SaveState.NONE
    machine.save(1)
    status = machine.saver.status()
    assert (status.state, status.step) == (SaveState.COMMITTED, 1)
    assert status.timings.nbytes > 0


def test_a_volume_refuses_names_that_lead_out_of_it(tmp_path):
    volume = LocalVolume(tmp_path / "root")
    for name in ("../x", "/etc/passwd", "a/../../x", ""):
        with pytest.raises(StorageError):
            volume.write(name, [np.zeros(1, np.uint8)])


def test_the_numpy_backend_describes_what_it_stores():
    spec = NumpyBackend().describe(Tensor(np.zeros((2, 3))))
    assert (spec.dtype, spec.shape, spec.nbytes) == ("F32", (2, 3), 24)
