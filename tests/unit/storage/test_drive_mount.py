"""Drive's mount as a state: watched, waited for, mounted again."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.errors import DriveLostError, DriveMountError, MountFailure, StorageError
from colabkit.storage import (
    DriveMount,
    MountState,
    Observation,
    RemountOutcome,
    state_after,
    wait_before_try_s,
)

_MINUTE_S = 60.0


class Moody:
    """A mounter whose mount is a folder that is there or not."""

    name = "moody"

    def __init__(self) -> None:
        self.refusals = 0
        self.holds = False
        self.calls: list[float] = []

    def root(self, mountpoint):
        return mountpoint / "MyDrive"

    def is_listed(self, mountpoint):
        return (mountpoint / "MyDrive").exists()

    def mount(self, mountpoint, wanted):
        self.calls.append(wanted.timeout_s)
        if self.refusals:
            self.refusals -= 1
            raise DriveMountError("no", cause=MountFailure.NOBODY_THERE, path=mountpoint)
        (mountpoint / "MyDrive").mkdir(parents=True, exist_ok=True)

    def unmount(self, mountpoint, *, timeout_s):
        if self.holds:
            raise StorageError("it uploads", path=mountpoint, operation="unmount")
        (mountpoint / "MyDrive").rmdir()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def mounter():
    return Moody()


@pytest.fixture
def mount(tmp_path, mounter, clock):
    return DriveMount(tmp_path / "drive", mounter, clock=clock)


@pytest.mark.parametrize("before", list(MountState))
def test_what_is_listed_and_answers_is_mounted(before):
    assert state_after(before, Observation(is_listed=True, answers=True)) is MountState.MOUNTED


@pytest.mark.parametrize("before", list(MountState))
def test_what_is_listed_and_does_not_answer_is_lost(before):
    assert state_after(before, Observation(is_listed=True, answers=False)) is MountState.LOST


def test_what_was_mounted_and_is_not_listed_is_lost_until_it_is_back():
    gone = Observation(is_listed=False, answers=False)
    assert state_after(MountState.ABSENT, gone) is MountState.ABSENT
    assert state_after(MountState.MOUNTED, gone) is MountState.LOST
    assert state_after(MountState.LOST, gone) is MountState.LOST


def test_tries_are_put_off_by_1_5_and_15_minutes():
    assert [wait_before_try_s(n) / _MINUTE_S for n in range(6)] == [0, 1, 5, 15, 15, 15]


def test_a_lost_mount_is_mounted_again_at_once(mount, mounter):
    mount.mount()
    mounter.unmount(mount.mountpoint, timeout_s=1)
    assert mount.remount().outcome is RemountOutcome.REMOUNTED
    assert mount.times_lost == 1
    assert mount.remount().outcome is RemountOutcome.FINE


def test_refused_tries_come_further_and_further_apart_and_wait_shorter(mount, mounter, clock):
    mount.mount()
    mounter.unmount(mount.mountpoint, timeout_s=1)
    mounter.refusals, mounter.calls = 4, []
    tried_s = []
    began_s = clock.now_s
    while (result := mount.remount()).outcome is not RemountOutcome.REMOUNTED:
        if result.outcome is RemountOutcome.REFUSED:
            tried_s.append(clock.now_s - began_s)
            assert isinstance(result.error, DriveMountError)
        clock.now_s += 5
    assert tried_s == [0, 1 * _MINUTE_S, 6 * _MINUTE_S, 21 * _MINUTE_S]
    assert mounter.calls == [30, 10, 10, 10, 10]


def test_who_asks_for_it_need_not_wait(mount, mounter):
    mount.mount()
    mounter.unmount(mount.mountpoint, timeout_s=1)
    mounter.refusals = 1
    assert mount.remount().outcome is RemountOutcome.REFUSED
    assert mount.remount().outcome is RemountOutcome.WAITING
    assert mount.remount(now=True).outcome is RemountOutcome.REMOUNTED


def test_a_folder_where_drive_was_is_not_taken_for_drive(mount, mounter):
    mount.mount()
    mount.require()
    mounter.unmount(mount.mountpoint, timeout_s=1)
    with pytest.raises(DriveLostError, match="not mounted"):
        mount.require()


class ElsewhereMounter(Moody):
    """A mount on a device of its own, in whose place a bare folder is left when it goes."""

    def mount(self, mountpoint, wanted):
        mountpoint.mkdir(parents=True, exist_ok=True)
        if (mountpoint / "MyDrive").is_dir():
            (mountpoint / "MyDrive").rmdir()
        (mountpoint / "MyDrive").symlink_to("/proc")

    def unmount(self, mountpoint, *, timeout_s):
        (mountpoint / "MyDrive").unlink()
        (mountpoint / "MyDrive").mkdir()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder on another device")
def test_a_bare_folder_on_another_device_in_drives_place_is_not_taken_for_drive(tmp_path, clock):
    """It answers, and what is written there is on no Drive: only its device tells."""
    mounter = ElsewhereMounter()
    mount = DriveMount(tmp_path / "drive", mounter, clock=clock)
    with pytest.raises(DriveLostError):
        mount.require()
    mount.mount()
    mount.require()
    mounter.unmount(mount.mountpoint, timeout_s=1)
    assert mount.root.is_dir()
    with pytest.raises(DriveLostError, match="not mounted"):
        mount.require()
    mounter.mount(mount.mountpoint, None)
    mount.require()


def test_a_folder_where_drive_was_never_mounted_is_not_taken_for_drive(mount):
    mount.root.mkdir(parents=True)
    with pytest.raises(DriveLostError):
        mount.require()


def test_a_mount_becomes_old_only_where_that_is_asked_for(mount, mounter, clock):
    mount.mount()
    clock.now_s += 11 * 3600
    assert not mount.wants_renewal
    mount.renew_after_s = 10 * 3600.0
    assert mount.wants_renewal
    assert mount.renew().outcome is RemountOutcome.RENEWED
    assert not mount.wants_renewal
    assert mount.age_s == 0


def test_what_is_old_is_taken_down_only_once_it_has_uploaded_everything(mount, mounter, clock):
    mount.mount()
    mount.renew_after_s, mounter.holds = 10.0, True
    clock.now_s += 20
    result = mount.renew()
    assert result.outcome is RemountOutcome.KEPT
    assert mount.probe() is MountState.MOUNTED
    assert mount.renew().outcome is RemountOutcome.WAITING
    mounter.holds = False
    clock.now_s += result.next_try_s
    assert mount.renew().outcome is RemountOutcome.RENEWED


def test_what_is_old_and_cannot_be_mounted_anew_is_lost_and_mended_as_ever(mount, mounter, clock):
    mount.mount()
    mount.renew_after_s = 10.0
    clock.now_s += 20
    mounter.refusals = 1
    assert mount.renew().outcome is RemountOutcome.REFUSED
    assert mount.probe() is MountState.LOST
    assert not mount.wants_renewal
    assert mount.remount().outcome is RemountOutcome.WAITING
    clock.now_s += 1 * _MINUTE_S
    assert mount.remount().outcome is RemountOutcome.REMOUNTED
