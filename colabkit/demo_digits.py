"""One training session of the demo: a small CNN on scikit-learn's handwritten digits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit

_TRAINED = 1437


class Digits(torch_data.Dataset[tuple[torch.Tensor, int]]):
    """Images [1, 8, 8] float32 in [0, 1], shifted and turned a little at random."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Returns one image and its digit."""
        angle, x, y = ((torch.rand(3) - 0.5) * torch.tensor([0.5, 0.3, 0.3])).unbind()
        cosine, sine = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([cosine, -sine, x]), torch.stack([sine, cosine, y])])
        grid = functional.affine_grid(turn[None], [1, 1, 8, 8], align_corners=False)
        image = functional.grid_sample(self.images[index][None], grid, align_corners=False)
        return image[0], int(self.labels[index])


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all images [1797, 1, 8, 8] and labels [1797], in one fixed order."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(bunch.images, dtype=torch.float32)[order].unsqueeze(1) / 16
    return images, torch.tensor(bunch.target, dtype=torch.int64)[order]


def network() -> nn.Module:
    """Returns the CNN with its first weights, the same in every session."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2)),
        *(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)),
    )


class Reporter:
    """Writes down where the session is, for the process that will kill it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "progress.json"
        self._called_s = time.perf_counter()
        self.resume_s: float | None = None

    def on_batch_end(self, run: colabkit.Run, step: int, logs: Any) -> None:
        """Notes the step."""
        del run, logs
        if self.resume_s is None:
            self.resume_s = time.perf_counter() - self._called_s
        self._file.write_text(json.dumps({"step": step}))


class Waiting:
    """Adds up how long checkpoints held the training thread."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def on_train_end(self, run: colabkit.Run) -> None:
        """Reads the run's own measure."""
        self.total_s = run.checkpoint_wait_s


def train(folder: Path, *, epochs: int) -> None:
    """Trains, or goes on training, and writes the outcome into ``folder``."""
    torch.set_num_threads(1)
    images, labels = digits()
    reporter, waiting = Reporter(folder), Waiting()
    model = network()
    loader = torch_data.DataLoader(
        Digits(images[:_TRAINED], labels[:_TRAINED]), batch_size=32, shuffle=True
    )
    colabkit.fit(
        model,
        loader,
        folder / "run",
        epochs=epochs,
        validation_data=(images[_TRAINED:], labels[_TRAINED:]),
        metrics=["accuracy"],
        callbacks=[reporter, waiting],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, fused=True),
        save_every=10,
        device="cpu",
        progress=False,
    )
    model.eval()
    with torch.no_grad():
        right = (model(images[_TRAINED:]).argmax(1) == labels[_TRAINED:]).float().mean()
    newest = colabkit.checkpoints(folder / "run")[0]
    outcome = {
        "accuracy": float(right),
        "resume_s": reporter.resume_s,
        "waited_s": waiting.total_s,
        "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
    }
    (folder / "result.json").write_text(json.dumps(outcome))
