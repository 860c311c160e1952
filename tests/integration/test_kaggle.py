"""Kaggle on the double: inputs by name, the working folder as the volume, two GPUs."""

from __future__ import annotations

import json

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
