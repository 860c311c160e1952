"""run_script on the double: a project on Drive runs on local disk, and its output is kept."""

from __future__ import annotations

import contextlib
import json
import re
import time

import pytest

from tests.abilities import package
from tests.colab_vm import Fault, Platform

MOUNT = "import colabkit\ncolabkit.mount()"
TRAIN = """
import sys, time
from pathlib import Path
from lib.names import name

classes = Path("../shared/classes.txt").read_text().split()
rows = Path("data/x.csv").read_text().split(",")
out = Path("out")
out.mkdir(exist_ok=True)
done = len(list(out.glob("*.txt")))
print(name, classes, rows, "from", done, Path.cwd(), flush=True)
for number in range(done, int(sys.argv[1])):
    (out / f"{number}.txt").write_text(str(number))
    print("wrote", number, flush=True)
    time.sleep(float(sys.argv[2]))
    while number == 1 and Path("/content/hold").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def project(cloud):
    files = {
        "project/train.py": TRAIN,
        "project/lib/names.py": "name = 'cats'",
        "project/data/x.csv": "1,2,3",
        "project/fails.py": "open('half.txt', 'w').write('1')\nraise SystemExit(3)",
        "shared/classes.txt": "cat dog",
    }
    for name, text in files.items():
        cloud.path(name).parent.mkdir(parents=True, exist_ok=True)
        cloud.path(name).write_text(text)


def run(count: int, pause_s: float = 0, **options) -> str:
    told = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'colabkit.run_script("MyDrive/project/train.py", {count}, {pause_s}{told})'


def test_a_project_runs_as_if_it_were_at_home_and_its_output_is_on_drive(cloud, project):
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    shown = machine.run_cell(run(2)).check()
    assert "Copied 4 of the 4 files of project to this machine" in shown.stdout
    assert "cats ['cat', 'dog'] ['1', '2', '3'] from 0 /root/.cache/colabkit/" in shown.stdout
    assert "wrote 0\nwrote 1\n" in shown.stdout
    ended = r"train.py ended after \d+ s; 2 files \(project/out/0.txt, project/out/1.txt\) kept in"
    assert re.search(ended, shown.stdout)
    again = machine.run_cell(run(3)).check()
    assert "The 4 files of project are on this machine already." in again.stdout
    machine.drive.wait_until_uploaded()
    out = "project/kept/latest/project/out"
    names = [name for name in cloud.files() if name.startswith(out)]
    assert names == [f"{out}/0.txt", f"{out}/1.txt", f"{out}/2.txt"]
    module = 'colabkit.run("python", "-m", "lib.names", project="MyDrive/project").path'
    assert machine.run_cell(module).check().result.endswith("MyDrive/project/lib/names.py')")


def kept_count(cloud) -> int:
    """Returns how many files the fullest version has of which the cloud has every byte."""
    files, counts = cloud.files(), [0]
    for name in files:
        # What is looked at may be on its way, or be removed meanwhile.
        with contextlib.suppress(OSError, ValueError):
            # Under its temporary name it may be whole there, and is no version yet.
            if re.fullmatch(r"project/kept/versions/[^.].*\.json", name):
                version = json.loads(cloud.path(name).read_text())["version"]
                blobs = version["blobs"].items()
                if all(
                    files.get(f"project/kept/files/{blob}") == size for blob, (size, _) in blobs
                ):
                    counts.append(version["count"])
    return max(counts)


def test_after_a_kill_the_next_machine_goes_on_with_what_was_kept(cloud, project):
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    machine.kernel.begin(run(100_000, 0.05, save_every_s=0.2))
    while kept_count(cloud) < 6:
        assert machine.is_alive
        time.sleep(0.05)
    machine.kill()
    second = cloud.machine()
    second.run_cell(MOUNT).check()
    shown = second.run_cell(run(1, 0, save_every_s=60)).check()
    assert int(re.search(r"from (\d+) /root", shown.stdout)[1]) >= 5


def test_an_interrupt_and_a_failure_still_keep_the_output(cloud, project):
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    cell = machine.kernel.begin(run(1000, 0.05))
    machine.kernel.wait_for_text(cell, "wrote 1")
    machine.interrupt()
    ended = machine.kernel.finish(cell)
    assert ended.error.startswith("KeyboardInterrupt")
    assert "train.py was interrupted after" in ended.stdout
    failed = machine.run_cell('colabkit.run("python MyDrive/project/fails.py MyDrive/a.csv")')
    assert re.match(r"ScriptError: fails.py ended with status 3 after \d+ s\.", failed.error)
    assert "no MyDrive/a.csv: pass /content/drive/MyDrive/a.csv" in failed.error
    machine.drive.wait_until_uploaded()
    latest = "project/kept/latest/project"
    assert {f"{latest}/out/1.txt", f"{latest}/half.txt"} <= set(cloud.files())


def test_a_wrong_name_and_an_unmounted_drive_say_what_to_do(cloud, project):
    machine = cloud.machine()
    unmounted = machine.run_cell("import colabkit\n" + run(1)).error
    assert "is on Drive, which is not mounted at /content/drive." in unmounted
    assert "Run colabkit.setup() or colabkit.mount() first" in unmounted
    machine.run_cell(MOUNT).check()
    wrong = machine.run_cell('colabkit.run_script("MyDrive/project/trian.py")').error
    assert "ScriptNotFoundError: There is no script MyDrive/project/trian.py" in wrong
    assert "Did you mean 'train.py' in /content/drive/MyDrive/project?" in wrong


def test_output_that_drive_does_not_take_is_kept_named_and_saved_next_time(cloud, project):
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    machine.drive.inject(Fault("create", "MyDrive/project/kept/files/*", (28,)))
    error = machine.run_cell(run(1)).error
    assert error.startswith("StorageError: /root/.cache/colabkit/projects/")
    assert "is not in /content/drive/MyDrive/project/kept as it is: The disk of" in error
    assert "It is whole on this machine: 1 file or folder waits" in error
    machine.drive.heal()
    machine.run_cell(run(1)).check()
    machine.drive.wait_until_uploaded()
    assert "project/kept/latest/project/out/0.txt" in cloud.files()


def test_a_drive_lost_meanwhile_is_mounted_again_before_the_output_is_saved(cloud, project):
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    hold = machine.path("/content/hold")
    hold.touch()
    cell = machine.kernel.begin(run(30))
    machine.kernel.wait_for_text(cell, "wrote 1")
    machine.drive.kill_mount()
    hold.unlink()
    shown = machine.kernel.finish(cell).check()
    assert "30 files (project/out/0.txt" in shown.stdout
    machine.drive.wait_until_uploaded()
    assert "project/kept/latest/project/out/29.txt" in cloud.files()


def test_a_full_disk_of_the_machine_is_found_before_anything_is_copied(cloud, project):
    cloud.path("project/big.bin").write_bytes(bytes(40_000_000))
    machine = cloud.machine(disk_bytes=220_000_000)
    machine.run_cell(MOUNT).check()
    error = machine.run_cell(run(1)).error
    assert error.startswith("DiskFullError: The project needs 40 MB on this machine's disk, of")


def test_a_script_of_a_kaggle_input_leaves_its_output_in_the_working_folder(cloud):
    machine = cloud.machine(Platform.KAGGLE)
    project = machine.path("/kaggle/input/datasets/someone/my-project")
    project.mkdir(parents=True)
    (project / "go.py").write_text("open('out.txt', 'w').write(open('x.csv').read())")
    (project / "x.csv").write_text("1,2")
    shown = machine.run_cell('import colabkit\ncolabkit.run_script("my-project/go.py")').check()
    assert "1 file (my-project/out.txt) kept in /kaggle/working/my-project/kept" in shown.stdout
    kept = "/kaggle/working/my-project/kept/latest/my-project/out.txt"
    assert machine.path(kept).read_text() == "1,2"


TRAINING = """
import os, time
import colabkit, torch

def slowly(event):
    if event.name == "batch_end":
        time.sleep(1.0 if os.path.exists("/content/doomed") else 0)

model = torch.nn.Linear(4, 2)
torch.manual_seed(0)
data = torch.randn(64, 4), torch.randint(0, 2, (64,))
colabkit.fit(model, data, "MyDrive/runs/a", epochs=60, save_every=5, callbacks=[slowly])
"""


def test_a_training_in_a_script_goes_on_when_the_script_is_run_again(cloud):
    package("torch").require()
    cloud.path("project").mkdir()
    cloud.path("project/train.py").write_text(TRAINING)
    run = 'colabkit.run_script("MyDrive/project/train.py")'
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    machine.path("/content/doomed").touch()
    cell = machine.kernel.begin(run)
    machine.kernel.wait_for_text(cell, "Resume is exact")
    machine.interrupt()
    ended = machine.kernel.finish(cell)
    assert "Interrupted at step" in ended.stdout + ended.stderr
    machine.drive.wait_until_uploaded()
    machine.kill()
    second = cloud.machine()
    second.run_cell(MOUNT).check()
    shown = second.run_cell(run).check()
    assert "Resumed at epoch" in shown.stdout + shown.stderr


def test_modules_edited_on_drive_are_reloaded_on_request(cloud):
    cloud.path("project").mkdir()
    cloud.path("project/model.py").write_text("def size(): return 1")
    machine = cloud.machine()
    setup = 'import colabkit\nsession = colabkit.setup(gpu=False, workdir="MyDrive/project")'
    machine.run_cell(f"{setup}\nfrom model import size").check()
    machine.run_cell("open('model.py', 'w').write('def size(): return 2')").check()
    shown = machine.run_cell("names = colabkit.reload()\nsize()").check()
    assert shown.result == "2"
    assert shown.stdout == "Reloaded model.\n"
