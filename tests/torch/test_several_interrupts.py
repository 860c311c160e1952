"""Interrupts of one process of several, at the instants at which the processes speak of them."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

import colabkit
from tests.abilities import SOAK
from tests.torch.ranks import came_through, failure, together
from tests.torch.several_ways import result, train, undisturbed_in


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return undisturbed_in(2, tmp_path_factory)("dropout_and_arrays")


class SignalInMeeting:
    """Sends a signal to a process while it is in a meeting with the others, after some step.

    Args:
        number: Of the signal.
        meetings: Which of the meetings from then on it is, the first being 0.
        step: After which one.
        rank: Number of the process.
    """

    def __init__(self, number: int, meetings: int, *, step: int = 4, rank: int = 1) -> None:
        self.number, self.left, self.step, self.rank = number, meetings, step, rank

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step and dist.get_rank() == self.rank:
            gather = dist.all_gather_object

            def signalled(*given: Any, **named: Any) -> None:
                gather(*given, **named)
                self.left -= 1
                if self.left < 0:
                    dist.all_gather_object = gather
                    os.kill(os.getpid(), self.number)

            dist.all_gather_object = signalled


@pytest.mark.parametrize("meetings", [0, 1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_a_meeting_is_heard_at_the_next(
    number, meetings, undisturbed, tmp_path
):
    def work(rank: int) -> None:
        # A save at each step, or the processes would meet but a few times.
        callbacks = [SignalInMeeting(number, meetings)]
        history = train(tmp_path, callbacks=callbacks, save_every=1)
        (tmp_path / f"returned-{rank}").write_text(f"{len(history.steps)}")

    statuses = together(work, 2, tmp_path)
    assert statuses == [0, 0 if number == signal.SIGINT else signal.SIGTERM]
    assert int((tmp_path / "returned-0").read_text()) < 12
    assert 4 <= colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 12
    came_through(lambda _: train(tmp_path), 2, tmp_path)
    assert result(tmp_path) == undisturbed


class SignalAtEnd:
    """Sends a signal to a process when all is trained and saved."""

    def __init__(self, number: int, rank: int) -> None:
        self.number, self.rank = number, rank

    def on_train_end(self, run: Any) -> None:
        if dist.get_rank() == self.rank:
            os.kill(os.getpid(), self.number)


def ends_alone(folder: Path, callback: Any, rank: int) -> bool:
    """Trains with a callback that ends one process; returns whether it did."""
    statuses = together(lambda _: train(folder, callbacks=[callback]), 2, folder)
    if statuses == [0, 0]:
        return False
    assert statuses[rank] == signal.SIGTERM, failure(folder, rank)
    assert statuses[1 - rank] == 0, failure(folder, 1 - rank)
    assert colabkit.checkpoints(folder / "run", verify=True)[0].step == 12
    return True


@pytest.mark.parametrize("rank", [0, 1])
def test_an_end_that_is_asked_for_when_all_is_trained_leaves_the_others_alone(rank, tmp_path):
    assert ends_alone(tmp_path, SignalAtEnd(signal.SIGTERM, rank), rank)


def test_an_end_that_is_asked_for_during_the_last_save_leaves_the_others_alone(tmp_path):
    assert ends_alone(tmp_path, SignalInMeeting(signal.SIGTERM, 4, step=12), 1)


@pytest.mark.soak
@pytest.mark.needs(SOAK)
@pytest.mark.parametrize("rank", [0, 1])
def test_an_end_that_is_asked_for_in_any_meeting_of_the_end_leaves_the_others_alone(rank, tmp_path):
    for meetings in itertools.count():
        callback = SignalInMeeting(signal.SIGTERM, meetings, step=12, rank=rank)
        if not ends_alone(tmp_path / f"{meetings}", callback, rank):
            break  # all are through before there are so many
    assert meetings > 3
