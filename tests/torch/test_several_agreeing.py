"""What several processes agree on: when they end, what has failed, and that they are alike."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch.distributed as dist
from torch import nn

import colabkit
from tests.torch.cases import network
from tests.torch.ranks import came_through, failure, together
from tests.torch.several_ways import (
    Broken,
    ShortWaits,
    SignalAt,
    result,
    same_weights,
    train,
    undisturbed_in,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives what two processes end with that nobody disturbs, by the way of training."""
    return undisturbed_in(2, tmp_path_factory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_one_process_saves_and_returns_in_all(number, undisturbed, tmp_path):
    def work(rank: int) -> None:
        history = train(tmp_path, callbacks=[SignalAt(4, number, rank=1)])
        (tmp_path / f"returned-{rank}").write_text(f"{len(history.steps)}")

    statuses = together(work, 2, tmp_path)
    returned = sorted(path.name for path in tmp_path.glob("returned-*"))
    if number == signal.SIGINT:
        assert (statuses, returned) == ([0, 0], ["returned-0", "returned-1"])
    else:
        # Who was told to end does, once all is saved.
        assert (statuses, returned) == ([0, signal.SIGTERM], ["returned-0"])
    step = colabkit.checkpoints(tmp_path / "run", verify=True)[0].step
    assert 4 <= step < 12
    came_through(lambda _: train(tmp_path), 2, tmp_path)
    assert result(tmp_path) == undisturbed("dropout_and_arrays")


def test_a_process_that_hangs_is_an_error_in_the_other_within_the_deadline(tmp_path):
    def work(rank: int) -> None:
        train(tmp_path, callbacks=[ShortWaits(4, rank=0), SignalAt(4, signal.SIGSTOP, rank=1)])

    statuses = together(work, 2, tmp_path)
    assert statuses[0] != 0
    assert "ProcessLostError" in failure(tmp_path, 0)


def test_an_error_in_one_process_is_told_in_the_other(tmp_path):
    statuses = together(lambda _: train(tmp_path, data=Broken()), 2, tmp_path)
    assert 0 not in statuses
    assert "OSError: sample 7 cannot be read" in failure(tmp_path, 1)
    assert "ProcessLostError" in failure(tmp_path, 0)


class StopByRank:
    """Asks to stop, where it is not to be asked."""

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        if dist.get_rank() == (epoch + 1) % 2:
            run.stop(f"process {dist.get_rank()}")


def test_rank_0_decides_when_the_training_stops(tmp_path):
    def work(rank: int) -> None:
        history = train(tmp_path, epochs=5, callbacks=[StopByRank()])
        assert len(history.epochs) == 2

    came_through(work, 2, tmp_path)


class Nudge:
    """Changes a weight in one process alone."""

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        if dist.get_rank() == 1:
            self.model[0].bias.data[0] += 1e-3

    def __init__(self, model: nn.Module) -> None:
        self.model = model


def test_copies_that_have_come_apart_are_an_error(tmp_path):
    def work(rank: int) -> None:
        model = network()
        train(tmp_path, model=model, callbacks=[Nudge(model)])

    statuses = together(work, 2, tmp_path)
    assert 0 not in statuses
    for rank in (0, 1):
        assert "ReplicasDifferError" in failure(tmp_path, rank)


def test_time_that_is_up_in_one_process_ends_all_at_one_step(tmp_path):
    def work(rank: int) -> None:
        train(tmp_path, epochs=10_000, max_time=0.6 if rank == 0 else 600.0)

    came_through(work, 2, tmp_path)
    same_weights(tmp_path)
