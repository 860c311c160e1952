"""Interrupts of one process of several, at the instants at which the processes speak of them."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch.distributed as dist

import colabkit
from tests.torch.ranks import came_through, together
from tests.torch.several_ways import result, train, undisturbed_in


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return undisturbed_in(2, tmp_path_factory)("dropout_and_arrays")


class SignalInMeeting:
    """Sends a signal to a process while it is in a meeting with the others, after some steps.

    Args:
        number: Of the signal.
        meetings: Which of the meetings from then on it is, the first being 0.
    """

    def __init__(self, number: int, meetings: int) -> None:
        self.number, self.left = number, meetings

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == 4 and dist.get_rank() == 1:
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
