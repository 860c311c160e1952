"""The PyTorch side keeps the contract of ``fit``."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.fit_contract import FitContract
from tests.torch.killing import in_child


class TestTorch(FitContract):
    def model(self, *, outputs: int = 3) -> nn.Module:
        torch.manual_seed(11)
        return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, outputs))

    def arrays(self):
        return tuple(map(torch.from_numpy, super().arrays()))

    def weights(self, model: nn.Module) -> list[np.ndarray]:
        return [tensor.numpy() for tensor in model.state_dict().values()]

    def fit(self, model, folder, **more):
        return super().fit(model, folder, device="cpu", **more)

    def in_child(self, work, folder):
        return in_child(work, report=folder / "report.txt")
