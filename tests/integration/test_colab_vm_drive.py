"""The double's Drive: a cache that uploads late, and the ways in which it fails."""

from __future__ import annotations

import errno
import hashlib
import os
import time

import pytest

from tests.colab_vm import Attributes, DriveRules, Fault, UploadOrder

SLOW = 200_000  # bytes a second
DRIVE = "/content/drive/MyDrive"


@pytest.fixture
def machine(cloud):
    machine = cloud.machine()
    machine.drive.mount()
    return machine


@pytest.fixture
def drive(machine):
    """The folder My Drive, through the host's window on the machine."""
    return machine.path(DRIVE)


def error_of(call, *arguments) -> int | None:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return None


def wait_for(condition, *, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def test_a_file_is_here_at_once_and_in_the_cloud_later(cloud, machine, drive):
    machine.drive.change(upload_delay_s=1000)
    (drive / "runs").mkdir()
    (drive / "runs/x").write_bytes(b"whole")
    assert (drive / "runs/x").read_bytes() == b"whole"
    assert cloud.files() == {}
    machine.drive.change(upload_delay_s=0.02)
    machine.drive.wait_until_uploaded()
    assert cloud.path("runs/x").read_bytes() == b"whole"


def test_in_between_the_cloud_has_a_truncated_object(cloud, machine, drive):
    machine.drive.change(upload_bytes_per_s=SLOW // 100)
    data = os.urandom(100_000)
    (drive / "shard").write_bytes(data)
    wait_for(lambda: 0 < cloud.files().get("shard", 0) < len(data))
    part = cloud.path("shard").read_bytes()
    assert data.startswith(part)
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    assert cloud.path("shard").read_bytes() == data


def test_open_files_are_not_uploaded(cloud, machine, drive):
    with (drive / "log").open("wb") as file:
        file.write(b"line\n")
        file.flush()
        os.fsync(file.fileno())
        (drive / "other").write_bytes(b"x")
        wait_for(lambda: cloud.files() == {"other": 1})
        (waiting,) = machine.drive.waiting()
        assert (waiting["path"], waiting["why"]) == ("log", "open")
    machine.drive.wait_until_uploaded()
    assert cloud.files() == {"log": 5, "other": 1}


@pytest.mark.parametrize(
    ("order", "first"), [(UploadOrder.SMALLEST, "manifest"), (UploadOrder.OLDEST, "shard")]
)
def test_a_small_file_written_last_may_overtake(cloud, machine, drive, order, first):
    machine.drive.change(upload_order=order, upload_bytes_per_s=0)
    (drive / "shard").write_bytes(bytes(60_000))
    (drive / "manifest").write_bytes(bytes(30_000))
    # The kernel tells of a closed file when it comes to it.
    wait_for(lambda: [each["why"] for each in machine.drive.waiting()] == ["waiting"] * 2)
    machine.drive.change(upload_bytes_per_s=SLOW // 20)
    sizes = {"shard": 60_000, "manifest": 30_000}
    whole: list[str] = []

    def are_whole() -> list[str]:
        files = cloud.files()
        whole[:] = [name for name in sizes if files.get(name) == sizes[name]]
        return whole

    wait_for(are_whole)
    assert whole == [first]
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    assert cloud.files() == sizes


def test_renaming_and_replacing_reach_the_cloud(cloud, machine, drive):
    (drive / "a").mkdir()
    (drive / "a/x").write_bytes(b"one")
    machine.drive.wait_until_uploaded()
    (drive / "a").rename(drive / "b")
    (drive / "new").write_bytes(b"two!")
    (drive / "new").replace(drive / "b/x")
    machine.drive.wait_until_uploaded()
    assert cloud.files() == {"b/x": 4}
    assert list(cloud.trash().values()) == [3]
    (drive / "b/x").unlink()
    (drive / "b").rmdir()
    machine.drive.wait_until_uploaded()
    assert os.listdir(cloud.path("")) == []


def test_replacing_a_file_that_somebody_still_reads_reaches_the_cloud(cloud, machine, drive):
    (drive / "a").write_bytes(b"old")
    machine.drive.wait_until_uploaded()
    machine.drive.change(upload_bytes_per_s=0, upload_delay_s=1.0)
    # FUSE hides what is open under another name, and removes it at the last close: the new file
    # is due before the old one's end is.
    with (drive / "a").open("rb"):
        (drive / "b").write_bytes(b"new")
        (drive / "b").rename(drive / "a")
        time.sleep(1.0)
    wait_for(lambda: os.listdir(drive) == ["a"])
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    assert cloud.path("a").read_bytes() == b"new"
    assert list(cloud.files()) == ["a"]


def test_extended_attributes_tell_the_upload_by_name_only(cloud, machine, drive):
    path = drive / "x"
    machine.drive.change(upload_bytes_per_s=0)
    path.write_bytes(b"data")
    assert os.listxattr(path) == []
    assert os.getxattr(path, "user.drive.id").startswith(b"local-")
    assert os.getxattr(path, "user.drive.uncommitted") == b"1"
    assert error_of(os.getxattr, path, "user.drive.md5") == errno.ENODATA
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    uploaded_id = os.getxattr(path, "user.drive.id")
    assert not uploaded_id.startswith(b"local-")
    assert os.getxattr(path, "user.drive.uncommitted") == b"0"
    assert os.getxattr(path, "user.drive.md5").decode() == hashlib.md5(b"data").hexdigest()
    path.write_bytes(b"more data")
    assert os.getxattr(path, "user.drive.uncommitted") == b"1"
    assert os.getxattr(path, "user.drive.id") == uploaded_id


def test_extended_attributes_may_be_missing(machine, drive):
    (drive / "x").write_bytes(b"data")
    machine.drive.change(attributes=Attributes.ID)
    os.getxattr(drive / "x", "user.drive.id")
    assert error_of(os.getxattr, drive / "x", "user.drive.uncommitted") == errno.ENODATA
    machine.drive.change(attributes=Attributes.NONE)
    assert error_of(os.getxattr, drive / "x", "user.drive.id") == errno.EOPNOTSUPP


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.ENOSPC])
def test_each_call_fails_with_the_injected_errno(machine, drive, number):
    (drive / "runs").mkdir()
    (drive / "runs/x").write_bytes(b"data")
    calls = {
        "read": lambda: (drive / "runs/x").read_bytes(),
        "write": lambda: (drive / "runs/x").write_bytes(b"y"),
        "listdir": lambda: os.listdir(drive / "runs"),
        "close": lambda: (drive / "runs/x").open("rb").close(),
        "open": lambda: (drive / "runs/x").open("rb"),
        "create": lambda: (drive / "runs/new").touch(),
        "mkdir": lambda: (drive / "runs/folder").mkdir(),
        "rename": lambda: (drive / "runs/x").rename(drive / "runs/y"),
        "unlink": lambda: (drive / "runs/x").unlink(),
        "truncate": lambda: os.truncate(drive / "runs/x", 0),
        "stat": lambda: (drive / "runs/x").stat(),
    }
    for op, call in calls.items():
        machine.drive.inject(Fault(op, "MyDrive/runs*", (number,)))
        assert error_of(call) == number, op
        machine.drive.heal()
    assert (drive / "runs/x").exists()


@pytest.mark.parametrize("op", ["read", "write", "listdir", "close"])
def test_two_then_107_comes_in_the_middle(machine, drive, op):
    (drive / "runs").mkdir()
    (drive / "runs/x").write_bytes(b"data")
    calls = {
        "read": lambda: (drive / "runs/x").read_bytes(),
        "write": lambda: (drive / "runs/x").write_bytes(b"y"),
        "listdir": lambda: os.listdir(drive / "runs"),
        "close": lambda: (drive / "runs/x").open("rb").close(),
    }
    fault = Fault(op, "MyDrive/runs*", (errno.ENOENT, errno.ENOTCONN), skip=1, count=3)
    machine.drive.inject(fault)
    met = [error_of(calls[op]) for _ in range(5)]
    assert met == [None, errno.ENOENT, errno.ENOTCONN, errno.ENOTCONN, None]
    assert machine.drive.state()["met"][fault.id] == 5


def test_links_are_refused(drive):
    (drive / "x").touch()
    assert error_of(os.symlink, "x", drive / "soft") == errno.EOPNOTSUPP == 95
    # From 6.16 on Linux itself makes 1 of a FUSE file system's 38.
    assert error_of(os.link, drive / "x", drive / "hard") in (errno.ENOSYS, errno.EPERM)


def test_beside_my_drive_nothing_can_be_made(machine):
    assert error_of((machine.path("/content/drive") / "stray").mkdir) == errno.EOPNOTSUPP


def test_the_trash_counts_with_the_bytes_a_file_had(cloud, machine, drive):
    for name in ("whole", "cut"):
        (drive / name).write_bytes(bytes(1000))
    machine.drive.wait_until_uploaded()
    (drive / "whole").unlink()
    os.truncate(drive / "cut", 0)
    (drive / "cut").unlink()
    machine.drive.wait_until_uploaded()
    assert cloud.files() == {}
    assert sorted(cloud.trash().values()) == [0, 1000]
    assert cloud.used_bytes() == 1000


def test_over_quota_a_write_succeeds_and_never_arrives(cloud, machine, drive):
    cloud.quota_bytes = 1500
    (drive / "first").write_bytes(bytes(1000))
    machine.drive.wait_until_uploaded()
    (drive / "second").write_bytes(bytes(1000))
    assert (drive / "second").read_bytes() == bytes(1000)
    wait_for(lambda: [w["why"] for w in machine.drive.waiting()] == ["over quota"])
    assert cloud.files() == {"first": 1000}
    (drive / "first").unlink()
    (drive / "third").write_bytes(b"")
    wait_for(lambda: "third" in cloud.files())
    # In the Trash the first one still counts.
    assert [w["path"] for w in machine.drive.waiting()] == ["second"]
    cloud.empty_trash()
    machine.drive.wait_until_uploaded()
    assert cloud.files() == {"second": 1000, "third": 0}


def test_the_local_cache_fills_the_local_disk(cloud):
    machine = cloud.machine(disk_bytes=8 << 20)
    machine.drive.mount()
    path = machine.path(DRIVE) / "large"
    assert error_of(path.write_bytes, bytes(16 << 20)) == errno.ENOSPC
    machine.drive.change(upload_bytes_per_s=0)
    assert error_of(machine.path("/content/x").write_bytes, bytes(8 << 20)) == errno.ENOSPC


def test_calls_take_time_and_reading_has_a_bandwidth(cloud, machine, drive):
    cloud.path("data").write_bytes(bytes(100_000))
    machine.drive.change(download_bytes_per_s=500_000)
    before = time.monotonic()
    (drive / "data").read_bytes()
    assert time.monotonic() - before >= 0.2
    # What was read once is here: else this would take a day.
    machine.drive.change(download_bytes_per_s=1)
    (drive / "data").read_bytes()
    machine.drive.change(latency_s=0.1)
    before = time.monotonic()
    (drive / "data").stat()
    assert time.monotonic() - before >= 0.1


def test_uploading_keeps_to_its_bandwidth(cloud, machine, drive):
    machine.drive.change(upload_bytes_per_s=SLOW, upload_delay_s=0.0)
    before = time.monotonic()
    (drive / "x").write_bytes(bytes(SLOW))
    machine.drive.wait_until_uploaded()
    # It may send at once what the time since its last look allows, which was before.
    assert time.monotonic() - before >= 0.5


def test_too_many_entries_are_errno_5(cloud, machine, drive):
    machine.drive.change(entries_per_folder=3)
    for number in range(3):
        (drive / str(number)).touch()
    assert error_of((drive / "3").touch) == errno.EIO
    assert error_of((drive / "folder").mkdir) == errno.EIO
    machine.drive.wait_until_uploaded()
    cloud.path("from another machine").touch()
    machine.drive.change(view_delay_s=0.0)
    assert error_of(os.listdir, drive) == errno.EIO


def test_what_another_machine_did_is_seen_late(cloud, machine, drive):
    machine.drive.change(view_delay_s=1000)
    assert os.listdir(drive) == []
    cloud.path("x").write_bytes(b"theirs")
    assert os.listdir(drive) == []
    machine.drive.change(view_delay_s=0.3)
    wait_for(lambda: os.listdir(drive) == ["x"])
    assert (drive / "x").read_bytes() == b"theirs"
    cloud.path("x").write_bytes(b"theirs, changed")
    wait_for(lambda: (drive / "x").read_bytes() == b"theirs, changed")
    cloud.path("x").unlink()
    wait_for(lambda: os.listdir(drive) == [])


def test_two_machines_making_one_name_get_a_number(cloud, machine, drive):
    rules = DriveRules(upload_delay_s=1000, view_delay_s=0.0)
    other = cloud.machine(rules=rules)
    other.drive.mount()
    theirs = other.path(DRIVE)
    assert os.listdir(theirs) == []
    (theirs / "x.txt").write_bytes(b"theirs")
    (drive / "x.txt").write_bytes(b"ours")
    machine.drive.wait_until_uploaded()
    other.drive.change(upload_delay_s=0.02)
    other.drive.wait_until_uploaded()
    assert cloud.files() == {"x (1).txt": 6, "x.txt": 4}
    # The other machine's own file has lost its name to ours.
    assert (theirs / "x.txt").read_bytes() == b"ours"
    assert (theirs / "x (1).txt").read_bytes() == b"theirs"


def test_a_killed_daemon_leaves_a_mount_that_is_not_connected(machine, drive):
    (drive / "x").write_bytes(b"data")
    machine.drive.wait_until_uploaded()
    machine.drive.kill_mount()
    mountpoint = machine.path("/content/drive")
    assert error_of(os.listdir, mountpoint) == errno.ENOTCONN
    assert error_of((mountpoint / "MyDrive/x").read_bytes) == errno.ENOTCONN
    assert not os.path.exists(mountpoint / "MyDrive/x")
    machine.drive.unmount()
    assert os.listdir(mountpoint) == []
    machine.drive.mount()
    assert (drive / "x").read_bytes() == b"data"


@pytest.mark.parametrize("survives", [True, False])
def test_a_forced_remount_keeps_the_unsent_or_loses_it(cloud, survives):
    rules = DriveRules(upload_bytes_per_s=0, cache_survives=survives)
    machine = cloud.machine(rules=rules)
    mount = "from google.colab import drive; drive.mount('/content/drive', force_remount=True)"
    machine.run_cell(mount).check()
    cell = f"open('{DRIVE}/x', 'w').write('unsent'); import os; os.mkdir('{DRIVE}/folder')"
    machine.run_cell(cell).check()
    assert machine.run_cell(mount).check().stdout == "Mounted at /content/drive\n"
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    here = sorted(os.listdir(machine.path(DRIVE)))
    assert here == (["folder", "x"] if survives else [])
    assert cloud.files() == ({"x": 6} if survives else {})


def test_an_upload_cut_in_the_middle_is_made_whole_by_the_next_mount(cloud, machine, drive):
    machine.drive.change(upload_bytes_per_s=SLOW // 100)
    data = os.urandom(100_000)
    (drive / "x").write_bytes(data)
    wait_for(lambda: 0 < cloud.files().get("x", 0) < len(data))
    machine.drive.kill_mount()
    assert cloud.files()["x"] < len(data)
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.unmount()
    machine.drive.mount()
    machine.drive.wait_until_uploaded()
    assert cloud.path("x").read_bytes() == data
