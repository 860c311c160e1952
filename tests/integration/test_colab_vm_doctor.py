"""The doctor on Colab's double, before and after Drive is mounted."""

from __future__ import annotations

import json

import pytest

from tests.abilities import package

DOCTOR = """
import subprocess, sys
done = subprocess.run(
    [sys.executable, "-m", "colabkit", "doctor", "MyDrive/runs/cats", "--json"],
    capture_output=True, text=True)
print(done.stdout, done.stderr)
done.returncode
"""
MOUNT = "from google.colab import drive; drive.mount('/content/drive')"


@pytest.fixture
def machine(cloud):
    return cloud.machine()


def examined(machine) -> tuple[str, dict[str, object]]:
    shown = machine.run_cell(DOCTOR).check()
    return shown.result, json.loads(shown.stdout)


def test_a_run_folder_on_drive_needs_drive(machine):
    package("torch").require()
    status, told = examined(machine)
    assert status == "1"
    assert told["platform"] == "Google Colab"
    assert told["drive"] == "not mounted"
    assert told["left_s"] <= 12 * 3600
    advice = {finding["name"]: finding["advice"] for finding in told["findings"]}
    assert "colabkit.setup()" in advice["Run folder"]
    machine.run_cell(MOUNT).check()
    status, told = examined(machine)
    assert status == "0"
    assert told["drive"] == "mounted"
    assert told["run_folder"]["path"] == "/content/drive/MyDrive/runs/cats"
