"""Whether training can start here."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path

import pytest

from colabkit import cli, doctor
from colabkit.notebook import Row, Tone
from colabkit.runtime import (
    Device,
    DeviceKind,
    Host,
    PackageCheck,
    PackageState,
    Platform,
    SessionClock,
)
from tests.abilities import UNPRIVILEGED

GIB = 1 << 30
HOST = Host("<CPU> 2.2GHz", 2, 12 * GIB, 8 * GIB)
CPU = Device(DeviceKind.CPU, "CPU", reason="There is no GPU.", advice="Choose a T4.")
T4 = Device(DeviceKind.CUDA, "Tesla T4", 15 * GIB)


def disk(free_bytes: int):
    return lambda path: types.SimpleNamespace(free=free_bytes, total=100 * GIB)


def check(name: str, version: str | None) -> PackageCheck:
    state = PackageState.PRESENT if version else PackageState.MISSING
    return PackageCheck(name, name, state, version)


def test_this_machine_can_train():
    found = doctor.examine()
    assert found.can_start
    assert {row.name for row in found.rows} >= {"Machine", "Device", "Memory", "Disk"}
    assert found.card.title.endswith("training can start")


def test_looking_changes_nothing(tmp_path):
    doctor.examine(tmp_path / "runs" / "cats")
    assert list(tmp_path.iterdir()) == []


def test_the_machine_says_how_long_it_has():
    clock = SessionClock(0, 12 * 3600, clock=lambda: 3600)
    found = doctor.machine_finding(Platform.COLAB, HOST, clock)
    assert "machine up 1 h, about 11 h left (an estimate)" in found.row.value
    assert found.facts["left_s"] == 11 * 3600


@pytest.mark.parametrize(
    ("device", "needs_gpu", "tone"),
    [
        (T4, True, Tone.GOOD),
        (T4, False, Tone.GOOD),
        (CPU, False, Tone.NOTE),
        (CPU, True, Tone.BAD),
    ],
)
def test_no_gpu_is_a_failure_only_where_one_is_needed(device, needs_gpu, tone):
    row = doctor.device_finding(device, needs_gpu=needs_gpu).row
    assert row.tone is tone
    assert row.advice == device.advice
    assert device.reason in row.value


@pytest.mark.parametrize(
    ("free_bytes", "tone"), [(50 * GIB, Tone.GOOD), (GIB, Tone.NOTE), (GIB // 8, Tone.BAD)]
)
def test_a_full_disk_keeps_training_from_starting(tmp_path, free_bytes, tone):
    row = doctor.disk_finding(tmp_path, usage=disk(free_bytes)).row
    assert row.tone is tone
    assert bool(row.advice) == (tone is not Tone.GOOD)


def test_little_memory_is_worth_a_note():
    assert doctor.memory_finding(HOST).row.tone is Tone.GOOD
    scarce = dataclasses.replace(HOST, free_bytes=GIB // 2)
    assert doctor.memory_finding(scarce).row.tone is Tone.NOTE


def test_tensorflow_is_found_under_the_names_of_all_its_packages():
    def checked(names):
        return [check(name, "2.21.0" if name == "tensorflow-cpu" else None) for name in names]

    found = doctor.frameworks_finding(doctor.framework_checks(checked))
    found = found.facts["frameworks"]
    assert found == {"torch": None, "keras": None, "jax": None, "tensorflow": "2.21.0"}


def test_without_a_framework_there_is_nothing_to_train_with():
    some = [check("torch", "2.9.0"), check("keras", None)]
    assert doctor.frameworks_finding(some).row == Row("Frameworks", "torch 2.9.0", Tone.GOOD)
    jax = doctor.frameworks_finding([check("torch", None), check("jax", "0.7.2")])
    assert jax.row == Row("Frameworks", "jax 0.7.2", Tone.GOOD)
    none = doctor.frameworks_finding([check("torch", None), check("keras", None)])
    assert none.row.tone is Tone.BAD
    assert none.facts["frameworks"] == {"torch": None, "keras": None}


def test_a_package_in_another_version_is_named_with_the_remedy():
    old = PackageCheck("numpy>=2.0", "numpy", PackageState.OTHER_VERSION, "1.26.0")
    row = doctor.packages_finding([check("tqdm", "4.66"), old]).row
    assert row.tone is Tone.BAD
    assert "numpy>=2.0: installed in another version" in row.value
    assert row.advice == "Run: pip install 'numpy>=2.0'"


def test_a_marker_is_no_part_of_what_a_shell_is_told_to_install():
    isal = "isal>=1.7; platform_machine in 'x86_64 AMD64'"
    row = doctor.packages_finding([PackageCheck(isal, "isal", PackageState.MISSING)]).row
    assert row == Row(
        "Packages", "isal>=1.7: not installed", Tone.BAD, "Run: pip install 'isal>=1.7'"
    )


def test_a_package_of_which_it_cannot_be_told_whether_it_fits_stands_in_nobodys_way():
    there = PackageCheck("tqdm>=4.66", "tqdm", PackageState.UNKNOWN, "4.70")
    row = doctor.packages_finding([check("numpy", "2.4"), there]).row
    assert (row.tone, row.advice) == (Tone.NOTE, "")


def test_drive_is_looked_at_on_colab_only():
    assert doctor.drive_finding(Platform.OTHER) is None


def test_a_run_folder_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    row = doctor.folder_finding(tmp_path / "file").row
    assert row.tone is Tone.BAD
    assert "is a file, not a folder" in row.value
    new = doctor.folder_finding(tmp_path / "new").row
    assert new.tone is Tone.GOOD
    assert "not there yet" in new.value
    assert "not there yet" not in doctor.folder_finding(tmp_path).row.value


@pytest.mark.needs(UNPRIVILEGED)
def test_a_run_folder_must_be_writable(tmp_path):
    Path(tmp_path).chmod(0o500)
    assert doctor.folder_finding(tmp_path / "new").row.tone is Tone.BAD


def test_the_command_says_it_in_its_exit_status(tmp_path, capsys):
    assert cli.main(["doctor"]) == 0
    assert "training can start" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert cli.main(["doctor", str(tmp_path / "file")]) == 1
    assert "training cannot start" in capsys.readouterr().out


def test_the_command_gives_json(tmp_path, capsys):
    assert cli.main(["doctor", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["can_start"] is True
    assert told["run_folder"]["is_writable"] is True
    assert told["device"]["kind"] in {kind.value for kind in DeviceKind}
    assert {finding["name"] for finding in told["findings"]} >= {"Machine", "Run folder"}
