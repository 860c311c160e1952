"""What may go wrong among several processes: none waits for ever, nothing is lost, all is named."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import colabkit
from colabkit.errors import ProcessLostError
from colabkit.frameworks.torch import world
from tests.places import small_disk
from tests.torch.cases import Augmented, arrays, network
from tests.torch.killing import reaped
from tests.torch.ranks import begun, came_through, failure, is_stopped, killed, together
from tests.torch.several_ways import (
    QUIET,
    KillRanks,
    ShortWaits,
    SignalAt,
    result,
    same_weights,
    train,
    undisturbed_in,
)
from tests.torch.test_several_loops import shared_out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives what two processes end with that nobody disturbs, by the way of training."""
    return undisturbed_in(2, tmp_path_factory)


@pytest.fixture(scope="module")
def undisturbed_three(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives what three processes end with that nobody disturbs."""
    return undisturbed_in(3, tmp_path_factory)


@pytest.mark.parametrize(
    ("way", "step", "doomed"),
    [
        ("a_last_batch_of_one", 3, (0, 1, 2)),
        ("a_last_batch_of_one", 3, (0,)),
        ("groups_that_do_not_divide_and_batch_norm", 5, (1,)),
    ],
)
def test_three_processes_go_on_bit_for_bit(way, step, doomed, undisturbed_three, tmp_path):
    options: dict[str, Any] = {"callbacks": [KillRanks(step, doomed)], "save_every": 1}
    statuses = together(lambda _: train(tmp_path, way, **options), 3, tmp_path)
    assert [rank for rank in range(3) if killed(statuses[rank])] == list(doomed)
    for rank in {0, 1, 2} - set(doomed):
        assert "ProcessLostError" in failure(tmp_path, rank)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 8
    came_through(lambda _: train(tmp_path, way), 3, tmp_path)
    same_weights(tmp_path, 3)
    assert result(tmp_path) == undisturbed_three(way)


# 44 samples in batches of 43 and 1, or of 33 and 11; each life ends within an epoch.
CHAINS = [(43, (2, 4, 1, 3)), (33, (1, 2, 3, 4))]


@pytest.mark.parametrize(("batch_size", "counts"), CHAINS)
def test_each_sample_counts_once_whatever_number_of_processes_goes_on(batch_size, counts, tmp_path):
    """Its weight in the loss says so: one dropped or doubled would change the curve."""

    def work(folder: Path, steps: int) -> None:
        history = colabkit.fit(
            network(dropout=0.0),
            arrays(),
            folder / "run",
            optimizer=lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
            max_steps=steps,
            **{**QUIET, "epochs": 4, "batch_size": batch_size},
        )
        if not dist.is_initialized() or dist.get_rank() == 0:
            losses = history.numbers()["steps"]["loss"].tolist()
            (folder / "losses").write_text(json.dumps(losses))

    for number, count in enumerate(counts):
        steps = 2 * number + (1 if number < 3 else 2)
        came_through(lambda _, to=steps: work(tmp_path / "chain", to), count, tmp_path / "chain")
    came_through(lambda _: work(tmp_path / "alone", 8), 1, tmp_path / "alone")
    chain, alone = (json.loads((tmp_path / n / "losses").read_text()) for n in ("chain", "alone"))
    assert len(chain) == 8
    assert chain == pytest.approx(alone, rel=2e-6)


class Fill:
    """Fills the disk of the process that writes, and makes room again later."""

    def __init__(self, disk: Path, full_at: int, free_at: int) -> None:
        self.ballast, self.full_at, self.free_at = disk / "ballast", full_at, free_at

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if dist.get_rank() == 0 and step <= self.full_at:
            run.flush()  # a step that ends while a save is under way is not saved
        if dist.get_rank() == 0 and step == self.full_at:
            with self.ballast.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while True:
                    ballast.write(b"0" * 1024)
        if dist.get_rank() == 0 and step == self.free_at:
            self.ballast.unlink()


@pytest.mark.parametrize("free_at", [6, 1000])
def test_a_full_disk_of_process_0_costs_saves_and_no_step(free_at, undisturbed, tmp_path):
    def work(_: int) -> None:
        train(tmp_path, ckpt_dir=tmp_path / "disk" / "run", **options)

    (tmp_path / "disk").mkdir()
    options: dict[str, Any] = {"callbacks": [Fill(tmp_path / "disk", 3, free_at)], "save_every": 1}
    with small_disk(tmp_path / "disk", "size=600k"):
        statuses = together(work, 2, tmp_path)
        steps = [info.step for info in colabkit.checkpoints(tmp_path / "disk/run", verify=True)]
        if free_at < 12:
            assert statuses == [0, 0], failure(tmp_path, 0)
            assert result(tmp_path) == undisturbed("dropout_and_arrays")
            return
        assert "CheckpointWriteError" in failure(tmp_path, 0)
        assert "is full" in failure(tmp_path, 0)
        assert "Process 0 has stopped: CheckpointWriteError" in failure(tmp_path, 1)
        assert steps[0] == 2
        (tmp_path / "disk" / "ballast").unlink()
        options = {}
        came_through(work, 2, tmp_path)
        assert result(tmp_path) == undisturbed("dropout_and_arrays")


class WaitFor:
    """Waits in process 0 until another session has been there."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step and dist.get_rank() == 0:
            run.flush()
            (self.folder / "there").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.01)


def test_of_two_jobs_the_older_stops_in_all_its_processes(undisturbed, tmp_path):
    def older(_: int) -> None:
        train(tmp_path, callbacks=[WaitFor(tmp_path, 4)], save_every=1)

    children = begun(older, 2, tmp_path)
    while not ((tmp_path / "there").exists() or (tmp_path / "failure-0").exists()):
        time.sleep(0.01)
    newer = tmp_path / "newer"
    came_through(lambda _: train(newer, ckpt_dir=tmp_path / "run"), 2, newer)
    newest = colabkit.checkpoints(tmp_path / "run", verify=True)[0]
    (tmp_path / "go").touch()
    assert 0 not in [reaped(child) for child in children]
    assert "LeaseLostError" in failure(tmp_path, 0)
    assert "Process 0 has stopped: LeaseLostError" in failure(tmp_path, 1)
    assert result(newer) == undisturbed("dropout_and_arrays")
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0] == newest


def test_a_process_0_that_was_cut_off_writes_nothing_where_others_went_on(undisturbed, tmp_path):
    """Like a machine that comes back after the network was gone, and the job began anew without."""

    def cut_off(rank: int) -> None:
        callbacks = [ShortWaits(4, rank=1), SignalAt(4, signal.SIGSTOP, rank=0)]
        train(tmp_path, callbacks=callbacks, save_every=1)

    children = begun(cut_off, 2, tmp_path)
    assert is_stopped(children[0])
    assert reaped(children[1]) != 0
    assert "ProcessLostError" in failure(tmp_path, 1)
    came_through(lambda _: train(tmp_path / "new", ckpt_dir=tmp_path / "run"), 2, tmp_path / "new")
    newest = colabkit.checkpoints(tmp_path / "run", verify=True)[0]
    os.kill(children[0], signal.SIGCONT)
    assert reaped(children[0]) != 0
    assert "Error" in failure(tmp_path, 0)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0] == newest
    assert result(tmp_path / "new") == undisturbed("dropout_and_arrays")


def test_a_process_that_stands_still_with_the_store_of_all_is_an_error_in_the_other(tmp_path):
    """Without torchrun process 0 has it, and its machine acknowledges what it is asked."""

    def work(rank: int) -> None:
        world.DEADLINE_S, world.PATIENCE_S = 6.0, 1.0
        train(tmp_path, callbacks=[SignalAt(4, signal.SIGSTOP, rank=0)])

    children = begun(work, 2, tmp_path, by_environment=True)
    assert is_stopped(children[0])
    assert reaped(children[1]) != 0
    assert "ProcessLostError" in failure(tmp_path, 1)
    os.kill(children[0], signal.SIGKILL)
    reaped(children[0])


class Slow(Augmented):
    """Has a sample for which process 1 waits until process 0 has given up."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.report = folder / "failure-0"

    def __getitem__(self, index: int) -> Any:
        while dist.get_rank() == 1 and index == 7 and not self.report.exists():
            time.sleep(0.01)
        return super().__getitem__(index)


def loop_over_run_in_process_0(folder: Path) -> None:
    """As where a run is taken for what process 0 alone needs to save with."""
    model = DistributedDataParallel(network())
    run = colabkit.Run(folder / "run", model=model, progress=False)
    for x, y in shared_out() if dist.get_rank() else run.batches(shared_out()):
        nn.functional.cross_entropy(model(x), y).backward()


@pytest.mark.parametrize("how", ["stopped", "waits for a sample", "in no loop over the run"])
def test_it_is_said_which_process_is_waited_for_until_the_deadline(how, tmp_path):
    def work(rank: int) -> None:
        world.DEADLINE_S, world.PATIENCE_S = 6.0, 1.0
        logging.basicConfig(filename=tmp_path / f"log-{rank}", force=True)
        if how == "stopped":
            train(tmp_path, callbacks=[SignalAt(4, signal.SIGSTOP, rank=1)])
        elif how == "waits for a sample":
            train(tmp_path, data=Slow(tmp_path))
        else:
            loop_over_run_in_process_0(tmp_path)

    statuses = together(work, 2, tmp_path)
    assert 0 not in statuses
    assert "ProcessLostError" in failure(tmp_path, 0)
    said = (tmp_path / "log-0").read_text()
    assert "Waiting for process 1 on " in said
    assert ("(in no loop over the run) since" in said) is (how == "in no loop over the run")
    assert " since step " in said


@pytest.mark.parametrize(
    ("waiting", "by_environment"),
    [(0, False), (0, True), (1, True)],
    ids=["at the roll call", "at its own store", "at the store of process 0"],
)
def test_a_process_that_never_comes_is_an_error_within_the_deadline(
    waiting, by_environment, tmp_path
):
    def work(rank: int) -> None:
        world.DEADLINE_S = 1.5
        if rank == waiting:
            words = r"(?s)have not come together.*call of fit or Run"
            with pytest.raises(ProcessLostError, match=words):
                train(tmp_path)

    came_through(work, 2, tmp_path, by_environment=by_environment)
    assert not (tmp_path / "run").exists()


class NudgeUnseen:
    """Writes to the weights of one process where PyTorch does not see it."""

    def __init__(self, model: nn.Module, rank: int) -> None:
        self.model, self.rank = model, rank

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()  # so that the next save begins at once
        if step == 4 and dist.get_rank() == self.rank:
            self.model[0].weight.data[0] += 1e-3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_write_through_data_in_one_process_is_an_error_before_it_is_saved(
    rank, undisturbed, tmp_path
):
    def work(_: int) -> None:
        model = network()
        train(tmp_path, model=model, callbacks=[NudgeUnseen(model, rank)], save_every=1)

    assert 0 not in together(work, 2, tmp_path)
    for each in (0, 1):
        assert "ReplicasDifferError: By step 4" in failure(tmp_path, each)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step <= 3
    came_through(lambda _: train(tmp_path), 2, tmp_path)
    assert result(tmp_path) == undisturbed("dropout_and_arrays")
