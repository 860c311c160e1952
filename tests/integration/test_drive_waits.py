"""A lost Drive in other hands: a script's, a person's who stops the wait, workers' of a loader."""

from __future__ import annotations

import time

import pytest

from tests.colab_vm import Answer
from tests.integration.training import SETUP, Diary, epochs_past, train_cell


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path / "diary")


@pytest.fixture
def machine(cloud, diary):
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    return machine


def test_a_drive_lost_while_a_script_trains_is_mounted_again_by_its_notebook(cloud, diary, machine):
    script = train_cell(diary, epochs=40, pause_s=0.01)
    machine.path("/content/train.py").write_text(script)
    diary.slow_from(60)
    cell = machine.kernel.begin("colabkit.run_script('/content/train.py')")
    diary.wait_for(lambda notes: notes[-1].confirmed)
    machine.drive.kill_mount()
    diary.slow_from(150)
    diary.wait_for(lambda notes: (notes[-1].confirmed or 0) > 60)
    diary.let_go()
    result = machine.kernel.finish(cell).check()
    assert "Drive was lost and is mounted again." in result.stdout
    machine.drive.wait_until_uploaded()
    assert any(name.startswith("runs/a/checkpoints/") for name in cloud.files())


def test_stop_while_drive_asks_gives_the_cell_back_within_5_s_and_loses_nothing(diary, machine):
    cell = machine.kernel.begin(train_cell(diary, epochs=400, pause_s=0.01))
    diary.wait_for(lambda notes: notes[-1].confirmed)
    machine.front_end.answer = Answer.NOBODY
    asked = len(machine.front_end.requests)
    machine.drive.kill_mount()
    while len(machine.front_end.requests) == asked:
        time.sleep(0.02)
    # Nobody answers for 30 s.
    began_s = time.monotonic()
    machine.interrupt()
    result = machine.kernel.finish(cell)
    assert time.monotonic() - began_s < 20
    assert result.error.startswith("CheckpointWriteError")
    assert "It is whole in /root/.cache/colabkit/spool/" in result.error
    machine.front_end.answer = Answer.SILENT
    machine.run_cell("colabkit.mount()").check()
    stopped_at = diary.notes()[-1].step
    diary.clear()
    go_on = train_cell(diary, epochs=epochs_past(stopped_at), pause_s=0)
    machine.run_cell(go_on).check()
    assert diary.notes()[0].step == stopped_at + 1


@pytest.mark.parametrize("place", ["colabkit.mount()", "colabkit.setup()"])
def test_stop_in_a_plain_mount_is_an_interrupt_and_the_next_try_is_asked(machine, place):
    machine.drive.kill_mount()
    machine.front_end.answer = Answer.NOBODY
    cell = machine.kernel.begin(place)
    machine.kernel.wait_for_text(cell, "Waiting up to 120 s for access to Drive")
    machine.interrupt()
    assert machine.kernel.finish(cell).error.startswith("KeyboardInterrupt")
    machine.front_end.answer = Answer.SILENT
    assert "mounted, /content/drive/MyDrive" in machine.run_cell(place).check().result
