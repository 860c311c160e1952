"""One training session of the demo: a small CNN on scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from colabkit.demo_session import Digits, Reporter


class Augmented(torch_data.Dataset[tuple[torch.Tensor, int]]):
    """Images [1, 8, 8] float32 in [0, 1], shifted and turned a little at random."""

    def __init__(self, digits: Digits) -> None:
        self.images, self.labels = tensors(digits)

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


def tensors(digits: Digits) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images [N, 1, 8, 8] and labels [N]."""
    return torch.from_numpy(digits.images)[:, None], torch.from_numpy(digits.labels)


def network() -> nn.Module:
    """Returns the CNN with its first weights, the same in every session."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2)),
        *(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)),
    )


def train(folder: Path, *, epochs: int) -> None:
    """Trains, or goes on training, and writes the outcome into ``folder``."""
    torch.set_num_threads(1)
    reporter, model = Reporter(folder), network()
    images, labels = tensors(Digits.held_out())
    loader = torch_data.DataLoader(Augmented(Digits.trained()), batch_size=32, shuffle=True)
    colabkit.fit(
        model,
        loader,
        folder / "run",
        epochs=epochs,
        validation_data=(images, labels),
        metrics=["accuracy"],
        callbacks=[reporter],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, fused=True),
        save_every=10,
        device="cpu",
        progress=False,
    )
    model.eval()
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).float().mean()
    reporter.write_result(float(right))
