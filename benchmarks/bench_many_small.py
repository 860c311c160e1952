"""How long a checkpoint of 40,000 small tensors, in a memory or a model, holds training."""

from __future__ import annotations

import collections
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import colabkit
from benchmarks.measuring import show

TRANSITIONS, STEPS, EVERY = 10_000, 400, 50
LAYERS, LAYER_STEPS, LAYER_EVERY = 20_000, 20, 4


Transition = collections.namedtuple("Transition", "state action next_state reward")


def transition() -> tuple[torch.Tensor, ...]:
    return torch.randn(1, 4), torch.tensor([[0]]), torch.randn(1, 4), torch.tensor([1.0])


class Memory:
    """The newest transitions, four tensors each.

    Args:
        make: Makes one.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        every = (make() for _ in range(TRANSITIONS))
        self.kept: collections.deque[Any] = collections.deque(every, maxlen=TRANSITIONS)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


def train(folder: Path, make: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Seconds of each step, and those that each save has held the thread."""
    torch.manual_seed(0)
    model, memory = nn.Linear(4, 2), Memory(make)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run = colabkit.Run(
        folder, model=model, optimizer=optimizer, memory=memory, progress=False, save_every=EVERY
    )
    ends_s, held_s = [], []
    for _ in run.items(range(STEPS)):
        ends_s.append(time.perf_counter())
        held_s.append(run.checkpoint_wait_s)
        memory.kept.append(memory.make())
        optimizer.zero_grad()
        model(torch.randn(1, 4)).square().mean().backward()
        optimizer.step()
    steps = [after - before for before, after in itertools.pairwise(ends_s)]
    holds = [after - before for before, after in itertools.pairwise(held_s)]
    return steps, [each for each in holds if each > 0]


def train_layers(folder: Path) -> list[float]:
    """Seconds that each save of a model of many small layers has held the thread."""
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(LAYERS))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run = colabkit.Run(
        folder, model=model, optimizer=optimizer, progress=False, save_every=LAYER_EVERY
    )
    held_s = []
    for _ in run.items(range(LAYER_STEPS)):
        held_s.append(run.checkpoint_wait_s)
        optimizer.zero_grad(set_to_none=False)
        model[0](torch.randn(1, 4)).square().mean().backward()
        optimizer.step()
    holds = [after - before for before, after in itertools.pairwise(held_s)]
    return [each for each in holds if each > 0]


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        steps, holds = train(folder / "run", transition)
        of_named = train(folder / "named", lambda: Transition(*transition()))[1]
        of_dicts = train(folder / "dicts", lambda: Transition(*transition())._asdict())[1]
        of_layers = train_layers(folder / "layers")
    finally:
        shutil.rmtree(folder)
    held_ms, longest_ms = statistics.median(holds) * 1e3, max(steps) * 1e3
    show(
        "checkpoints of 40,000 small tensors",
        [
            ("a step held by that of a memory", f"{held_ms:.0f} ms", "wanted <= 50 ms"),
            (
                "a step held by that of a memory of named tuples",
                f"{statistics.median(of_named) * 1e3:.0f} ms",
                "wanted <= 50 ms",
            ),
            (
                "a step held by that of a memory of dicts",
                f"{statistics.median(of_dicts) * 1e3:.0f} ms",
                "wanted <= 50 ms",
            ),
            (f"the longest of {len(steps)} steps", f"{longest_ms:.0f} ms", ""),
            (
                "a step held by that of 20,000 layers",
                f"{statistics.median(of_layers) * 1e3:.0f} ms",
                "wanted <= 50 ms",
            ),
        ],
    )


if __name__ == "__main__":
    main()
