"""A machine is given back only when its Drive has uploaded all, whoever mounted it and where."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.colab_vm import Answer, DriveRules, MachineEndedError

NBYTES = 300_000
# Nothing reaches the cloud until the test lets it: a machine that ends before has lost it.
HELD = DriveRules(upload_bytes_per_s=0)
MOUNT = "from google.colab import drive; drive.mount({!r})\n"
WRITE = f"open({{!r}} + '/MyDrive/mine.bin', 'wb').write(bytes({NBYTES}))\n"
RELEASE = "import colabkit\ncolabkit.release()"
FLUSHES = "Drive uploads what it still holds"


@pytest.fixture
def machine(cloud):
    return cloud.machine(rules=HELD)


def ends(machine, cell: str) -> None:
    """Runs a cell that gives the machine back, and lets the uploads pass once it waits for them."""
    running = machine.kernel.begin(cell)
    machine.kernel.wait_for_text(running, FLUSHES)
    machine.drive.change(upload_bytes_per_s=None)
    with pytest.raises(MachineEndedError):
        pytest.fail(f"The machine has not ended; the cell gave {machine.kernel.finish(running)}")
    machine.wait_until_ended()


@pytest.mark.parametrize("mountpoint", ["/content/drive", "/content/gdrive", "/mnt_drive"])
def test_what_a_mount_made_by_hand_has_not_uploaded_is_waited_for(cloud, machine, mountpoint):
    ends(machine, MOUNT.format(mountpoint) + WRITE.format(mountpoint) + RELEASE)
    assert cloud.files() == {"mine.bin": NBYTES}


def test_a_kernel_that_was_restarted_still_knows_of_the_mount(cloud, machine):
    machine.run_cell("import colabkit; colabkit.mount()").check()
    machine.run_cell(WRITE.format("/content/drive")).check()
    machine.restart_kernel()
    ends(machine, RELEASE)
    assert cloud.files() == {"mine.bin": NBYTES}


def test_a_script_gives_back_the_machine_whose_drive_the_notebook_mounted(cloud, machine):
    machine.run_cell(MOUNT.format("/content/drive")).check()
    script = WRITE.format("/content/drive") + RELEASE + "\nprint('went on')"
    with machine.start([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as ended:
        said = [next(line for line in ended.stdout if FLUSHES in line)]
        machine.drive.change(upload_bytes_per_s=None)
        said += ended.stdout
        machine.wait_until_ended()
    assert said[1].startswith("Everything is on Drive. The machine is given back")
    assert "went on\n" not in said
    assert cloud.files() == {"mine.bin": NBYTES}


def test_working_in_a_folder_of_drive_does_not_hold_it(cloud, machine):
    machine.run_cell(MOUNT.format("/content/drive") + WRITE.format("/content/drive")).check()
    machine.run_cell("import os; os.mkdir('/content/drive/MyDrive/project')").check()
    machine.run_cell("%cd /content/drive/MyDrive/project").check()
    ends(machine, RELEASE)
    assert cloud.files() == {"mine.bin": NBYTES}


def test_working_in_a_folder_that_was_removed_meanwhile_does_not_hold_it(cloud, machine):
    machine.run_cell(MOUNT.format("/content/drive") + WRITE.format("/content/drive")).check()
    machine.run_cell("import os; os.mkdir('/content/drive/MyDrive/project')").check()
    machine.run_cell("%cd /content/drive/MyDrive/project\nos.rmdir(os.getcwd())").check()
    ends(machine, RELEASE)
    assert cloud.files() == {"mine.bin": NBYTES}


def test_a_drive_that_cannot_be_flushed_keeps_the_machine_and_its_folder(cloud, machine):
    machine.run_cell(MOUNT.format("/content/drive") + "%cd /content/drive/MyDrive").check()
    machine.run_cell("held = open('held', 'w')").check()
    error = machine.run_cell("import colabkit\ncolabkit.release(timeout_s=2)").error
    assert error.startswith("StorageError: Drive at /content/drive could not be flushed")
    assert machine.run_cell("import os; os.getcwd()").result == "'/content/drive/MyDrive'"
    machine.run_cell("held.close()").check()
    ends(machine, RELEASE)


def test_a_drive_that_is_looked_into_for_a_moment_is_unmounted_after_it(machine):
    machine.drive.change(upload_bytes_per_s=None)
    machine.run_cell(MOUNT.format("/content/drive")).check()
    look = "import os, threading\nlook = os.open('/content/drive/MyDrive', os.O_RDONLY)\n"
    ends(machine, look + "threading.Timer(1, os.close, [look]).start()\n" + RELEASE)


def test_a_drive_that_was_unmounted_cleanly_is_no_reason_to_keep_the_machine(machine):
    machine.run_cell("import colabkit; colabkit.mount()").check()
    machine.run_cell(MOUNT.format("/content/drive") + "drive.flush_and_unmount()").check()
    machine.front_end.answer = Answer.DENIED
    with pytest.raises(MachineEndedError):
        machine.run_cell("colabkit.release()")
    machine.wait_until_ended()


def test_a_drive_that_died_with_uploads_under_way_is_mounted_again_first(cloud, machine):
    machine.run_cell("import colabkit; colabkit.mount()").check()
    machine.run_cell(WRITE.format("/content/drive")).check()
    machine.drive.kill_mount()
    ends(machine, "colabkit.release()")
    assert cloud.files() == {"mine.bin": NBYTES}


@pytest.mark.parametrize(
    "cell", [MOUNT.format("/content/drive"), "import colabkit\ncolabkit.mount()\n"]
)
def test_a_drive_that_died_and_stays_dead_keeps_the_machine(machine, cell):
    machine.run_cell(cell + WRITE.format("/content/drive")).check()
    machine.drive.kill_mount()
    machine.front_end.answer = Answer.DENIED
    assert machine.run_cell(RELEASE).error.startswith("DriveLostError")
    assert "unassign" not in [each["type"] for each in machine.front_end.requests]


def test_run_all_does_not_go_on_while_the_machine_ends(machine):
    machine.front_end.ends_after_s = 3.0
    release = machine.kernel.begin(RELEASE)
    following = machine.kernel.begin("print('it went on')")
    with pytest.raises(MachineEndedError):
        machine.kernel.finish(release)
    with pytest.raises(MachineEndedError):
        machine.kernel.finish(following)


def test_without_a_network_the_machine_is_kept_in_our_words(machine):
    machine.front_end.has_network = False
    error = machine.run_cell(RELEASE).error
    assert error.startswith("MachineReleaseError: The machine could not be given back")
    assert "Unable to find the server" in error
