"""How long a run says that it is, in the line that it leaves standing."""

from __future__ import annotations

import re

import numpy as np
import pytest

import colabkit

TRAINING, VALIDATION = [np.ones((4, 2))] * 6, [np.ones((4, 2))] * 3


@pytest.fixture
def last_line(capfd):
    """What the newest bar left standing, its values apart."""
    return lambda: re.findall(r"(Epoch .*), \S+ steps/s", capfd.readouterr().err)[-1]


def trained(folder, *, epochs, training=TRAINING, passes=(VALIDATION,), most=None):
    run = colabkit.Run(folder, seed=1)
    for _ in run.epochs(epochs):
        for data in (training, *passes):
            for number, _ in enumerate(run.batches(data), 1):
                run.log(value=1.0)
                if number == most:
                    break


def test_an_epoch_is_as_long_as_all_its_passes(tmp_path, last_line):
    trained(tmp_path, epochs=2)
    assert last_line() == "Epoch 2 of 2, batch 9 of 9, step 18 of 18"


def test_a_resume_counts_on_from_the_steps_that_are_done(tmp_path, last_line):
    trained(tmp_path, epochs=2, passes=())
    trained(tmp_path, epochs=4, training=VALIDATION, passes=())
    assert last_line() == "Epoch 4 of 4, batch 3 of 3, step 18 of 18"


def test_loops_that_leave_each_pass_early_come_to_their_end(tmp_path, last_line):
    trained(tmp_path, epochs=2, most=2)
    assert last_line() == "Epoch 2 of 2, batch 4 of 5, step 8 of 8"
