"""An interrupt reaches the workers of a loader, too: however they started, the run is saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

SCRIPT = """
import os, sys, time, torch, colabkit
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        return torch.full((4,), float(index)), index % 2

def look(event):
    if event.name == "batch_end" and event.step == 3:
        print("trains", flush=True)
    if event.name == "batch_end":
        time.sleep(0.02)

if __name__ == "__main__":
    loader = DataLoader(
        Squares(), batch_size=4, num_workers=1, multiprocessing_context=sys.argv[1]
    )
    colabkit.fit(
        torch.nn.Linear(4, 2), loader, sys.argv[2], epochs=1, callbacks=[look], progress=False
    )
    print("saved at", colabkit.checkpoints(sys.argv[2])[0].step, flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_stop_reaches_every_process_and_the_run_is_saved(tmp_path, method):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script), method, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "trains\n", process.stderr.read()
        time.sleep(0.2)
        # As a notebook's stop button does: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert "saved at" in stdout, stderr
    assert int(stdout.split()[-1]) >= 3
