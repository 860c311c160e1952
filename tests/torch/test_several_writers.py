"""Several processes write one checkpoint together: each a share of what all of them hold alike."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

import colabkit
from colabkit.checkpoint import RunFolder, company, parts
from colabkit.frameworks.torch import world
from colabkit.frameworks.torch.adapter import TorchAdapter
from colabkit.runs import several_managers
from colabkit.storage.files import Files
from tests import abilities
from tests.torch.cases import arrays, network
from tests.torch.killing import kill_self
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import QUIET, KillRanks, result, same_weights, train, undisturbed_in
from tests.torch.test_several_loops import shared_out

PART = re.compile(r"-r(\d{4})-a\d{2,}-g")
SGD: dict[str, Any] = {
    **QUIET,
    "optimizer": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
    "epochs": 4,
}
# Each step is saved, and rank 0 waits for it.
SAVED: dict[str, Any] = {"callbacks": [KillRanks(0, ())], "save_every": 1}
SOAK = bool(os.environ.get("COLABKIT_SOAK"))


@pytest.fixture(scope="module", autouse=True)
def _small_tensors():
    """Lets tensors of a few bytes be worth sharing, in the processes that are forked from here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(several_managers, "WRITE_TOGETHER", True)
        patch.setattr(parts, "LEAST_BYTES", 1)
        patch.setattr(company, "WORTH_BYTES", 1)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], dict[str, Any]]:
    """Gives what so many processes end with that nobody disturbs."""
    ways = {count: undisturbed_in(count, tmp_path_factory) for count in (2, 3)}
    return lambda count, way: ways[count](way)


def writers(folder: Path) -> set[int]:
    """Returns the ranks of those that have written files of the newest checkpoint."""
    store = RunFolder(folder).store
    ranks = (PART.search(name) for name in store.manifest(store.names()[0]).shards)
    return {int(found[1]) if found else 0 for found in ranks}


@pytest.mark.parametrize(
    ("count", "doomed"), [(3, (1,)), (2, (1,)), (3, (0,)), (3, (0, 1, 2))][: None if SOAK else 1]
)
def test_who_is_killed_goes_on_bit_for_bit_from_what_all_have_written(
    count, doomed, undisturbed, tmp_path
):
    options: dict[str, Any] = {"callbacks": [KillRanks(5, doomed)], "save_every": 1}
    statuses = together(lambda _: train(tmp_path, **options), count, tmp_path)
    assert [rank for rank in range(count) if killed(statuses[rank])] == list(doomed)
    for rank in {*range(count)} - {*doomed}:
        assert "ProcessLostError" in failure(tmp_path, rank)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 12
    came_through(lambda _: train(tmp_path, **SAVED), count, tmp_path)
    assert writers(tmp_path / "run") == {*range(count)}
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(count, "dropout_and_arrays")


class NoRoom:
    """Has the disk of one process refuse what is written while it trains some steps."""

    def __init__(self, rank: int, begin: int, end: int) -> None:
        self.rank, self.steps = rank, range(begin, end)
        self.write = Files.write

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()
        is_full = dist.get_rank() == self.rank and step in self.steps
        Files.write = self.refuse if is_full else self.write

    @staticmethod
    def refuse(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("end", [7, 1000])
def test_once_the_disk_of_process_1_was_full_process_0_writes_all(end, undisturbed, tmp_path):
    options: dict[str, Any] = {"callbacks": [NoRoom(1, 4, end)], "save_every": 1}
    came_through(lambda _: train(tmp_path, **options), 2, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step == 12
    assert writers(tmp_path / "run") == {0}
    same_weights(tmp_path, 2)
    assert result(tmp_path) == undisturbed(2, "dropout_and_arrays")


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("round_number", range(20))
def test_who_is_killed_at_any_instant_goes_on_bit_for_bit(round_number, undisturbed, tmp_path):
    chooser = random.Random(round_number)
    count = chooser.choice([2, 3])

    def dying(rank: int) -> None:
        world.DEADLINE_S = 5.0
        if rank in doomed:  # the timer ends the process, wherever that is
            signal.setitimer(signal.ITIMER_REAL, instant_s)
        train(tmp_path, save_every=1)

    for _ in range(4):
        doomed = chooser.choice([(0,), (1,), tuple(range(count))])
        instant_s = chooser.uniform(0.2, 1.5)
        together(dying, count, tmp_path)
    came_through(lambda _: train(tmp_path, save_every=1), count, tmp_path)
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(count, "dropout_and_arrays")


def test_any_number_of_processes_goes_on_with_what_several_wrote(tmp_path):
    """None of them drops or doubles a sample, and the weights are those that were written."""

    def work(steps: int) -> None:
        model = network(dropout=0.0)
        colabkit.fit(model, arrays(), tmp_path / "run", max_steps=steps, **SAVED, **SGD)
        rank = dist.get_rank() if dist.is_initialized() else 0
        torch.save(model.state_dict(), tmp_path / f"weights-{rank}")

    for number, count in enumerate((2, 3, 1, 2), start=1):
        came_through(lambda _, to=4 * number: work(to), count, tmp_path)
        same_weights(tmp_path, count)
        loaded = network()
        assert colabkit.load(loaded, tmp_path / "run").step == 4 * number
        there = torch.load(tmp_path / "weights-0", weights_only=True)
        assert all(torch.equal(there[k], v) for k, v in loaded.state_dict().items())
        assert writers(tmp_path / "run") == {*range(count)}


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
def test_one_process_ends_with_the_bits_of_the_two_that_wrote_its_checkpoint(undisturbed, tmp_path):
    options: dict[str, Any] = {"callbacks": [KillRanks(7, (0, 1))], "save_every": 1}
    together(lambda _: train(tmp_path, **options), 2, tmp_path)
    came_through(lambda _: train(tmp_path), 1, tmp_path)
    assert result(tmp_path) == undisturbed(2, "dropout_and_arrays")


def looped(folder: Path, *, stops_at: int = 0) -> None:
    """The loop that a person writes with DDP."""
    model = nn.parallel.DistributedDataParallel(network(dropout=0.2))
    made = torch.optim.AdamW(model.parameters(), lr=0.01)
    run = colabkit.Run(folder / "run", model=model, optimizer=made, save_every=1, progress=False)
    for _ in run.epochs(2):
        for x, y in run.batches(shared_out()):
            made.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            made.step()
            run.flush()
            if run.step + 1 == stops_at and dist.get_rank() == 1:
                kill_self()
    torch.save(model.state_dict(), folder / f"weights-{dist.get_rank()}")


def test_a_loop_of_ones_own_goes_on_bit_for_bit(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    came_through(lambda _: looped(whole), 2, whole)
    assert writers(whole / "run") == {0, 1}
    together(lambda _: looped(broken, stops_at=5), 2, broken)
    came_through(lambda _: looped(broken), 2, broken)
    for rank in range(2):
        found, other = (
            torch.load(f / f"weights-{rank}", weights_only=True) for f in (whole, broken)
        )
        assert all(torch.equal(found[key], other[key]) for key in found)


def test_a_process_that_finds_another_folder_under_the_path_writes_nothing(tmp_path):
    """A path relative to a folder of its own, or that of another machine."""

    def work(rank: int) -> None:
        (tmp_path / f"{rank}").mkdir()
        os.chdir(tmp_path / f"{rank}")
        train(tmp_path, ckpt_dir=Path("run"), **SAVED)

    came_through(work, 2, tmp_path)
    assert writers(tmp_path / "0" / "run") == {0}
    assert not (tmp_path / "1" / "run").exists()


class Wide(nn.Module):
    """Large enough that its weights are copied while training goes on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.first, self.middle = nn.Linear(6, 200), nn.Linear(200, 200)
        self.last = nn.Linear(200, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(x).relu()).relu())


def test_a_last_save_that_is_torn_in_one_process_is_taken_again_until_it_is_whole(tmp_path):
    """It is torn, then process 1 writes all at once and offers no part, then process 0 is alone."""

    def work(rank: int) -> None:
        unchanged = TorchAdapter.unchanged

        def torn(adapter: TorchAdapter) -> Callable[[Any], bool]:
            check = unchanged(adapter)
            if rank and joined[0].step == 12:
                adapter._writes_unseen = True
                return lambda _: False
            return check

        joined = world._joined
        TorchAdapter.unchanged = torn
        options = {**SAVED, **SGD, "epochs": 2, "save_every": 5}
        train(tmp_path, model=Wide(), **options)

    came_through(work, 2, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step == 12
    loaded = Wide()
    colabkit.load(loaded, tmp_path / "run")
    there = torch.load(tmp_path / "weights-0", weights_only=True)
    assert all(torch.equal(there[k], v) for k, v in loaded.state_dict().items())
