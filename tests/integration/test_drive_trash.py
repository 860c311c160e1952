"""What a long run leaves on Drive, its Trash included."""

from __future__ import annotations

import threading

import pytest

from tests.abilities import SOAK

SETUP = "import colabkit\nsession = colabkit.setup()"
TRAIN = """
import time, torch
model = torch.nn.Linear({width}, {width})
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
run = colabkit.Run(
    "MyDrive/runs/a", model=model, optimizer=optimizer, save_every="0.01s", progress=False
)
seen = set()
for _ in run.items(range(1_000_000)):
    with torch.no_grad():
        model.weight += 1
    optimizer.step()
    time.sleep(0.01)
    upload = run.save_status.upload
    seen.add(upload.confirmed_step)
    if len(seen) > {count}:
        break
print("carried", len(seen) - 1)
"""
SCALES = {
    "small": {"width": 500, "count": 25},
    "whole": {"width": 2236, "count": 200},
}


WHOLE = pytest.param("whole", marks=[pytest.mark.soak, pytest.mark.needs(SOAK)])


@pytest.mark.parametrize("scale", ["small", WHOLE])
def test_old_checkpoints_fill_neither_drive_nor_its_trash(cloud, scale):
    machine = cloud.machine()
    machine.run_cell(SETUP).check()
    nbytes = SCALES[scale]["width"] ** 2 * 4
    peaks, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peaks.append(cloud.used_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = machine.run_cell(TRAIN.format(**SCALES[scale]), timeout_s=900)
    finally:
        ended.set()
        watcher.join()
    assert f"carried {SCALES[scale]['count']}" in done.check().stdout
    machine.drive.wait_until_uploaded()
    assert cloud.used_bytes() <= 3.1 * nbytes
    assert max(peaks) <= 4.1 * nbytes
    assert sum(cloud.trash().values()) <= 0.1 * nbytes
