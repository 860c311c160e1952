"""What an error in one of several processes leaves is saved where all are known to have it.

Process 0 saves it alone: nobody else can be asked any more.
"""

from __future__ import annotations

import contextlib
import logging
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
from colabkit.errors import ColabKitError, DivergedError, ProcessLostError
from colabkit.frameworks.torch import world
from tests.torch.cases import Augmented, arrays, network
from tests.torch.killing import kill_self
from tests.torch.ranks import came_through, killed, together
from tests.torch.several_ways import train
from tests.torch.troubles import (
    FAILS,
    PER_EPOCH,
    ByHand,
    InPass,
    Loop,
    Validation,
    assert_same,
    ends,
    fit,
)

TRAINED = PER_EPOCH * (FAILS + 1)


def fails_in(doomed: int, work: Callable[[], Any], *, at: str, by: str = "an error") -> None:
    """Lets one process meet trouble, of which the others hear; all may begin again then."""
    if dist.get_rank() == doomed:
        ends(work, at=at, by=by)
    else:
        with pytest.raises(ProcessLostError):
            work()
    anew()


def anew() -> None:
    """A test's processes go on where those of a job would end."""
    dist.barrier()
    world._joined.clear()
    Validation.epoch, Validation.is_read = 0, False


def newest(folder: Path) -> int:
    return colabkit.checkpoints(folder, verify=True)[0].step


IN_FIT = ["data", "metric", "on_validation_end", "on_epoch_end", "on_epoch_begin"]


@pytest.mark.parametrize("doomed", [0, 1])
def test_fit_keeps_all_steps_and_goes_on_behind_them(doomed, tmp_path):
    def work(_: int) -> None:
        alone = fit(tmp_path / "alone")
        for place, by in [*((each, "an error") for each in IN_FIT), ("metric", "interrupts")]:
            folder = tmp_path / f"{place} {by}"
            fails_in(doomed, lambda to=folder: fit(to), at=place, by=by)
            assert newest(folder) == TRAINED, folder
            assert_same(fit(folder), alone)

    came_through(work, 2, tmp_path)


class Parallel(Loop):
    """Statistics of a batch would be each process's own, and nothing be saved for that."""

    has_norm = False

    def wrapped(self, model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model)

    def rows(self) -> Any:
        sampler: Any = torch_data.DistributedSampler(Augmented(), seed=3)
        return torch_data.DataLoader(Augmented(), batch_size=4, sampler=sampler)


class Passing(Parallel, InPass):
    pass


class Handmade(Parallel, ByHand):
    """Its evaluation is no pass, before which the processes would meet."""


class Averaged(Passing):
    averages = True


class Own(Passing):
    """Each process has its own sum, as over the batches that it evaluates."""

    def evaluated(self, run: Any, model: nn.Module) -> float:
        return super().evaluated(run, model) + dist.get_rank()


LOOPS: list[tuple[type[Loop], str, bool]] = [
    (Passing, "evaluation", True),
    (Passing, "head", True),
    (Handmade, "evaluation", False),
    (Handmade, "head", True),
    (Averaged, "evaluation", False),
    (Own, "evaluation", False),
    (Own, "head", False),
]


@pytest.mark.parametrize("doomed", [0, 1])
def test_a_loop_of_ones_own_goes_on_bit_for_bit_with_all_steps_that_can_be_kept(doomed, tmp_path):
    def work(rank: int) -> None:
        kinds = dict.fromkeys(kind for kind, *_ in LOOPS)
        alone = {kind: kind().train(tmp_path / f"alone {kind.__name__}") for kind in kinds}
        for kind, place, is_kept in LOOPS:
            folder = tmp_path / f"{kind.__name__} {place}"
            # What was logged is process 0's.
            # Of one that lives on the other hears in a meeting alone: it is to come to one.
            in_one(doomed, lambda to=folder, of=kind: of().train(to), place)
            assert (newest(folder) >= TRAINED) is is_kept, folder
            tensors, rows, *rest = kind().train(folder)
            assert_same((tensors, alone[kind][1] if rank else rows, *rest), alone[kind])

    came_through(work, 2, tmp_path)


def in_one(doomed: int, work: Callable[[], Any], place: str) -> None:
    if dist.get_rank() == doomed:
        ends(work, at=place)
        world.tell_lost(f"process {doomed} has met trouble")
    else:
        with pytest.raises((ColabKitError, RuntimeError)):
            work()
    anew()


def test_the_best_epoch_holds_what_each_process_has_at_its_end(tmp_path):
    """Behind a pass that only evaluates, before which all could go back."""

    def work(rank: int, *, dies: bool) -> None:
        model = network(dropout=0.0)
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        objects = {"model": wrapped, "optimizer": optimizer}
        folder, options = tmp_path / "run", {"save_every": 1_000, "progress": False}
        run = colabkit.Run(folder, monitor="val", objects=objects, **options)
        kept = run.state(seen=[])
        for epoch in run.epochs(3):
            if dies and epoch == 2:
                run.flush()
                kill_self()
            for x, y in run.batches(Passing().rows()):
                optimizer.zero_grad()
                functional.cross_entropy(wrapped(x), y).backward()
                optimizer.step()
            for _ in run.batches(arrays(), batch_size=16, shuffle=False):
                pass
            kept.seen.append(10 * epoch + rank)
            run.log_epoch(val=-epoch)
        assert kept.seen == [rank, 10 + rank, 20 + rank]

    assert all(map(killed, together(lambda rank: work(rank, dies=True), 2, tmp_path)))
    assert newest(tmp_path / "run") == 2 * (PER_EPOCH + 3)
    came_through(lambda rank: work(rank, dies=False), 2, tmp_path)


class Nudge:
    """Changes a weight in process 1 alone, in the middle of an epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == 3 and dist.get_rank() == 1:
            self.model[0].bias.data[0] += 1e-3


class Torn(Augmented):
    """Samples of which the first that some process reads behind so many cannot be read."""

    def __init__(self, behind: int) -> None:
        super().__init__()
        self.left = behind

    def __getitem__(self, index: int) -> Any:
        self.left -= 1
        if self.left < 0 and dist.get_rank() == 0:
            message = "torn"
            raise OSError(message)
        return super().__getitem__(index)


def nudged(folder: Path, **options: Any) -> None:
    model = network()
    train(folder, model=model, callbacks=[Nudge(model)], **options)


def nudged_loop(folder: Path, *, leaves: bool) -> None:
    model = network()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    objects = {"model": wrapped, "optimizer": optimizer}
    run = colabkit.Run(folder / "run", objects=objects, save_every=None, progress=False)
    for x, y in run.batches(Passing().rows()):
        optimizer.zero_grad()
        functional.cross_entropy(wrapped(x), y).backward()
        optimizer.step()
        Nudge(model).on_batch_end(run, run.batch + 1, {})
        if leaves and run.batch == 4:
            break


APART: dict[str, Callable[[Path], None]] = {
    "a sample behind it": lambda to: nudged(to, data=loader(Torn(22))),
    "a sample of the validation": lambda to: nudged(to, validation_data=loader(Torn(4))),
    "a pass that is left": lambda to: nudged_loop(to, leaves=True),
    "a pass that ends": lambda to: nudged_loop(to, leaves=False),
}


def loader(rows: Any) -> Any:
    return torch_data.DataLoader(rows, batch_size=8, shuffle=True)


def test_nothing_is_saved_of_weights_that_have_come_apart_however_the_loop_is_left(tmp_path):
    def work(rank: int) -> None:
        logging.basicConfig(filename=tmp_path / f"log-{rank}", force=True)
        for way, train_apart in APART.items():
            folder = tmp_path / way
            with contextlib.suppress(OSError, ColabKitError):
                train_apart(folder)
            anew()
            assert newest(folder / "run") == 0, way

    came_through(work, 2, tmp_path)
    for rank in (0, 1):
        said = (tmp_path / f"log-{rank}").read_text()
        assert said.count("ReplicasDifferError: By step 5") == 1  # what break cannot raise


class NotFinite(Passing):
    """Logs what is no number before an evaluation, of which the weights know nothing."""

    def evaluated(self, run: Any, model: nn.Module) -> float:
        run.log(loss=float("nan") if dist.get_rank() == self.doomed else 0.0)
        return super().evaluated(run, model)

    def __init__(self, doomed: int) -> None:
        self.doomed = doomed


def test_nothing_is_saved_behind_what_is_no_number_in_one_process(tmp_path):
    def work(_: int) -> None:
        for doomed in (0, 1):
            folder = tmp_path / f"{doomed}"
            for _again in range(2):  # it is met again, not passed by
                if dist.get_rank() == doomed:
                    with pytest.raises(DivergedError):
                        NotFinite(doomed).train(folder, must_be_finite=["loss"])
                    world.tell_lost("of one that lives on the other hears like this")
                else:
                    with pytest.raises((ColabKitError, RuntimeError)):
                        NotFinite(doomed).train(folder, must_be_finite=["loss"])
                anew()
            assert newest(folder) == 0

    came_through(work, 2, tmp_path)
