"""A machine is given back when its run is over and safe, and at no other time."""

from __future__ import annotations

import pytest

from tests.abilities import package
from tests.colab_vm import DriveRules, MachineEndedError, Platform

FIT = """
import colabkit, torch
colabkit.mount()
model = torch.nn.Linear(4, 2)
x, y = torch.randn(64, 4), torch.randint(0, 2, (64,))
def fit(epochs=2, **options):
    return colabkit.fit(
        model, (x, y), "MyDrive/runs/a", epochs=epochs, release_when_done=True, **options)
"""
LOOP = """
run = colabkit.Run("MyDrive/runs/b", item=torch.nn.Linear(1, 1), release_when_done=True)
for epoch in run.epochs(2):
    for item in run.items(range(3)):
        pass
"""


@pytest.fixture
def machine(cloud):
    package("torch").require()
    machine = cloud.machine(rules=DriveRules(upload_delay_s=0.5, upload_bytes_per_s=20_000))
    machine.run_cell(FIT).check()
    return machine


def asked(machine) -> list[str]:
    return [request["type"] for request in machine.front_end.requests]


@pytest.mark.parametrize(("cell", "run"), [("history = fit()", "a"), (LOOP, "b")])
def test_after_the_last_epoch_everything_is_on_drive_and_the_machine_ends(
    machine, cloud, cell, run
):
    with pytest.raises(MachineEndedError):
        machine.run_cell(cell)
    machine.wait_until_ended()
    assert any(name.startswith(f"runs/{run}/") for name in cloud.files())
    assert f"runs/{run}/history.csv" in cloud.files()


def test_an_interrupted_a_failed_and_an_empty_run_keep_the_machine(machine):
    stop = """
import os, signal
def stop(event):
    if event.name == "batch_end" and event.step == 1:
        os.kill(os.getpid(), signal.SIGINT)
fit(callbacks=[stop])
"""
    assert "give back" not in machine.run_cell(stop).check().stdout
    fail = "def fail(event):\n    raise RuntimeError('no')\nfit(callbacks=[fail])"
    assert machine.run_cell(fail).error.startswith("RuntimeError: no")
    machine.front_end.refuses_unassign = True
    done = machine.run_cell("history = fit()").check()
    assert "The machine is kept: " in done.stdout
    machine.front_end.refuses_unassign = False
    again = machine.run_cell("colabkit.mount()\nhistory = fit()").check()
    assert "Nothing was trained here: the machine is kept" in again.stdout
    assert "unassign" not in asked(machine)


def test_on_kaggle_it_says_that_there_is_nothing_to_give_back(cloud):
    package("torch").require()
    machine = cloud.machine(Platform.KAGGLE)
    machine.run_cell(FIT.replace("colabkit.mount()\n", "")).check()
    said = machine.run_cell("history = fit()").check().stdout
    assert "there is nothing to give back" in said
