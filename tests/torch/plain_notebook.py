"""A short loop as people write it, with a run and without; killed, it ends with the same bits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import colabkit
from tests.torch.killing import in_child, kill_self

SAMPLES, BATCH, EPOCHS = 40, 10, 3
X = torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(3))
Y = (X.sum(1) > 0).long()
ROWS = [(X[n : n + BATCH], Y[n : n + BATCH]) for n in range(0, SAMPLES, BATCH)]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


class PlainLoop:
    """What the loop is without colabkit: the judge."""

    step = 0

    def epochs(self, count: int) -> Iterable[int]:
        return range(count)

    def batches(self, data: Iterable[Any]) -> Iterator[Any]:
        for batch in data:
            yield batch
            self.step += 1

    def state(self, **values: Any) -> Any:
        return SimpleNamespace(**values)

    def flush(self) -> None:
        pass


class Notebook:
    """A model, its run, and the step of a person's loop; the loops differ."""

    def __init__(self, folder: Path | None, dies_at: int) -> None:
        self.model, self.dies_at = network(), dies_at
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2)
        objects = {"model": self.model, "optimizer": self.optimizer}
        self.run: Any = PlainLoop()
        if folder is not None:
            self.run = colabkit.Run(folder, save_every=1, progress=False, **objects)

    def step(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.end_step()

    def end_step(self) -> None:
        if self.dies_at >= 0:
            self.run.flush()
            if self.run.step == self.dies_at:
                kill_self()


def train(
    loop: Callable[[Any], None],
    folder: Path | None,
    *,
    dies_at: int = -1,
    kind: type[Notebook] = Notebook,
) -> tuple[list[Any], Any]:
    """Runs a loop, plain where it has no folder; returns the weights, and its run."""
    book = kind(folder, dies_at)
    loop(book)
    return [each.detach().tolist() for each in book.model.parameters()], book.run


def check_killed(
    loop: Callable[[Any], None],
    tmp_path: Path,
    deaths: Iterable[int],
    kind: type[Notebook] = Notebook,
) -> None:
    """Kills a loop at some steps; it is called exact, and ends with the plain loop's bits."""
    threads, folder = torch.get_num_threads(), tmp_path / "run"
    torch.set_num_threads(1)
    try:
        plain, _ = train(loop, None, kind=kind)
        for step in deaths:
            killed = functools.partial(train, loop, folder, dies_at=step, kind=kind)
            assert not in_child(killed, report=tmp_path / "report")
        weights, run = train(loop, folder, kind=kind)
    finally:
        torch.set_num_threads(threads)
    assert weights == plain
    assert not run.verdict.reasons
