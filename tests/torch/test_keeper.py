"""Saving where the place for checkpoints is slow, or fails for a while."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from colabkit.checkpoint import SaveFacts, Section
from colabkit.errors import (
    CheckpointWriteError,
    DriveLostError,
    DriveMountError,
    MountFailure,
)
from colabkit.frameworks.torch import TorchAdapter
from colabkit.runs import checkpoint_manager
from colabkit.runs.checkpoint_manager import CheckpointManager, CheckpointOptions, Snapshot
from colabkit.storage import DriveMount, MountRequest, use_mount
from tests.unit.checkpoint.slow_volume import Clock, eventually


def opened(folder: Path | str, clock: Callable[[], float] = time.monotonic) -> CheckpointManager:
    model = torch.nn.Linear(4, 3)
    place = {"step": 0}

    def take() -> Snapshot:
        place["step"] += 1
        state = Section("model", dict(model.state_dict()), weights=True)
        return Snapshot([state], SaveFacts(step=place["step"]))

    manager = CheckpointManager(
        folder,
        TorchAdapter({"model": model}),
        CheckpointOptions(),
        take=take,
        where=object,  # each is another place
        on_remount=lambda _: None,
        clock=clock,
    )
    manager.open()
    return manager


def test_a_save_that_fails_while_the_next_one_waits_costs_no_training(tmp_path):
    manager = opened(tmp_path)
    lease = tmp_path / "lease.json"
    lease.unlink()
    os.mkfifo(lease)  # the save is under way until somebody writes there

    def give_nothing() -> None:
        with lease.open("wb"):
            lease.unlink()

    manager.save(1, wait=False)
    giving = threading.Thread(target=give_nothing)
    giving.start()
    manager.save(2, wait=False)
    giving.join()
    manager.flush()
    status = manager.close()
    assert status is not None
    assert status.error is None


class Slow(MemoryFileSystem):
    """A bucket that takes its time."""

    protocol = "slow"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    may_go_on = threading.Event()

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "shards/" in path and mode == "wb":
            assert Slow.may_go_on.wait(300)
        return super()._open(path, mode, **options)


@pytest.fixture
def in_haste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    fsspec.register_implementation("slow", Slow, clobber=True)
    Slow.may_go_on.clear()
    monkeypatch.setattr(checkpoint_manager, "_ARRIVAL_S", 0.02)
    monkeypatch.setattr(checkpoint_manager, "_FLUSH_PAUSES_S", ())


class Passing(Clock):
    """A clock that is put on while something is waited for."""

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return False


class Hanging:
    """A mounter whose mount does not answer any more, which takes 3 s to find out."""

    name = "hanging"

    def __init__(self, clock: Clock) -> None:
        self.clock, self.hangs, self.looks = clock, False, 0

    def root(self, mountpoint: Path) -> Path:
        return mountpoint / "MyDrive"

    def is_listed(self, mountpoint: Path) -> bool:
        if self.hangs:
            self.clock.now_s += 3.0
            self.looks += 1
        return True

    def mount(self, mountpoint: Path, wanted: MountRequest) -> None:
        raise DriveMountError("no", cause=MountFailure.TIMED_OUT, path=mountpoint)

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        raise NotImplementedError


def test_a_mount_that_hangs_is_looked_at_rarely(tmp_path, in_haste):
    clock = Clock()
    mounter = Hanging(clock)
    root = tmp_path / "drive" / "MyDrive"
    root.mkdir(parents=True)
    use_mount(DriveMount(root.parent, mounter, clock=clock))
    try:
        manager = opened(root / "run", clock)
        mounter.hangs = True
        root.rename(tmp_path / "gone")
        manager.save(1, wait=False)
        eventually(lambda: isinstance(manager.status().upload.error, DriveLostError))
        end_s = clock.now_s + 600
        while clock.now_s < end_s:
            manager.remount()
            clock.now_s += 0.25
        assert mounter.looks <= 30
        manager.close()
    finally:
        use_mount(None)


def test_a_copy_that_hangs_to_the_end_is_said_to_get_no_answer(tmp_path, in_haste, monkeypatch):
    clock = Passing()
    mounter = Hanging(clock)
    root = tmp_path / "drive" / "MyDrive"
    root.mkdir(parents=True)
    use_mount(DriveMount(root.parent, mounter, clock=clock))
    try:
        manager = opened(root / "run", clock)
        lease = root / "run" / "lease.json"
        lease.unlink()
        os.mkfifo(lease)  # who reads it waits until somebody writes
        manager.save(1, wait=False)
        eventually(lambda: manager.status().upload.busy_s > 60 or clock.wait(1.0))
        mounter.hangs = True
        root.rename(tmp_path / "gone")
        with pytest.raises(CheckpointWriteError, match="nothing there answers"):
            manager.flush()
        with (tmp_path / "gone" / "run" / "lease.json").open("wb"):
            pass
        manager.close()
    finally:
        use_mount(None)


def test_an_upload_that_takes_long_is_waited_for(in_haste):
    looks = itertools.count()
    # An hour at each look: long past what a mount that hangs would be given.
    manager = opened("slow://run", lambda: 3600.0 * next(looks))
    threading.Timer(0.5, Slow.may_go_on.set).start()
    manager.save(1, wait=True)
    status = manager.close()
    assert status is not None
    assert status.upload is not None
    assert status.upload.confirmed_step is not None


def test_a_checkpoint_that_the_spool_has_lost_is_never_called_saved(tmp_path, in_haste):
    manager = opened("slow://emptied")
    spool = tmp_path / "cache" / "spool"
    for number in (1, 2):
        manager.save(number, wait=False)
        eventually(lambda number=number: any(spool.rglob(f"a01-*-{number:08d}-*.json")))
    (lost,) = spool.rglob("model-*-00000002-*")
    lost.unlink()
    Slow.may_go_on.set()
    with pytest.raises(CheckpointWriteError, match="cannot be read in"):
        manager.flush()
    manager.save(3, wait=True)
    assert [name.sequence for name in manager.folder.names()] == [3, 1]
    manager.close()


def test_a_mount_that_answers_while_writes_fail_ends_the_wait(tmp_path, in_haste, monkeypatch):
    monkeypatch.setattr(checkpoint_manager, "_FLUSH_PAUSES_S", (0.01, 0.01))
    root = tmp_path / "drive" / "MyDrive"
    root.mkdir(parents=True)
    use_mount(DriveMount(root.parent, Hanging(Passing())))
    flush = os.fsync

    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(root / "run"):
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        flush(descriptor)

    try:
        manager = opened(root / "run")
        monkeypatch.setattr(os, "fsync", fail)
        manager.save(1, wait=False)
        with pytest.raises(CheckpointWriteError, match="is not in") as caught:
            manager.flush()
        assert f"Drive at {root.parent} does not answer (Connection" in str(caught.value)
        assert "It is whole in" in caught.value.hint
        monkeypatch.setattr(os, "fsync", flush)
        manager.close()
    finally:
        use_mount(None)
