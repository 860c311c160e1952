"""Stop while Drive hangs: whatever a dataset was at, the cell is back within 5 s."""

from __future__ import annotations

import os
import time

import pytest

from tests.abilities import SOAK
from tests.colab_vm import DriveRules, Fault
from tests.unit.datasets.sources import make_folder, make_tar, make_zip, wait_until

LARGE = {f"{n % 5}/{n:03}.bin": os.urandom(60_000 if n % 9 else 700_000) for n in range(120)}
# So many are written by processes.
SMALL = {f"{n % 20}/{n:04}.bin": b"%d " % n * 700 for n in range(4000)}
FOLDER = dict(list(LARGE.items())[:60])
HANGS_S = 600
# It is 5 s on a computer of which nobody else wants anything.
STOPPED_WITHIN_S = 60
SOAKED = (pytest.mark.soak, pytest.mark.needs(SOAK))


@pytest.fixture
def machine(cloud):
    machine = cloud.machine(rules=DriveRules(latency_s=0.02))
    machine.run_cell("import colabkit; colabkit.mount()").check()
    yield machine
    machine.drive.kill_mount()  # lets go what hangs


def wait_until_it_hangs(machine, hang: Fault) -> None:
    """Waits for a call that hangs, and has every further one hang too."""
    wait_until(lambda: machine.drive.state()["met"].get(hang.id, 0) > hang.skip)
    machine.drive.change(latency_s=HANGS_S)


def check_stop(machine, cell: str) -> None:
    """Presses stop while every call to Drive hangs."""
    began_s = time.monotonic()
    machine.interrupt()
    assert machine.kernel.finish(cell, timeout_s=300).error.startswith("KeyboardInterrupt")
    assert time.monotonic() - began_s < STOPPED_WITHIN_S
    assert machine.run_cell("6 * 7").check().result == "42"


@pytest.mark.parametrize(
    "call",
    [
        'dataset("MyDrive/cats.zip")',
        'pack("/content/sample", "MyDrive/new.zip")',
        pytest.param('dataset("MyDrive/cats")', marks=SOAKED),
        pytest.param('dataset("MyDrive/*.zip")', marks=SOAKED),
        pytest.param('dataset(["MyDrive/cats.zip", "MyDrive/dogs.zip"])', marks=SOAKED),
        pytest.param('pack("MyDrive/cats", "MyDrive/new.zip")', marks=SOAKED),
    ],
)
def test_before_the_source_is_found(cloud, machine, call):
    make_folder(cloud.path("cats"), {"1.bin": b"1"})
    for name in ("cats.zip", "dogs.zip"):
        make_zip(cloud.path(name), {"1.bin": b"1"})
    machine.path("/content/sample").mkdir()
    machine.drive.change(latency_s=HANGS_S)
    cell = machine.kernel.begin(f"print('begun'); colabkit.{call}")
    machine.kernel.wait_for_text(cell, "begun")
    time.sleep(0.5)  # until it asks, which nothing tells
    check_stop(machine, cell)


@pytest.mark.parametrize(
    ("make", "files"),
    [
        (make_tar, SMALL),
        (make_folder, FOLDER),
        pytest.param(make_zip, LARGE, marks=SOAKED),
        pytest.param(make_zip, SMALL, marks=SOAKED),
        pytest.param(make_tar, LARGE, marks=SOAKED),
    ],
)
def test_while_it_is_made(cloud, machine, make, files):
    make(cloud.path("cats"), files)
    hang = Fault("read", "MyDrive/cats*", (), skip=20, hangs_s=HANGS_S)
    machine.drive.inject(hang)
    cell = machine.kernel.begin('colabkit.dataset("MyDrive/cats")')
    wait_until_it_hangs(machine, hang)
    check_stop(machine, cell)
    folder = machine.path("/content/datasets")
    assert not [*folder.glob("*/*/*.bin")]  # nothing is published


@pytest.mark.parametrize(
    "call",
    [
        'pack("MyDrive/cats", "MyDrive/new.zip")',
        pytest.param('dataset("MyDrive/cats", pack=True)', marks=SOAKED),
    ],
)
def test_while_it_is_packed(cloud, machine, call):
    make_folder(cloud.path("cats"), FOLDER)
    hang = Fault("write", "MyDrive/.colabkit-pack-*", (), skip=2, hangs_s=HANGS_S)
    machine.drive.inject(hang)
    cell = machine.kernel.begin(f"colabkit.{call}")
    wait_until_it_hangs(machine, hang)
    check_stop(machine, cell)
