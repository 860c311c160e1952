"""Checkpoints of several processes that are torn while they are copied, or damaged later."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn

import colabkit
from colabkit.checkpoint import RunFolder, saver
from colabkit.frameworks.torch import TorchBackend, world
from tests import abilities
from tests.torch.cases import network
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_pieces import train_in_pieces
from tests.torch.several_ways import KillRanks, result, same_weights, train


class Shrinking(nn.Module):
    """Writes to its weights in forward, past PyTorch's count: while a save copies them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.first, self.middle = nn.Linear(6, 700), nn.Linear(700, 700, bias=False)
        self.last = nn.Linear(700, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.middle.weight.data.mul_(0.999)
        return self.last(self.middle(self.first(x).relu()))


class Freezing:
    """Freezes a weight and thaws it again, so that the model is wrapped anew, twice."""

    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.weight.requires_grad_(step not in {4, 5})


def test_that_the_wrapper_writes_the_weights_of_process_0_into_all_tears_no_save(tmp_path):
    def work(_: int) -> None:
        copy = saver.copy_tensors

        def slowly(tensors: Any, backend: Any) -> Any:
            if threading.current_thread().name == "colabkit-saver":
                time.sleep(0.2)
            return copy(tensors, backend)

        saver.copy_tensors = slowly
        model = nn.Sequential(nn.Linear(6, 700), nn.Linear(700, 700), nn.Linear(700, 3))
        train(tmp_path, model=model, callbacks=[Freezing(model[2].bias)], save_every=1, epochs=1)

    came_through(work, 2, tmp_path)
    loaded = RunFolder(tmp_path / "run").newest_valid(TorchBackend(torch.device("cpu")))
    assert loaded is not None
    assert loaded.facts.step == 6
    assert not loaded.sections["watch"]["writes_unseen"]


WAYS_TO_SAVE = [
    pytest.param(train_in_pieces, marks=pytest.mark.needs(abilities.PIECES), id="pieces"),
    pytest.param(train, id="copies"),
]


@pytest.mark.parametrize("trained", WAYS_TO_SAVE)
def test_a_save_in_the_course_is_one_meeting_beside_that_which_agrees_on_it(trained, tmp_path):
    """Once savers copy and hash, a meeting would hold all of them for longer than the snapshot."""

    def work(_: int) -> None:
        met, gather, of_steps = [], world.World.gather, {}

        def noted(self: Any, value: Any, *, at: str) -> Any:
            met.append(at)
            return gather(self, value, at=at)

        class Counting:
            def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
                run.flush()
                of_steps[step] = len(met)

        world.World.gather = noted  # type: ignore[method-assign]
        trained(tmp_path, callbacks=[Counting()], save_every=1, epochs=1)
        assert [of_steps[step + 1] - of_steps[step] for step in range(1, 5)] == [2] * 4, met

    came_through(work, 2, tmp_path)


class Flushing:
    """Waits for each save, and takes down how many meetings there were up to each step."""

    def __init__(self) -> None:
        self._met = 0
        self.of_steps: dict[int, int] = {}
        gather = world.World.gather

        def counted(joined: Any, value: Any, *, at: str) -> Any:
            self._met += 1
            return gather(joined, value, at=at)

        world.World.gather = counted  # type: ignore[method-assign]

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()
        self.of_steps[step] = self._met


def test_a_save_that_is_foreseen_is_compared_where_it_is_agreed_on(tmp_path):
    def work(_: int) -> None:
        flushing = Flushing()
        train(tmp_path, callbacks=[flushing], save_every=2, epochs=1, keep=20)
        met = flushing.of_steps
        # The first step of a session is compared whether it is saved or not.
        assert [met[step + 1] - met[step] for step in range(2, 5)] == [1] * 3, met

    came_through(work, 2, tmp_path)
    steps = [info.step for info in colabkit.checkpoints(tmp_path / "run", verify=True)]
    assert {2, 4, 6} <= set(steps)


class NudgeAt:
    """Changes a weight in one process alone, behind a step."""

    def __init__(self, model: nn.Module, step: int) -> None:
        self.model, self.step = model, step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()
        if step == self.step and dist.get_rank() == 1:
            self.model[0].bias.data[0] += 1e-3


@pytest.mark.parametrize("step", [2, 3])
def test_no_save_that_is_foreseen_is_of_weights_that_have_come_apart(step, tmp_path):
    def work(_: int) -> None:
        model = network()
        train(tmp_path, model=model, callbacks=[NudgeAt(model, step)], save_every=2, keep=20)

    assert 0 not in together(work, 2, tmp_path)
    for rank in (0, 1):
        assert "ReplicasDifferError" in failure(tmp_path, rank)
    steps = [info.step for info in colabkit.checkpoints(tmp_path / "run", verify=True)]
    assert max(steps) <= step


class Recorded:
    """Keeps the weights of each step of process 0."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model, self.folder = model, folder

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if not dist.get_rank():
            torch.save(self.model.middle.weight.data, self.folder / f"step-{step}")


def test_weights_written_while_they_are_copied_are_saved_as_they_were(tmp_path):
    def work(folder: Path, doomed: tuple[int, ...]) -> None:
        model = Shrinking()
        callbacks = [Recorded(model, folder), KillRanks(7, doomed)]
        train(folder, model=model, callbacks=callbacks, save_every=1, keep=20)

    broken, whole = tmp_path / "broken", tmp_path / "whole"
    statuses = together(lambda _: work(broken, (0, 1)), 2, broken)
    assert all(map(killed, statuses))
    saved = [info for info in colabkit.checkpoints(broken / "run", verify=True) if info.step]
    assert saved
    for info in saved:
        (file,) = info.weights_files
        then = torch.load(broken / f"step-{info.step}", weights_only=True)
        assert torch.equal(safetensors.torch.load_file(file)["middle.weight"], then)
    came_through(lambda _: work(broken, ()), 2, broken)
    came_through(lambda _: work(whole, ()), 2, whole)
    same_weights(broken)
    assert result(broken) == result(whole)


@pytest.mark.parametrize(
    "trained",
    [train, pytest.param(train_in_pieces, marks=pytest.mark.needs(abilities.PIECES))],
)
def test_a_flipped_byte_in_the_newest_checkpoint_costs_that_one_alone(trained, tmp_path):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    callbacks = [KillRanks(5, (0, 1))]
    together(lambda _: trained(broken, callbacks=callbacks, save_every=1), 2, broken)
    newest, before = colabkit.checkpoints(broken / "run", verify=True)[:2]
    weights = Path(newest.weights_files[0])
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = colabkit.checkpoints(broken / "run", verify=True)
    left = [info.step for info in found if not info.problem]
    assert (before.step in left, newest.step in left) == (True, False)
    came_through(lambda _: trained(broken), 2, broken)
    came_through(lambda _: trained(whole), 2, whole)
    same_weights(broken)
    assert result(broken) == result(whole)
