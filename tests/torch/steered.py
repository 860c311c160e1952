"""A run whose loop hands its step a number to go by, and what its verdict names of that loop."""

from __future__ import annotations

import re
from typing import Any

import torch

import colabkit


def run_of(loop: Any, folder: Any) -> Any:
    """Returns a run that a loop has trained, each step with the number that it is given."""
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(weight: Any = 1.0) -> Any:
        optimizer.zero_grad()
        loss = (model(torch.ones(2)) * float(weight)).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run: Any = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
    run.model, run.optimizer, run.folder = model, optimizer, folder
    loop(run, step)
    return run


def named_in(run: Any) -> set[str]:
    """Returns the paths that a verdict names."""
    told = [re.match(r"the loop(?:'s| reads) (\S+) ", each) for each in run.verdict.reasons]
    assert None not in told
    return {each[1] for each in told if each is not None}
