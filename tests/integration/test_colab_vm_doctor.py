"""The doctor on Colab's double, before and after Drive is mounted."""

from __future__ import annotations

import json

import pytest

from tests.abilities import package

DOCTOR = """
import subprocess, sys
done = subprocess.run(
    [sys.executable, "-m", "colabkit", "doctor", {!r}, "--json"], capture_output=True, text=True)
print(done.stdout, done.stderr)
done.returncode
"""
MOUNT = "from google.colab import drive; drive.mount('/content/gdrive')"
LINK = "import os; os.symlink('/content/gdrive/MyDrive/runs', '/content/runs')"
FOLDERS = ["MyDrive/runs/cats", "/content/runs/cats"]


@pytest.fixture
def machine(cloud):
    return cloud.machine()


def examined(machine, folder: str) -> tuple[str, dict[str, object]]:
    shown = machine.run_cell(DOCTOR.format(folder)).check()
    return shown.result, json.loads(shown.stdout)


def advice_in(told: dict[str, object]) -> dict[str, str]:
    return {finding["name"]: finding["advice"] for finding in told["findings"]}


def test_a_run_folder_on_drive_needs_drive_by_whichever_name_and_wherever_mounted(machine):
    package("torch").require()
    machine.run_cell(LINK).check()
    for folder in FOLDERS:
        status, told = examined(machine, folder)
        assert status == "1"
        assert told["platform"] == "Google Colab"
        assert told["drive"] == "not mounted"
        assert told["left_s"] <= 12 * 3600
        assert "colabkit.setup()" in advice_in(told)["Run folder"]
    machine.run_cell(MOUNT).check()
    for folder in FOLDERS:
        status, told = examined(machine, folder)
        assert status == "0"
        assert told["drive"] == "mounted"
        assert told["run_folder"]["path"] == "/content/gdrive/MyDrive/runs/cats"
    machine.drive.kill_mount()
    for folder in FOLDERS:
        status, told = examined(machine, folder)
        assert status == "1"
        assert told["drive"] == "lost"
        assert "colabkit.mount()" in advice_in(told)["Run folder"]
