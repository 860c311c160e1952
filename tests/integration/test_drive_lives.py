"""setup → fit on machines that are killed: nothing that was said to be safe is ever lost."""

from __future__ import annotations

import random

import pytest

from tests.integration.training import SETUP, Diary, digest_in, said_in, train_cell

LIVES = 5


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path / "diary")


def uninterrupted(cloud, diary, **options) -> str:
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    cell = train_cell(diary, **{"ckpt_dir": "MyDrive/runs/whole", "pause_s": 0, **options})
    digest = digest_in(machine.run_cell(cell).check())
    machine.kill()
    diary.clear()
    return digest


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_instants_a_run_ends_as_if_it_never_was(cloud, diary, seed):
    expected = uninterrupted(cloud, diary, epochs=40)
    instants = random.Random(seed)
    safe = 0
    for _ in range(LIVES):
        machine = cloud.machine(visible=[diary.folder])
        machine.run_cell(SETUP).check()
        machine.kernel.begin(train_cell(diary, epochs=40))
        wanted = safe
        diary.wait_for(lambda notes, wanted=wanted: (notes[-1].confirmed or 0) > wanted)
        wanted = instants.randrange(30)
        diary.wait_for(lambda notes, wanted=wanted: len(notes) >= wanted, timeout_s=30)
        machine.kill()
        notes = diary.notes()
        if safe:
            # It began no earlier than what was said to be uploaded when the last one was killed.
            assert notes[0].step - 1 >= safe
        safe = notes[-1].confirmed
        diary.clear()
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    last = machine.run_cell(train_cell(diary, epochs=40, pause_s=0)).check()
    assert "Resumed at epoch" in said_in(last)
    assert diary.notes()[0].step - 1 >= safe
    assert digest_in(last) == expected
