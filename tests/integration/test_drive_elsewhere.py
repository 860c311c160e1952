"""Drive is one on a machine: where it is mounted already it is used, by whatever path."""

from __future__ import annotations

import json

import pytest

from tests.colab_vm import Answer
from tests.integration.training import SETUP, Diary, epochs_past, train_cell

BY_HAND = "from google.colab import drive; drive.mount('/content/gdrive')"
FIT = """
import colabkit, torch
x = torch.zeros(32, 2)
h = colabkit.fit(torch.nn.Linear(2, 1), (x, x[:, :1]), {!r}, epochs=1)
"""


@pytest.fixture
def machine(cloud):
    return cloud.machine()


def is_alive(machine, mountpoint: str) -> bool:
    look = f"import os; os.path.isdir('{mountpoint}/MyDrive')"
    return machine.run_cell(look).check().result == "True"


@pytest.mark.parametrize(
    "cell", [SETUP, "import colabkit\ncolabkit.mount()", "colabkit.mount('/content/drive')"]
)
def test_a_drive_mounted_at_another_place_is_taken_over_and_lives_on(machine, cell):
    machine.run_cell(f"{BY_HAND}\nimport colabkit").check()
    asked = len(machine.front_end.requests)
    machine.front_end.answer = Answer.DENIED
    shown = machine.run_cell(cell).check()
    assert "mounted, /content/gdrive/MyDrive" in shown.result
    assert len(machine.front_end.requests) == asked
    assert is_alive(machine, "/content/gdrive")


def test_a_third_place_is_refused_before_it_cuts_the_first_off(machine):
    machine.run_cell(BY_HAND).check()
    error = machine.run_cell("import colabkit; colabkit.mount('/content/mine')").error
    assert "Drive is mounted at /content/gdrive" in error
    assert "Pass no mountpoint" in error
    assert is_alive(machine, "/content/gdrive")


def test_a_mount_made_by_hand_after_ours_takes_its_place(machine):
    machine.run_cell(SETUP).check()
    machine.run_cell(BY_HAND).check()
    assert "mounted, /content/gdrive/MyDrive" in machine.run_cell(SETUP).check().result
    assert is_alive(machine, "/content/gdrive")
    # Both names are of the one Drive, and neither lands on the machine's own disk.
    machine.run_cell(FIT.format("/content/drive/MyDrive/runs/a")).check()
    assert machine.path("/content/gdrive/MyDrive/runs/a/checkpoints").is_dir()


def test_a_dead_mount_at_another_place_is_mounted_again_there(machine):
    machine.run_cell(BY_HAND).check()
    machine.drive.kill_mount()
    assert "mounted, /content/gdrive/MyDrive" in machine.run_cell(SETUP).check().result


def test_the_doctor_sees_it(machine):
    machine.run_cell(BY_HAND).check()
    shown = machine.run_script(
        "from colabkit.__main__ import main\nmain(['doctor', 'MyDrive/runs/cats', '--json'])"
    )
    told = json.loads(shown.stdout)
    assert told["drive"] == "mounted"
    assert told["run_folder"]["path"] == "/content/gdrive/MyDrive/runs/cats"


def test_the_habitual_path_is_drive_on_the_next_machine_too(cloud, machine):
    machine.run_cell(BY_HAND).check()
    machine.run_cell(FIT.format("/content/gdrive/MyDrive/runs/a")).check()
    machine.drive.wait_until_uploaded()
    machine.kill()
    again = cloud.machine()
    again.run_cell(SETUP).check()
    cell = FIT.format("/content/gdrive/MyDrive/runs/a").replace("epochs=1", "epochs=2")
    shown = again.run_cell(cell).check()
    assert "Resumed" in shown.stdout
    assert not again.path("/content/gdrive").exists()


WAYS = {
    "as it is": ("", "/content/gdrive/MyDrive/runs/{0}"),
    "link": (
        "os.symlink('/content/gdrive/MyDrive/runs/link', '/content/mine')",
        "/content/mine",
    ),
    "linked folder": ("os.symlink('/content/gdrive/MyDrive', 'shortcut')", "shortcut/runs/{0}"),
    "working folder": ("os.chdir('/content/gdrive/MyDrive')", "runs/{0}"),
}


def test_a_run_folder_on_drive_is_never_called_uploaded_before_it_is(cloud, tmp_path):
    diary = Diary(tmp_path / "diary")
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(f"{BY_HAND}\nimport os; os.makedirs('/content/gdrive/MyDrive/runs/link')")
    machine.drive.change(upload_bytes_per_s=0)
    for way, (made, folder) in WAYS.items():
        diary.clear()
        machine.run_cell(made).check()
        place = folder.format(way[0])
        cell = train_cell(diary, ckpt_dir=place, epochs=20, save_every="0.1s", pause_s=0.02)
        diary.slow_from(30)
        running = machine.kernel.begin(cell)
        diary.wait_for(lambda notes: notes[-1].committed is not None)
        diary.let_go()
        machine.kernel.finish(running).check()
        notes = diary.notes()
        assert notes[-1].committed is not None, way
        assert {note.confirmed for note in notes} == {None}, way
        # Of several the next waits until the one before has arrived.
        assert len({note.committed for note in notes} - {None}) == 1, way
    assert not any("checkpoints" in name for name in cloud.files())
    machine.drive.change(upload_bytes_per_s=None)
    machine.drive.wait_until_uploaded()
    folders = {name.split("/")[1] for name in cloud.files() if "/checkpoints/" in name}
    assert folders == {"a", "link", "l", "w"}


@pytest.mark.parametrize("way", ["as it is", "link"])
def test_what_is_uploaded_stays_until_what_follows_it_is(cloud, tmp_path, way):
    made, folder = WAYS[way]
    diary = Diary(tmp_path / "diary")
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(f"{BY_HAND}\nimport os; os.makedirs('/content/gdrive/MyDrive/runs/link')")
    machine.run_cell(made).check()
    place = folder.format("a")
    cell = train_cell(diary, ckpt_dir=place, epochs=2, save_every="0.1s", pause_s=0.02)
    machine.run_cell(cell).check()
    machine.drive.wait_until_uploaded()
    # From here on Drive takes names and deletions, as ever, but no file's bytes arrive.
    machine.drive.change(upload_bytes_per_s=1)
    machine.kernel.begin(cell.replace("epochs=2", "epochs=400"))
    diary.wait_for(lambda notes: notes[-1].step > 80)
    machine.kill()
    again = cloud.machine(visible=[diary.folder])
    again.run_cell(f"{BY_HAND}\nimport os").check()
    again.run_cell(made).check()
    diary.clear()
    again.run_cell(cell.replace("epochs=2", "epochs=3")).check()
    assert diary.notes()[0].step == 21


def test_what_waits_on_this_machine_is_found_when_drive_is_mounted_at_another_place(
    cloud, tmp_path
):
    diary = Diary(tmp_path / "diary")
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell("import colabkit; colabkit.mount('/content/mine')").check()
    running = machine.kernel.begin(train_cell(diary, epochs=400, pause_s=0.01))
    diary.wait_for(lambda notes: notes[-1].confirmed)
    machine.front_end.answer = Answer.DENIED
    machine.drive.kill_mount()
    trained = diary.notes()[-1].step
    diary.wait_for(lambda notes: notes[-1].step > trained + 60)
    machine.interrupt()
    assert machine.kernel.finish(running).error.startswith("CheckpointWriteError")
    stopped_at = diary.notes()[-1].step
    machine.front_end.answer = Answer.SILENT
    machine.restart_kernel()
    # The habit of a lifetime: another mountpoint than the one before.
    machine.run_cell("from google.colab import drive; drive.mount('/content/drive')").check()
    diary.clear()
    go_on = train_cell(diary, epochs=epochs_past(stopped_at), pause_s=0)
    machine.run_cell(go_on).check()
    assert diary.notes()[0].step == stopped_at + 1
