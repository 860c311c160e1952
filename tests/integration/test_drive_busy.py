"""A lost Drive comes back although somebody works in one of its folders or holds a file of it."""

from __future__ import annotations

import pytest

from tests.colab_vm import MountOutcome
from tests.integration.training import Diary, said_in, train_cell

PROJECT = "/content/drive/MyDrive/project"
HOLDS = {
    "working folder of setup": "colabkit.setup(workdir='MyDrive/project')",
    "%cd": "colabkit.setup()\n%cd " + PROJECT,
    "an open file": f"colabkit.setup()\nheld = open('{PROJECT}/notes', 'w')",
}


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path / "diary")


@pytest.fixture
def machine(cloud, diary):
    cloud.path("project").mkdir(parents=True)
    return cloud.machine(visible=[diary.folder])


def listed(machine) -> int:
    look = "print(open('/proc/mounts').read().count('fuse.drive'))"
    return int(machine.run_script(look).check().stdout)


@pytest.mark.parametrize("how", list(HOLDS))
def test_a_lost_drive_comes_back_by_the_same_cell_and_to_the_same_folder(machine, how):
    machine.run_cell(f"import colabkit, os\n{HOLDS[how]}").check()
    folder = machine.run_cell("os.getcwd()").result
    machine.drive.kill_mount()
    shown = machine.run_cell("colabkit.mount()").check()
    assert "mounted, /content/drive/MyDrive" in shown.result
    assert listed(machine) == 1
    assert machine.run_cell("os.getcwd()").result == folder
    machine.run_cell(f"open('{PROJECT}/new', 'w').write('x'); os.listdir()").check()


def test_after_tries_that_failed_it_comes_back_all_the_same(machine):
    machine.run_cell("import colabkit, os; colabkit.setup(workdir='MyDrive/project')").check()
    machine.drive.will_mount(MountOutcome.FAILED, MountOutcome.FAILED)
    machine.drive.kill_mount()
    for _ in range(2):
        error = machine.run_cell("colabkit.mount()").error
        assert error.startswith("DriveMountError")
        assert "delete" not in error
        # What is written by a relative path must fail: it would end with this machine.
        assert machine.run_cell("open('stray', 'w')").error.startswith("FileNotFoundError")
    machine.run_cell("colabkit.mount()").check()
    assert machine.run_cell("os.getcwd()").result == f"'{PROJECT}'"
    machine.run_cell("open('kept', 'w').close()").check()
    assert machine.path(f"{PROJECT}/kept").exists()


def test_who_went_elsewhere_meanwhile_stays_there(machine):
    machine.run_cell("import colabkit, os; colabkit.setup(workdir='MyDrive/project')").check()
    machine.drive.will_mount(MountOutcome.FAILED)
    machine.drive.kill_mount()
    assert machine.run_cell("colabkit.mount()").error is not None
    machine.run_cell("%cd /content/sample_data").check()
    machine.run_cell("colabkit.mount()").check()
    assert machine.run_cell("os.getcwd()").result == "'/content/sample_data'"


def test_a_mount_lost_in_training_comes_back_while_the_project_lies_on_it(cloud, diary, machine):
    machine.run_cell("import colabkit; colabkit.setup(workdir='MyDrive/project')").check()
    diary.slow_from(60)
    cell = machine.kernel.begin(train_cell(diary, epochs=20, ckpt_dir="runs/a", pause_s=0.02))
    diary.wait_for(lambda notes: notes[-1].confirmed)
    machine.drive.kill_mount()
    diary.let_go()
    result = machine.kernel.finish(cell).check()
    assert said_in(result).count("Drive was lost and is mounted again") == 1
    machine.drive.wait_until_uploaded()
    assert any(name.startswith("project/runs/a/checkpoints/") for name in cloud.files())
