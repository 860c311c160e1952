"""setup → fit on machines that are killed: nothing that was said to be safe is ever lost."""

from __future__ import annotations

import random

import pytest

from tests.integration.training import SETUP, Diary, digest_in, said_in, train_cell, undisturbed

LIVES = 5


@pytest.fixture
def diary(tmp_path):
    return Diary(tmp_path / "diary")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The digest of a run that nothing happened to."""
    return undisturbed(tmp_path_factory.mktemp("undisturbed"), epochs=40)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_instants_a_run_ends_as_if_it_never_was(cloud, diary, expected, seed):
    instants = random.Random(seed)
    safe = 0
    for _ in range(LIVES):
        machine = cloud.machine(visible=[diary.folder])
        machine.run_cell(SETUP).check()
        # However late it is confirmed, the training is not over by then.
        diary.slow_from(safe + 50)
        machine.kernel.begin(train_cell(diary, epochs=40))
        wanted = safe
        diary.wait_for(lambda notes, wanted=wanted: (notes[-1].confirmed or 0) > wanted)
        wanted = instants.randrange(30)
        diary.wait_for(lambda notes, wanted=wanted: len(notes) >= wanted)
        machine.kill()
        notes = diary.notes()
        if safe:
            # It began no earlier than what was said to be uploaded when the last one was killed.
            assert notes[0].step - 1 >= safe
        safe = notes[-1].confirmed
        diary.clear()
    machine = cloud.machine(visible=[diary.folder])
    machine.run_cell(SETUP).check()
    diary.let_go()
    last = machine.run_cell(train_cell(diary, epochs=40, pause_s=0)).check()
    assert "Resumed at epoch" in said_in(last)
    assert diary.notes()[0].step - 1 >= safe
    assert digest_in(last) == expected
