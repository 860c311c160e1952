"""An interrupt reaches the workers of a loader, too: however they started, the run is saved."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

SCRIPT = """
import os, signal, sys, time, torch, colabkit
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        if index == 41:
            # Training has used up what was fetched and waits for this batch, as it mostly does
            # where data is slow. The stop button reaches every process of the group.
            while not os.path.exists(sys.argv[2] + "-waits"):
                time.sleep(0.01)
            time.sleep(0.5)
            os.killpg(0, signal.SIGINT)
            time.sleep(0.2)
        return torch.full((4,), float(index)), index % 2

if __name__ == "__main__":
    method, folder, keeps = sys.argv[1:]
    loader = DataLoader(
        Squares(), batch_size=4, num_workers=1, multiprocessing_context=method,
        persistent_workers=bool(int(keeps)),
    )

    def tell(event):
        if event.name == "batch_end" and event.step == 10:
            open(folder + "-waits", "w").close()

    model = torch.nn.Linear(4, 2)
    colabkit.fit(model, loader, folder, epochs=1, progress=False, callbacks=[tell])
    print("saved at", colabkit.checkpoints(folder)[0].step, flush=True)
"""


@pytest.mark.parametrize(
    ("method", "keeps"), [("fork", 0), ("forkserver", 0), ("forkserver", 1), ("spawn", 0)]
)
def test_stop_reaches_every_process_and_the_step_under_way_is_saved(tmp_path, method, keeps):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, str(script), method, str(tmp_path / "run"), str(keeps)],
        capture_output=True,
        text=True,
        timeout=600,
        start_new_session=True,
        check=False,
    )
    # Where the stop comes before training has asked for that batch, nothing of it is under way.
    assert ended.stdout in {"saved at 10\n", "saved at 11\n"}, ended.stderr
