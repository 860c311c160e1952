"""Kaggle on the double: inputs by name, the working folder as the volume, two GPUs."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.colab_vm import Platform

TWO_T4 = """#!/bin/sh
case "$*" in
  *--query-gpu=*)
    echo "GPU-1, Tesla T4, 15360, 15095, 550.54.15, [N/A], 7.5"
    echo "GPU-2, Tesla T4, 15360, 15095, 550.54.15, [N/A], 7.5" ;;
  *--query-compute-apps=*) ;;
  *) echo "NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4" ;;
esac
"""
FIT = """
import colabkit, torch
torch.manual_seed(0)
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
model = torch.nn.Linear(8, 3)
h = colabkit.fit(model, (x, y), {folder!r}, epochs={epochs}, batch_size=16)
print(h.epochs[-1]["loss"], float(model.weight.sum()), len(h.epochs))
"""
# The driver is asked as ever; PyTorch has no CUDA here, so that nobody confirms what it says.
LOOK = """
import json
from colabkit.runtime import Probes, detect_device
device = detect_device(probes=Probes(frameworks=()))
print(json.dumps([device.count, device.describe(), list(device.notices)]))
"""


def test_a_dataset_is_an_input_by_its_name(cloud):
    machine = cloud.machine(Platform.KAGGLE)
    folder = machine.path("/kaggle/input/cats")
    folder.mkdir()
    (folder / "a.txt").write_text("cat")
    shown = machine.run_cell(
        'import colabkit\nprint((colabkit.dataset("MyDrive/cats.zip") / "a.txt").read_text())'
    ).check()
    assert shown.stdout.splitlines()[-1] == "cat"
    wrong = machine.run_cell('colabkit.dataset("cat")').error
    assert wrong.startswith("DatasetNotFoundError: There is no cat")


def test_a_run_folder_lies_in_the_working_folder_and_stays_with_a_saved_version(cloud):
    machine = cloud.machine(Platform.KAGGLE)
    code = """
import colabkit
from colabkit.storage import volume_at, warning_about
import numpy as np
volume_at("MyDrive/runs/cats").write("x", [np.zeros(3, np.uint8)])
print(repr(warning_about("MyDrive/runs/cats")))
"""
    assert machine.run_cell(code).check().stdout == "''\n"
    assert machine.path("/kaggle/working/MyDrive/runs/cats/x").stat().st_size == 3


def test_both_gpus_are_seen(cloud):
    files = {"/opt/colab_vm/bin/nvidia-smi": TWO_T4}
    machine = cloud.machine(Platform.KAGGLE, files=files)
    machine.path("/dev/nvidia0").touch()
    count, words, notices = json.loads(machine.run_cell(LOOK).check().stdout)
    assert count == 2
    assert words.startswith("2 × Tesla T4, 15.0 GB each, compute capability 7.5")
    assert "2 GPUs are here; training uses one of them." in notices


def test_there_is_nothing_to_give_back(cloud):
    machine = cloud.machine(Platform.KAGGLE)
    said = machine.run_cell("import colabkit\ncolabkit.release()").check().stdout
    assert said == "This machine is not lent by Colab: there is nothing to give back.\n"


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("my-notebook", "MyDrive/runs/cats"),
        ("notebooks/somebody/my-notebook", "/kaggle/working/run"),
    ],
)
def test_a_run_saved_as_a_version_and_attached_is_gone_on_from_by_the_same_cell(
    cloud, tmp_path, place, folder
):
    pytest.importorskip("torch")
    whole = cloud.machine(Platform.KAGGLE).run_cell(FIT.format(folder=folder, epochs=4)).check()
    first = cloud.machine(Platform.KAGGLE)
    first.run_cell(FIT.format(folder=folder, epochs=2)).check()
    shutil.copytree(first.path("/kaggle/working"), tmp_path / "version")
    first.kill()
    second = cloud.machine(Platform.KAGGLE)
    attached = second.path(f"/kaggle/input/{place}")
    shutil.copytree(tmp_path / "version", attached)
    before = sorted(str(path) for path in attached.rglob("*"))
    shown = second.run_cell(FIT.format(folder=folder, epochs=4)).check().stdout
    assert shown.splitlines()[-1] == whole.stdout.splitlines()[-1]
    assert f"/kaggle/input/{place}" in shown
    assert sorted(str(path) for path in attached.rglob("*")) == before
    # What it goes on from lies in the working folder now, so that the next version has it.
    again = second.run_cell(FIT.format(folder=folder, epochs=4)).check().stdout
    assert again.splitlines()[-1].endswith(" 4")
