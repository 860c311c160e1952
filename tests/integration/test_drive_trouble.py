"""Drive dies, refuses, fills up, forgets: training goes on, and says what happened."""

from __future__ import annotations

import contextlib
import errno
import itertools

import pytest

import colabkit
from tests.colab_vm import Answer, DriveRules, Fault, MachineEndedError, MountOutcome
from tests.integration.training import SETUP, Diary, digest_in, said_in, train_cell, undisturbed

# The mount's clock runs faster than the wall, so that 1, 5 and 15 minutes pass within a test.
HASTE = """
import time
from colabkit.storage import ColabMounter, DriveMount, use_mount
mount = DriveMount("/content/drive", ColabMounter(), clock=lambda: time.monotonic() * {rate})
mount.probe()
use_mount(mount)
"""
# The mount becomes old at a moment that the test chooses.
AGEING = """
import os, time
from colabkit.storage import ColabMounter, DriveMount, use_mount
mount = DriveMount(
    "/content/drive",
    ColabMounter(),
    clock=lambda: time.monotonic() + 1e5 * os.path.exists("/content/old"),
)
mount.probe()
mount.renew_after_s = 36000
use_mount(mount)
"""


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path / "diary")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The digest of a run that nothing happened to."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), epochs=20)


@pytest.fixture
def machine(cloud, diary):
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    return machine


def begun(machine, diary, **options) -> str:
    """Begins a training, which is slow in mid-run once something of it is uploaded."""
    diary.slow_from(60)
    cell = machine.kernel.begin(train_cell(diary, **{"epochs": 20, "pause_s": 0.02, **options}))
    diary.wait_for(lambda notes: notes[-1].confirmed)
    return cell


def cloud_steps(cloud) -> list[int]:
    """Returns the steps of the checkpoints in the cloud that are whole there."""
    found = colabkit.checkpoints(cloud.path("runs/a"), verify=True)
    return sorted(info.step for info in found if not info.problem)


def bare(machine) -> list[str]:
    """Returns what lies below the mountpoint on the machine's own disk."""
    machine.drive.unmount()
    return [str(path) for path in machine.path("/content/drive").rglob("*")]


def test_a_mount_that_dies_in_training_is_back_at_once(cloud, diary, expected, machine):
    cell = begun(machine, diary)
    machine.drive.kill_mount()
    diary.let_go()
    result = machine.kernel.finish(cell).check()
    assert digest_in(result) == expected
    assert said_in(result).count("Drive was lost and is mounted again") == 1
    machine.drive.wait_until_uploaded()
    assert sum(name.startswith("runs/a/checkpoints/") for name in cloud.files()) >= 2
    assert bare(machine) == []


def test_a_mount_that_is_refused_three_times_is_tried_1_5_and_15_minutes_later(
    cloud, diary, machine
):
    machine.run_cell(HASTE.format(rate=120)).check()
    cell = begun(machine, diary, epochs=4000)
    machine.drive.will_mount(MountOutcome.FAILED, MountOutcome.FAILED, MountOutcome.FAILED)
    machine.drive.kill_mount()
    safe = diary.notes()[-1].step
    diary.let_go()
    diary.wait_for(lambda notes: notes[-1].confirmed > safe)
    machine.interrupt()
    result = machine.kernel.finish(cell).check()
    for words in ("1 min", "5 min", "15 min"):
        assert f"the next try is in {words}" in said_in(result)
    assert said_in(result).count("Drive was lost and is mounted again") == 1
    machine.drive.wait_until_uploaded()
    assert bare(machine) == []


def test_a_mount_that_never_comes_back_costs_the_upload_and_nothing_else(
    cloud, diary, expected, machine
):
    cell = begun(machine, diary)
    machine.drive.will_mount(then=MountOutcome.FAILED)
    machine.drive.kill_mount()
    diary.let_go()
    result = machine.kernel.finish(cell)
    assert diary.notes()[-1].step == 200
    assert result.error.startswith("CheckpointWriteError: The checkpoint of step 200 is not in")
    assert "It is whole in /root/.cache/colabkit/spool/" in result.error
    # The advice holds: once Drive is back, the same cell brings it there.
    machine.drive.will_mount()
    machine.run_cell("colabkit.mount()").check()
    again = machine.run_cell(train_cell(diary, epochs=20)).check()
    assert digest_in(again) == expected
    machine.drive.wait_until_uploaded()
    machine.kill()
    fresh = cloud.machine(visible=[diary.folder])
    fresh.run_cell(SETUP).check()
    assert digest_in(fresh.run_cell(train_cell(diary, epochs=20)).check()) == expected


def test_release_brings_over_what_a_lost_mount_left_on_the_machine(cloud, diary, machine):
    cell = begun(machine, diary)
    machine.drive.will_mount(then=MountOutcome.FAILED)
    machine.drive.kill_mount()
    diary.let_go()
    assert machine.kernel.finish(cell).error.startswith("CheckpointWriteError")
    assert "DriveLostError" in machine.run_cell("colabkit.release()").error
    machine.drive.will_mount()
    machine.run_cell("colabkit.mount()").check()
    with pytest.raises(MachineEndedError):
        machine.run_cell("colabkit.release()")
    machine.wait_until_ended()
    fresh = cloud.machine()
    fresh.run_cell(SETUP).check()
    there = "[(i.step, i.problem) for i in colabkit.checkpoints('MyDrive/runs/a', verify=True)][0]"
    assert fresh.run_cell(there).check().result == "(200, '')"


def test_with_nobody_at_the_browser_only_the_first_try_holds_training_long(cloud, diary, machine):
    cell = begun(machine, diary, epochs=4000, pause_s=0.01)
    machine.front_end.answer, machine.front_end.clock_rate = Answer.NOBODY, 10
    asked = len(machine.front_end.requests)
    machine.drive.kill_mount()
    diary.let_go()
    diary.wait_for(lambda _: len(machine.front_end.requests) > asked)
    held_at = diary.notes()[-1].step
    diary.wait_for(lambda notes: notes[-1].step > held_at + 300)
    waits_s = [request["timeout_sec"] for request in machine.front_end.requests[asked:]]
    assert waits_s[0] == 30
    # On a machine so slow that a minute has passed meanwhile it has asked again, for a moment.
    assert set(waits_s[1:]) <= {10}
    pairs = itertools.pairwise(note.at_s for note in diary.notes() if note.step >= held_at)
    assert max(after_s - before_s for before_s, after_s in pairs) < 100
    machine.front_end.answer = Answer.CONSENT
    machine.interrupt()
    machine.kernel.finish(cell)
    machine.drive.wait_until_uploaded()
    newest = max(cloud_steps(cloud))
    assert newest == diary.notes()[-1].step


@pytest.mark.parametrize(
    "fault",
    [
        Fault("write", "MyDrive/runs/a/shards/*", (errno.ENOTCONN,), skip=4, count=2),
        Fault("write", "MyDrive/runs/a/shards/*", (errno.EIO,), skip=4, count=2),
        Fault("close", "MyDrive/runs/a/*", (errno.ENOENT, errno.ENOTCONN), skip=3, count=2),
        Fault("rename", "MyDrive/runs/a/*", (errno.EIO,), skip=3, count=1),
        Fault("unlink", "MyDrive/runs/a/*", (errno.ENOTCONN,), skip=2, count=2),
        Fault("truncate", "MyDrive/runs/a/*", (errno.ENOTCONN,), count=1),
        Fault("listdir", "MyDrive/runs/a/*", (errno.EIO,), skip=4, count=2),
    ],
    ids=lambda fault: f"{fault.op}-{fault.errnos[-1]}",
)
def test_an_error_in_a_save_is_overcome(cloud, diary, expected, machine, fault):
    machine.drive.inject(fault)
    # Tried again after 5 s: the run must last longer than that.
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0.04)).check()
    assert digest_in(result) == expected
    machine.drive.wait_until_uploaded()
    assert max(cloud_steps(cloud)) == 200


def test_errors_that_pass_while_a_run_is_opened_are_overcome(cloud, diary, expected, machine):
    faults = [
        Fault("stat", "MyDrive/runs/a", (errno.EINVAL,), count=1),
        Fault("listdir", "MyDrive/runs/a", (errno.EIO,), count=1),
        Fault("create", "MyDrive/runs/a/*", (errno.EIO,), count=1),
        Fault("rename", "MyDrive/runs/a/*", (errno.EINVAL,), count=1),
    ]
    cloud.path("runs/a").mkdir(parents=True)
    machine.drive.inject(*faults)
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0)).check()
    assert digest_in(result) == expected
    assert set(machine.drive.state()["met"]) == {fault.id for fault in faults}


def test_a_mount_that_dies_while_a_resume_reads_is_mounted_again(cloud, diary, expected, machine):
    begun(machine, diary)
    machine.kill()
    diary.let_go()
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    machine.drive.inject(Fault("read", "MyDrive/runs/a/shards/*", (errno.ENOTCONN,), count=1))
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0)).check()
    assert "Resumed at epoch" in said_in(result)
    assert digest_in(result) == expected


def test_a_newest_checkpoint_cut_short_in_the_cloud_is_told_and_the_one_before_used(
    cloud, diary, expected, machine
):
    begun(machine, diary)
    safe = diary.notes()[-1].confirmed
    diary.slow_from(120)
    diary.wait_for(lambda notes: notes[-1].confirmed > safe)
    machine.drive.wait_until_uploaded()
    machine.kill()
    diary.let_go()
    # A save may have been under way, whose shard no checkpoint names yet.
    newest = max(cloud_steps(cloud))
    for shard in sorted(cloud.path("runs/a/shards").glob("run-*"), reverse=True):
        whole = shard.read_bytes()
        shard.write_bytes(whole[:100])
        if newest not in cloud_steps(cloud):
            break
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0)).check()
    assert "is not whole" in said_in(result)
    assert "The one before is used." in said_in(result)
    assert digest_in(result) == expected


@pytest.mark.parametrize("survives", [True, False])
def test_a_remount_without_a_flush_loses_nothing_either_way(
    cloud, diary, expected, machine, survives
):
    machine.drive.change(cache_survives=survives)
    cell = begun(machine, diary)
    machine.drive.change(upload_bytes_per_s=0)
    diary.slow_from(120)
    diary.wait_for(lambda notes: notes[-1].committed > notes[-1].confirmed)
    machine.drive.kill_mount()
    machine.drive.change(upload_bytes_per_s=None)
    diary.let_go()
    result = machine.kernel.finish(cell).check()
    assert digest_in(result) == expected
    machine.drive.wait_until_uploaded()
    assert max(cloud_steps(cloud)) == 200


def test_over_quota_the_uploaded_one_stays_and_is_resumed(cloud, diary, expected, machine):
    cell = begun(machine, diary)
    cloud.quota_bytes = cloud.used_bytes()
    diary.let_go()
    ended = machine.kernel.finish(cell).check()
    assert "Drive has not uploaded the checkpoint of step 200 so far" in said_in(ended)
    notes = diary.notes()
    safe = notes[-1].confirmed
    assert safe < 200
    machine.kill()
    diary.clear()
    cloud.quota_bytes = None
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0)).check()
    assert diary.notes()[0].step - 1 >= safe
    assert digest_in(result) == expected


def fill(path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_local_disk_is_told_and_training_goes_on(cloud, diary, expected):
    machine = cloud.machine(visible=[diary.folder], environ={"COLABKIT_CACHE": "/small"})
    machine.run_cell("!mkdir /small && mount -t tmpfs -o size=400k tmpfs /small").check()
    machine.run_cell(SETUP).check()
    cell = begun(machine, diary)
    filler = machine.path("/small/filler")
    fill(filler)
    diary.slow_from(120)
    diary.wait_for(lambda notes: notes[-1].has_failed)
    diary.slow_from(150)
    diary.wait_for(lambda notes: notes[-1].step >= 150)
    filler.unlink()
    diary.let_go()
    result = machine.kernel.finish(cell).check()
    assert "could not be saved: The disk of" in said_in(result)
    assert "Training goes on." in said_in(result)
    assert digest_in(result) == expected
    machine.drive.wait_until_uploaded()
    assert max(cloud_steps(cloud)) == 200


def test_thousands_of_entries_beside_the_run_do_not_matter(cloud, diary, expected):
    cloud.path("").mkdir(parents=True, exist_ok=True)
    for number in range(60):
        cloud.path(f"photo {number}.jpg").write_bytes(b"x")
    rules = DriveRules(entries_per_folder=50)
    machine = cloud.machine(visible=[diary.folder], rules=rules)
    machine.run_cell(SETUP).check()
    listing = machine.run_cell("import os; os.listdir('/content/drive/MyDrive')")
    assert listing.error.startswith("OSError: [Errno 5]")
    cloud.path("runs/a").mkdir(parents=True)
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0)).check()
    assert digest_in(result) == expected


def test_copies_that_drive_numbered_are_no_checkpoints(cloud, diary, expected, machine):
    begun(machine, diary)
    machine.drive.wait_until_uploaded()
    machine.kill()
    diary.let_go()
    folder = cloud.path("runs/a")
    for path in [*folder.rglob("*.json")]:
        path.with_name(f"{path.stem} (1).json").write_bytes(b"{}")
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    result = machine.run_cell(train_cell(diary, epochs=20, pause_s=0)).check()
    assert "Resumed at epoch" in said_in(result)
    assert digest_in(result) == expected
    assert (folder / "lease (1).json").exists()


@pytest.mark.parametrize("upload_delay_s", [0.02, 1.5])
def test_two_machines_on_one_folder_the_older_stops(
    cloud, diary, tmp_path, machine, upload_delay_s
):
    machine.drive.change(upload_delay_s=upload_delay_s)
    old_cell = machine.kernel.begin(train_cell(diary, epochs=4000))
    diary.wait_for(lambda notes: notes[-1].confirmed)
    other = Diary(tmp_path / "other")
    rules = DriveRules(upload_delay_s=upload_delay_s)
    new = cloud.machine(visible=[other.folder], rules=rules)
    new.run_cell(SETUP).check()
    new_cell = new.kernel.begin(train_cell(other, epochs=4000))
    result = machine.kernel.finish(old_cell)
    assert result.error.startswith("LeaseLostError: Another session")
    other.wait_for(lambda notes: (notes[-1].confirmed or 0) > notes[0].step + 20)
    new.interrupt()
    new.kernel.finish(new_cell).check()
    new.drive.wait_until_uploaded()
    assert max(cloud_steps(cloud)) == other.notes()[-1].step


def test_a_mount_renewed_for_its_age_loses_nothing_that_others_wrote(cloud, diary, machine):
    machine.drive.change(cache_survives=False)
    machine.run_cell(AGEING).check()
    diary.slow_from(60)
    cell = machine.kernel.begin(train_cell(diary, save_every=10_000, epochs=30, pause_s=0.02))
    diary.wait_for(lambda notes: notes[-1].confirmed is not None)
    # Nothing but this waits to be uploaded when the mount is found to be old.
    machine.drive.change(upload_bytes_per_s=25_000)
    machine.run_script(
        "open('/content/drive/MyDrive/mine.bin', 'wb').write(bytes(200_000))"
    ).check()
    machine.path("/content/old").touch()
    diary.let_go()
    result = machine.kernel.finish(cell).check()
    assert "Drive was mounted anew" in said_in(result)
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    assert cloud.files()["mine.bin"] == 200_000
