"""One training in a process of its own: a forked child could not use the GPU.

python -m tests.torch.gpu_training '{"folder": "...", "target": "...", "device": "cuda"}'
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        folder: The run's folder.
        target: Where to write what the run ended with.
        device: "cuda", or "cpu" for the same without a GPU.
        precision: "fp32", "bf16" or "fp16".
        die_at: The step to die at by SIGKILL, None to come to the end.
        workers: Processes that fetch the data.
    """

    folder: str
    target: str
    device: str = "cuda"
    precision: str = "fp32"
    die_at: int | None = None
    workers: int = 0


def run_job(job: Job) -> bool:
    """Runs a job in a new process; returns whether it came to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.torch.gpu_training", json.dumps(dataclasses.asdict(job))],
        cwd=REPOSITORY,
        # cuBLAS adds in a fixed order only in workspaces of a fixed size.
        env={**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return False
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def network() -> Any:
    """Returns a model with dropout, batch norm, and weights large enough to be copied meanwhile."""
    import torch
    from torch import nn

    torch.manual_seed(11)
    return nn.Sequential(
        nn.Linear(6, 256),
        nn.BatchNorm1d(256),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, 3),
    )


def work(job: Job) -> None:
    """Trains, and writes everything the run ended with."""
    import torch

    import colabkit
    from tests.torch.cases import EPOCHS, loader
    from tests.torch.killing import KillAtStep, outcome

    torch.use_deterministic_algorithms(True)
    killers = [] if job.die_at is None else [KillAtStep(job.die_at)]
    history = colabkit.fit(
        network(),
        loader(num_workers=job.workers),
        job.folder,
        epochs=EPOCHS,
        device=job.device,
        precision=job.precision,
        scheduler="onecycle",
        callbacks=killers,
        save_every=1,
        progress=False,
    )
    assert history.verdict is not None
    assert history.verdict.grade.value == "exact", history.verdict
    outcome(Path(job.folder), history, Path(job.target))


if __name__ == "__main__":
    work(Job(**json.loads(sys.argv[1])))
