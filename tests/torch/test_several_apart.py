"""Processes whose own loops take other ways hear of it while they wait in their own wrappers.

Those that fail live on until the others have ended, as a script does that catches its error: what
ends the others is not that its connections close with it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import colabkit
from colabkit.errors import ColabKitError, ProcessesApartError
from colabkit.frameworks.torch import world
from colabkit.frameworks.torch.beats import Doing
from colabkit.runs import agreeing
from tests import abilities
from tests.torch.cases import network
from tests.torch.ranks import came_through
from tests.torch.several_pieces import in_pieces
from tests.torch.test_several_loops import shared_out

WAIT_S = 60
Event = Callable[[str, int], None]


class BoomError(Exception):
    """No error that anybody knows."""


def loop(folder: Path, event: Event, *, pieces: bool = False) -> None:
    """The loop that a person writes; ``event`` is told of each place in it."""
    model: Any = in_pieces(network()) if pieces else DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=None)
    for epoch in run.epochs(2):
        with contextlib.suppress(StopIteration, KeyError):
            for x, y in run.batches(shared_out()):
                event("before", run.step)
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                event("between", run.step)
                optimizer.step()
                event("behind", run.step)
                try:
                    event("breaks", run.step)
                except LookupError:
                    break
        event("head", epoch)


def pass_alone(folder: Path, event: Event) -> None:
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False)
    for x, y in run.batches(shared_out()):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        try:
            event("breaks", run.step)
        except LookupError:
            break


def raising(place: str, error: BaseException | type[BaseException]) -> Event:
    def event(where: str, count: int) -> None:
        is_there = where == place and count == (0 if place == "head" else 3)
        if is_there and dist.get_rank() == 1:
            raise error

    return event


def ends_of_both(folder: Path, work: Callable[[], Any]) -> list[str]:
    """Lets this process come to an end, and live on until the other has; returns what both say."""
    rank = dist.get_rank()
    try:
        work()
        said = ""
    except (ColabKitError, BoomError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}"
    (folder / f"ending-{rank}").write_text(said)
    (folder / f"ending-{rank}").rename(folder / f"ended-{rank}")  # whole, once it is there
    until_s = time.monotonic() + WAIT_S
    ends = [folder / f"ended-{each}" for each in range(dist.get_world_size())]
    while not all(end.exists() for end in ends):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return [end.read_text() for end in ends]


def soon(folder: Path, rank: int) -> None:
    """Has it be seen after a second or so that all stand still, and what is logged be written.

    No meeting of the run is near, at which they would see that they have come apart.
    """
    world.PATIENCE_S, agreeing._MEET_EVERY_S = 6.0, 60.0
    logging.basicConfig(filename=folder / f"log-{rank}", force=True)


@pytest.mark.parametrize(
    ("place", "pieces"),
    [
        ("before", False),
        ("between", False),
        ("head", False),
        pytest.param("before", True, marks=pytest.mark.needs(abilities.PIECES)),
    ],
)
def test_an_error_in_the_loop_of_one_process_alone_ends_the_others(place, pieces, tmp_path):
    def work(rank: int) -> None:
        soon(tmp_path, rank)
        event = raising(place, BoomError)
        ends = ends_of_both(tmp_path, lambda: loop(tmp_path / "run", event, pieces=pieces))
        assert ends[1].startswith("BoomError")
        assert ends[0], "it has come through"

    came_through(work, 2, tmp_path)
    said = (tmp_path / "log-0").read_text() + (tmp_path / "ended-0").read_text()
    assert "Process 1 has left its loop in step" in said


def behind(folder: Path, event: Event) -> None:
    """A loop that all come through, and one more meeting of the user's own."""
    loop(folder, lambda *_: None)
    event("before", 3)
    dist.barrier()


@pytest.mark.parametrize("train", [loop, behind])
def test_the_words_of_an_error_that_nobody_catches_are_told_to_the_others(train, tmp_path):
    def work(rank: int) -> None:
        soon(tmp_path, rank)
        event, usual = raising("before", BoomError("its own words\nin two lines")), sys.excepthook
        try:
            train(tmp_path / "run", event)
        except (BoomError, ColabKitError, RuntimeError) as error:
            sys.excepthook(type(error), error, error.__traceback__)  # as Python does, and ends
            (tmp_path / f"ended-{rank}").write_text(str(error))
        world.leave()
        assert sys.excepthook is usual

    came_through(work, 2, tmp_path)
    said = (tmp_path / "log-0").read_text() + (tmp_path / "ended-0").read_text()
    assert said.count("Process 1 has stopped: BoomError: its own words.") == 1


@pytest.mark.parametrize("train", [loop, pass_alone])
def test_a_break_in_one_process_alone_is_an_error_in_all(train, tmp_path):
    def work(rank: int) -> None:
        soon(tmp_path, rank)
        event = raising("breaks", LookupError)
        ends = ends_of_both(tmp_path, lambda: train(tmp_path / "run", event))
        assert ends[0], "it has come through"

    came_through(work, 2, tmp_path)
    said = [(tmp_path / f"{name}-{n}").read_text() for n in (0, 1) for name in ("log", "ended")]
    assert "Process 1 has come to " in said[0]
    assert "and process 0 waits for it in step" in said[0]
    assert "The processes have come apart" in said[2] + said[3]


def test_an_error_that_one_process_catches_within_its_loop_is_one_in_all(tmp_path):
    def work(rank: int) -> None:
        soon(tmp_path, rank)
        event = raising("between", KeyError)
        ends = ends_of_both(tmp_path, lambda: loop(tmp_path / "run", event))
        assert ends[1].startswith(ProcessesApartError.__name__)
        assert ends[0], "it has come through"

    came_through(work, 2, tmp_path)
    assert "Process 1 has come to the weights of step 3" in (tmp_path / "log-0").read_text()


def heard(count: int) -> None:
    """Waits until the other process has said so often that it waits for this one."""
    board, until_s = world._joined[-1]._board, time.monotonic() + WAIT_S
    numbers: set[int] = set()
    while len(numbers) <= count:
        assert time.monotonic() < until_s
        beat = board.beats(2)[1 - dist.get_rank()]
        if beat.place.doing is Doing.MEETS:
            numbers.add(beat.number)
        time.sleep(0.01)


def test_an_error_by_which_all_leave_their_loops_is_none_for_who_is_slower(tmp_path):
    def work(rank: int) -> None:
        world.PATIENCE_S = 1.0
        model = DistributedDataParallel(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = colabkit.Run(tmp_path / "run", model=model, optimizer=optimizer, progress=False)
        for each in range(3):
            with contextlib.suppress(BoomError):
                for number, (x, y) in enumerate(run.batches(shared_out())):
                    optimizer.zero_grad()
                    functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
                    if number == 2:
                        raise BoomError
            if rank == 1 and each == 0:
                heard(5)
        assert run.step == 6  # who raises leaves its step undone

    came_through(work, 2, tmp_path)
