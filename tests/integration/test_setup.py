"""setup, mount and release on every kind of machine: one card that says what is and what is not."""

from __future__ import annotations

import json

import pytest

from tests.abilities import CPU_TORCH
from tests.colab_vm import Answer, DriveRules, MachineEndedError, MountOutcome, Platform

SETUP = "import colabkit\nsession = colabkit.setup()\nsession"
FACTS = """
import json, os
print(json.dumps({
    "device": session.device.kind.value, "drive": session.drive.state.name,
    "platform": session.platform.name, "precision": session.precision,
    "workdir": str(session.workdir), "mounted": os.path.ismount("/content/drive"),
}))
"""


def facts(machine) -> dict:
    return json.loads(machine.run_cell(FACTS).check().stdout)


def test_on_colab_drive_is_mounted_and_the_card_says_all(cloud):
    machine = cloud.machine()
    shown = machine.run_cell(SETUP).check()
    assert facts(machine) == {
        "device": "cpu",
        "drive": "MOUNTED",
        "platform": "COLAB",
        "precision": "fp32",
        "workdir": "/content",
        "mounted": True,
    }
    assert "Google Colab, machine up" in shown.result
    assert "Runtime → Change runtime type → T4 GPU" in shown.result
    assert "mounted, /content/drive/MyDrive" in shown.result
    assert "12 h" in shown.result or "11 h 5" in shown.result
    assert "text/html" in shown.data[-1]
    assert shown.stdout == ""


def test_again_it_asks_nobody_and_mounts_nothing(cloud):
    machine = cloud.machine()
    machine.run_cell(SETUP).check()
    asked = len(machine.front_end.requests)
    machine.front_end.answer = Answer.DENIED
    machine.run_cell(SETUP).check()
    assert len(machine.front_end.requests) == asked
    assert facts(machine)["drive"] == "MOUNTED"


def test_a_mount_made_by_hand_is_taken_over(cloud):
    machine = cloud.machine()
    machine.run_cell("from google.colab import drive; drive.mount('/content/drive')").check()
    asked = len(machine.front_end.requests)
    machine.run_cell(SETUP).check()
    assert len(machine.front_end.requests) == asked
    assert facts(machine)["drive"] == "MOUNTED"


def test_without_access_it_says_why_and_goes_on(cloud):
    machine = cloud.machine()
    machine.front_end.answer = Answer.DENIED
    shown = machine.run_cell(SETUP).check()
    assert "access to Drive was refused" in shown.result
    assert shown.result.count("Run the cell again and allow access") == 1
    assert facts(machine)["drive"] == "ABSENT"
    machine.front_end.answer = Answer.CONSENT
    machine.run_cell(SETUP).check()
    assert facts(machine)["drive"] == "MOUNTED"


def test_with_nobody_at_the_browser_it_says_so(cloud):
    machine = cloud.machine()
    machine.front_end.answer = Answer.NOBODY
    error = machine.run_cell("import colabkit; colabkit.mount(timeout_s=2)").error
    assert "nobody answered the question for access" in error
    assert "answer the question in the notebook's page" in error


def test_with_nobody_at_the_browser_setup_says_within_seconds_what_it_waits_for(cloud):
    machine = cloud.machine()
    machine.front_end.answer = Answer.NOBODY
    cell = machine.kernel.begin(SETUP)
    machine.kernel.wait_for_text(cell, "Waiting up to 120 s for access to Drive")
    machine.interrupt()
    assert machine.kernel.finish(cell).error.startswith("KeyboardInterrupt")


def test_a_lost_mount_is_mounted_again_by_the_same_cell(cloud):
    machine = cloud.machine()
    machine.run_cell(SETUP).check()
    machine.drive.kill_mount()
    machine.run_cell(SETUP).check()
    assert facts(machine)["drive"] == "MOUNTED"
    machine.run_cell("import os; os.listdir('/content/drive/MyDrive')").check()


def test_a_mount_that_fails_is_an_error_of_mount_and_a_line_of_setup(cloud):
    machine = cloud.machine()
    machine.drive.will_mount(then=MountOutcome.FAILED)
    assert "Drive is not mounted at /content/drive" in machine.run_cell(SETUP).check().result
    error = machine.run_cell("colabkit.mount()").error
    assert error.startswith("DriveMountError: Drive is not mounted at /content/drive: Drive's own")


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        (Platform.KAGGLE, "/kaggle/working/run"),
        (Platform.LOCAL, "Pass any folder as ckpt_dir"),
        (Platform.ENTERPRISE, "gs://bucket/run"),
    ],
)
def test_elsewhere_it_says_where_to_save_instead(cloud, platform, words):
    machine = cloud.machine(platform)
    shown = machine.run_cell(SETUP).check()
    assert words in shown.result
    assert facts(machine)["drive"] == "ABSENT"


@pytest.mark.needs(CPU_TORCH)
def test_a_gpu_that_torch_cannot_use_is_told(cloud):
    shown = cloud.machine(Platform.GPU).run_cell(SETUP).check()
    assert "PyTorch" in shown.result
    assert "CPU" in shown.result


def test_a_required_gpu_that_is_missing_ends_the_cell(cloud):
    error = cloud.machine().run_cell("import colabkit; colabkit.setup(gpu='require')").error
    assert error.startswith("GpuUnavailableError")
    assert "Runtime → Change runtime type" in error


def test_without_a_notebook_setup_says_what_is_missing(cloud):
    script = cloud.machine().run_script("import colabkit; print(colabkit.setup())")
    assert script.check().returncode == 0
    assert "there is no notebook to ask for access" in script.stdout


def test_a_folder_to_work_in_becomes_the_current_one_and_importable(cloud):
    machine = cloud.machine()
    cloud.path("project").mkdir(parents=True)
    cloud.path("project/ours.py").write_text("ANSWER = 42\n")
    cell = "import colabkit\nsession = colabkit.setup(workdir='MyDrive/project')\nimport ours\n"
    assert machine.run_cell(cell + "ours.ANSWER").check().result == "42"
    assert facts(machine)["workdir"] == "/content/drive/MyDrive/project"
    wrong = machine.run_cell("colabkit.setup(workdir='MyDrive/projct')").error
    assert "There is no such folder" in wrong


def test_a_run_on_the_dying_disk_is_warned_of_once(cloud):
    machine = cloud.machine()
    machine.run_cell(SETUP).check()
    train = (
        "import torch\nx = torch.zeros(32, 2)\n"
        "h = colabkit.fit(torch.nn.Linear(2, 1), (x, x[:, :1]), {!r}, epochs=1)"
    )
    shown = machine.run_cell(train.format("runs/a")).check()
    assert shown.stdout.count("is on this machine's own disk, which goes away with it") == 1
    assert "own disk" not in machine.run_cell(train.format("MyDrive/runs/a")).check().stdout


def test_training_into_a_shared_drive_that_is_not_mounted_writes_nothing(cloud):
    machine = cloud.machine()
    error = machine.run_cell(
        "import colabkit, torch\nx = torch.zeros(32, 2)\n"
        "colabkit.fit(torch.nn.Linear(2, 1), (x, x[:, :1]), '/content/drive/Shareddrives/T/run')"
    ).error
    assert error.startswith("DriveLostError: /content/drive/Shareddrives/T/run is on Drive, which")
    assert not machine.path("/content/drive").exists()


def test_release_waits_for_the_upload_and_ends_the_machine(cloud):
    machine = cloud.machine(rules=DriveRules(upload_delay_s=1.5))
    machine.run_cell(SETUP).check()
    machine.run_cell(
        "import torch\nx = torch.zeros(32, 2)\n"
        "h = colabkit.fit(torch.nn.Linear(2, 1), (x, x[:, :1]), 'MyDrive/runs/a', epochs=1)"
    ).check()
    with pytest.raises(MachineEndedError):
        machine.run_cell("colabkit.release()")
    machine.wait_until_ended()
    assert any(name.startswith("runs/a/checkpoints/") for name in cloud.files())
    again = cloud.machine()
    again.run_cell(SETUP).check()
    listing = "[info.problem for info in colabkit.checkpoints('MyDrive/runs/a', verify=True)]"
    assert "''" in again.run_cell(listing).check().result


def test_release_keeps_a_machine_whose_drive_does_not_upload(cloud):
    machine = cloud.machine(rules=DriveRules(upload_bytes_per_s=0))
    machine.run_cell(SETUP).check()
    machine.run_cell(
        "import torch\nx = torch.zeros(32, 2)\n"
        "h = colabkit.fit(torch.nn.Linear(2, 1), (x, x[:, :1]), 'MyDrive/runs/a', epochs=1)"
    ).check()
    error = machine.run_cell("colabkit.release(timeout_s=2)").error
    assert error.startswith("StorageError: After 2 s Drive has not uploaded")
    assert "The machine is kept" in error
    assert machine.is_alive


def test_elsewhere_there_is_nothing_to_give_back(cloud):
    shown = cloud.machine(Platform.KAGGLE).run_cell("import colabkit; colabkit.release()").check()
    assert "there is nothing to give back" in shown.stdout


def test_drive_can_be_mounted_to_be_read_only_and_is_then_kept_so(cloud):
    cloud.path("cats").mkdir(parents=True)
    machine = cloud.machine()
    readonly = "mounted to be read only, /content/drive/MyDrive"
    assert readonly in machine.run_cell("import colabkit\ncolabkit.mount(readonly=True)").result
    machine.drive.kill_mount()
    for cell in ("colabkit.mount()", SETUP):
        assert readonly in machine.run_cell(cell).check().result
    machine.restart_kernel()
    assert readonly in machine.run_cell(SETUP).check().result
    fit = "import torch\nx = torch.zeros(8, 2)\ncolabkit.fit(torch.nn.Linear(2, 2), (x, x), {!r})"
    error = machine.run_cell(fit.format("MyDrive/runs/a")).error
    assert error.startswith("StorageError: Drive at /content/drive is mounted to be read only.")
    assert "Run colabkit.mount(readonly=False)" in error
    # Once it is written to, that stays so, also when it is lost.
    for how in ("False", "True"):
        shown = machine.run_cell(f"colabkit.mount(readonly={how})").check()
        assert "mounted, /content/drive/MyDrive" in shown.result
    machine.drive.kill_mount()
    machine.run_cell("colabkit.mount()").check()
    machine.run_cell("open('/content/drive/MyDrive/cats/1', 'w').close()").check()
