"""An error in one of several processes ends all of them with its words, wherever it is raised.

Each process lives on after its error, as a script does that catches it: what ends the others is
not that its connections close with it.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ColabKitError
from colabkit.frameworks.torch import world
from tests.torch.cases import Augmented, arrays, network
from tests.torch.ranks import WAIT_S, came_through
from tests.torch.several_ways import QUIET

WORDS = "this is process {}'s alone"


class BoomError(Exception):
    """No error that anybody knows."""


def boom(*_: Any, **__: Any) -> Any:
    raise BoomError(WORDS.format(dist.get_rank()))


class At:
    """Raises where a callback is told something."""

    def __init__(self, event: str, raising: Callable[..., Any] = boom) -> None:
        setattr(self, event, raising)


class Torn(Augmented):
    def __getitem__(self, index: int) -> Any:
        return boom() if index == 30 else super().__getitem__(index)


class Layer(nn.Module):
    """Raises in the third forward or backward of a training."""

    def __init__(self, *, in_backward: bool) -> None:
        super().__init__()
        self.in_backward, self.calls = in_backward, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3:
            if not self.in_backward:
                boom()
            x = x.clone()
            x.requires_grad_()
            x.register_hook(boom)
        return x


def interrupted(*_: Any) -> None:
    """What a second Ctrl-C raises."""
    raise KeyboardInterrupt(WORDS.format(dist.get_rank()))


def loader(rows: Any) -> Any:
    return torch_data.DataLoader(rows, batch_size=8, shuffle=True)


# Where one process is given what the other is not.
PLACES: dict[str, Callable[[], dict[str, Any]]] = {
    "an argument": lambda: {"epochs": 0},
    "the optimizer that is made": lambda: {"optimizer": boom},
    "the loss": lambda: {"loss": boom},
    "forward": lambda: {"model": nn.Sequential(Layer(in_backward=False), network())},
    "backward": lambda: {"model": nn.Sequential(network(), Layer(in_backward=True))},
    "a sample": lambda: {"data": loader(Torn())},
    "a metric": lambda: {"metrics": {"own": boom}},
    "a validation sample": lambda: {"validation_data": loader(Torn())},
    "a callback before all": lambda: {"callbacks": [At("on_train_begin")]},
    "a callback of a step": lambda: {"callbacks": [At("on_batch_end")]},
    "a callback of an epoch": lambda: {"callbacks": [At("on_epoch_end")]},
    "a callback after all": lambda: {"callbacks": [At("on_train_end")]},
    "a second Ctrl-C": lambda: {"callbacks": [At("on_batch_end", interrupted)]},
    "the folder": lambda: {"ckpt_dir": Path(__file__)},
}
# The same for both, but for what is raised.
SAME: dict[str, Callable[[], dict[str, Any]]] = {
    "the loss": lambda: {"loss": functional.cross_entropy},
    "forward": lambda: {"model": nn.Sequential(nn.Identity(), network())},
    "backward": lambda: {"model": nn.Sequential(network(), nn.Identity())},
    "a sample": lambda: {"data": loader(Augmented())},
    "a metric": lambda: {"metrics": {"own": functional.cross_entropy}},
    "a validation sample": lambda: {"validation_data": loader(Augmented())},
}


def fitted(folder: Path, **options: Any) -> None:
    given = {"model": network(), "data": arrays(), "ckpt_dir": folder, **QUIET, **options}
    colabkit.fit(given.pop("model"), given.pop("data"), given.pop("ckpt_dir"), **given)


def alone_at(place: str, doomed: int, folder: Path) -> None:
    """Lets one process fail in a place, and live on until the other has ended."""
    rank = dist.get_rank()
    options = PLACES[place] if rank == doomed else SAME.get(place, dict)
    with pytest.raises((ColabKitError, BoomError, KeyboardInterrupt)) as caught:
        fitted(folder / "run", **options())
    met(caught.value, doomed, folder, place)


def met(error: BaseException, doomed: int, folder: Path, place: str) -> None:
    rank = dist.get_rank()
    said = f"{type(error).__name__}: {error}"
    (folder / f"ended-{rank}").write_text(said)
    until_s = time.monotonic() + WAIT_S
    while not all((folder / f"ended-{each}").exists() for each in (0, 1)):
        assert time.monotonic() < until_s, place
        time.sleep(0.01)
    if rank == doomed:
        assert not said.startswith("ProcessLostError"), f"{place}: {said}"
    else:
        assert said.startswith(f"ProcessLostError: Process {doomed} has stopped: "), place
        own = (folder / f"ended-{doomed}").read_text()
        assert own.partition(".")[0] in said, f"{place}: {said}"


def anew() -> None:
    """Forgets the job that has failed: a test's processes go on where a job's would end.

    What it leaves behind is collected now: once it waited for half an hour there.
    """
    world._joined.clear()
    gc.collect()


@pytest.mark.parametrize("doomed", [0, 1])
def test_an_error_in_one_process_ends_all_wherever_it_is_raised(doomed, tmp_path):
    def work(_: int) -> None:
        for number, place in enumerate(PLACES):
            if place == "the folder" and doomed == 1:
                continue  # nobody but process 0 opens it
            folder = tmp_path / f"{number}"
            folder.mkdir(exist_ok=True)
            alone_at(place, doomed, folder)
            anew()

    came_through(work, 2, tmp_path)


def own_loop(folder: Path, data: Any) -> None:
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False)
    for _ in run.epochs(1):
        for x, y in run.batches(data):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()


def shared_out(rows: Any) -> Any:
    sampler: Any = torch_data.DistributedSampler(rows, shuffle=False)
    return torch_data.DataLoader(rows, batch_size=4, sampler=sampler)


def test_an_error_while_a_run_is_made_in_one_process_is_one_in_all(tmp_path):
    def work(rank: int) -> None:
        with pytest.raises((ColabKitError, BoomError)) as caught:
            own_loop(tmp_path / "run" if rank else Path(__file__), shared_out(Augmented()))
        met(caught.value, 0, tmp_path, "the folder")

    came_through(work, 2, tmp_path)


def test_who_waits_for_a_failed_process_in_a_group_of_its_own_hears_of_it(tmp_path):
    log = tmp_path / "log-1"

    def work(rank: int) -> None:
        logging.basicConfig(filename=tmp_path / f"log-{rank}", force=True)
        with pytest.raises((ColabKitError, BoomError, RuntimeError)):
            own_loop(tmp_path / "run", shared_out(Augmented() if rank else Torn()))
        (tmp_path / f"ended-{rank}").touch()
        until_s = time.monotonic() + WAIT_S
        while rank == 0 and not (tmp_path / "ended-1").exists():
            assert time.monotonic() < until_s
            time.sleep(0.05)

    came_through(work, 2, tmp_path)
    assert "Process 0 has stopped: BoomError: this is process 0's alone" in log.read_text()
