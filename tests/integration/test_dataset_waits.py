"""Stop while Drive hangs: whatever a dataset was at, the cell comes back within 5 s."""

from __future__ import annotations

import os
import time

import pytest

from tests.colab_vm import DriveRules
from tests.unit.datasets.sources import make_folder, make_tar, make_zip

FILES = {f"{n % 5}/{n:03}.bin": os.urandom(60_000 if n % 9 else 700_000) for n in range(120)}
MANY = {f"{n % 20}/{n:04}.bin": b"%d " % n * 700 for n in range(4000)}
STOPPED_WITHIN_S = 5
LIVES_ON = "6 * 7"


def stopped_after_s(machine, cell) -> float:
    """Presses stop, and returns how long the cell went on."""
    began_s = time.monotonic()
    machine.interrupt()
    ended = machine.kernel.finish(cell, timeout_s=15)
    assert ended.error.startswith("KeyboardInterrupt")
    lasted_s = time.monotonic() - began_s
    assert machine.run_cell(LIVES_ON).check().result == "42"
    return lasted_s


@pytest.fixture
def machine(cloud):
    machine = cloud.machine(rules=DriveRules(latency_s=0.02))
    machine.run_cell("import colabkit; colabkit.mount()").check()
    yield machine
    machine.drive.kill_mount()  # what hangs is let go, as when Colab takes the machine


def hang(machine) -> None:
    machine.drive.change(latency_s=600)


@pytest.mark.parametrize(
    "call",
    [
        'colabkit.dataset("MyDrive/cats.zip")',
        'colabkit.dataset("MyDrive/cats")',
        'colabkit.dataset("MyDrive/*.zip")',
        'colabkit.dataset(["MyDrive/cats.zip", "MyDrive/dogs.zip"])',
        'colabkit.pack("MyDrive/cats", "MyDrive/new.zip")',
        'colabkit.pack("/content/sample", "MyDrive/new.zip")',
    ],
)
def test_before_its_first_byte(cloud, machine, call):
    make_folder(cloud.path("cats"), {"1.bin": b"1"})
    make_zip(cloud.path("cats.zip"), FILES)
    make_zip(cloud.path("dogs.zip"), FILES)
    machine.run_cell(
        "import os; os.mkdir('/content/sample'); open('/content/sample/1', 'w').close()"
    )
    hang(machine)
    cell = machine.kernel.begin(f"print('begun'); {call}")
    machine.kernel.wait_for_text(cell, "begun")
    time.sleep(1)
    t = stopped_after_s(machine, cell)
    print("TOOK", call, t)
    assert t < STOPPED_WITHIN_S


@pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
@pytest.mark.parametrize("files", [FILES, MANY], ids=["large", "small"])
def test_in_the_middle(cloud, machine, make, files):
    if make is make_folder:
        files = dict(list(files.items())[:400])
    make(cloud.path("cats"), files)
    cell = machine.kernel.begin('print("begun"); colabkit.dataset("MyDrive/cats")')
    folder = machine.path("/content/datasets")
    while not len([*folder.rglob("*.bin")]) > 5:
        assert machine.is_alive
        time.sleep(0.01)
    hang(machine)
    time.sleep(0.5)
    t = stopped_after_s(machine, cell)
    print("TOOK", make.__name__, len(files), t, len([*folder.rglob("*.bin")]))
    assert t < STOPPED_WITHIN_S


@pytest.mark.parametrize(
    "call",
    [
        'colabkit.pack("MyDrive/cats", "MyDrive/new.zip")',
        'colabkit.dataset("MyDrive/cats", pack=True)',
    ],
)
def test_packing(cloud, machine, call):
    make_folder(cloud.path("cats"), FILES)
    cell = machine.kernel.begin(f'print("begun"); {call}')
    while not [*cloud.path(".").rglob(".colabkit-pack-*")] and not [
        *machine.path("/content/drive/MyDrive").glob(".colabkit-pack-*")
    ]:
        assert machine.is_alive
        time.sleep(0.01)
    hang(machine)
    time.sleep(0.5)
    t = stopped_after_s(machine, cell)
    print("TOOK", call, t)
    assert t < STOPPED_WITHIN_S
