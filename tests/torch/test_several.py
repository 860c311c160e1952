"""Several processes train one model: the same call, each batch in parts, bitwise after kills."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from tests.torch.cases import SAMPLES, Augmented, arrays, network
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import (
    QUIET,
    WAYS,
    KillRanks,
    SignalAt,
    result,
    same_weights,
    train,
    undisturbed_in,
)

SOAK = bool(os.environ.get("COLABKIT_SOAK"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives what two processes end with that nobody disturbs, by the way of training."""
    return undisturbed_in(2, tmp_path_factory)


DEATHS = dict(zip(WAYS, itertools.cycle([(0, 1), (1,), (0,)]), strict=False))


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], None]:
    """Puts there what two processes leave of which one, or both, were killed in a step."""
    known: dict[str, Path] = {}

    def copied(way: str, folder: Path) -> None:
        if way not in known:
            known[way] = tmp_path_factory.mktemp(f"died-{way}")
            options: dict[str, Any] = {"callbacks": [KillRanks(3, DEATHS[way])], "save_every": 1}
            statuses = together(lambda _: train(known[way], way, **options), 2, known[way])
            assert all(killed(statuses[rank]) for rank in DEATHS[way])
            for rank in {0, 1} - set(DEATHS[way]):
                assert "ProcessLostError" in failure(known[way], rank), statuses
        shutil.copytree(known[way] / "run", folder / "run")

    return copied


@pytest.mark.parametrize("way", WAYS)
def test_killed_processes_go_on_bit_for_bit(way, died, undisturbed, tmp_path):
    died(way, tmp_path)
    came_through(lambda _: train(tmp_path, way), 2, tmp_path)
    same_weights(tmp_path)
    assert result(tmp_path) == undisturbed(way)


@pytest.mark.parametrize("round_number", range(20 if SOAK else 1))
def test_processes_killed_at_any_instant_go_on_bit_for_bit(round_number, undisturbed, tmp_path):
    chooser = random.Random(round_number)
    way = chooser.choice(list(WAYS))

    def dying(rank: int) -> None:
        world.DEADLINE_S = 5.0
        if rank in doomed:  # the timer ends the process, wherever that is
            signal.setitimer(signal.ITIMER_REAL, instant_s)
        train(tmp_path, way, save_every=1)

    for _ in range(4 if SOAK else 2):
        doomed = chooser.choice([(0,), (1,), (0, 1)])
        instant_s = chooser.uniform(0.2, 1.2)
        together(dying, 2, tmp_path)
    came_through(lambda _: train(tmp_path, way), 2, tmp_path)
    same_weights(tmp_path)
    assert result(tmp_path) == undisturbed(way)


@pytest.mark.parametrize("way", WAYS)
def test_one_process_goes_on_bit_for_bit_where_two_began(way, died, undisturbed, tmp_path):
    died(way, tmp_path)
    came_through(lambda _: train(tmp_path, way), 1, tmp_path)
    assert result(tmp_path) == undisturbed(way)
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "validation_data": arrays(),
    "metrics": ["accuracy", "mae"],
    "clip_grad_norm": 0.3,
    "accumulate": 2,
}


def targets_of_numbers() -> dict[str, Any]:
    x, y = arrays()
    return {**PLAIN, "data": (x, y.float().unsqueeze(1).repeat(1, 3)), "metrics": "mae"}


SAME: dict[str, Callable[[], dict[str, Any]]] = {
    "a_last_batch_of_one_and_weighted_classes_that_do_not_count": lambda: {
        **PLAIN,
        "batch_size": 43,
        "metrics": "accuracy",
        "loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), ignore_index=2),
    },
    "a_last_batch_of_eleven_and_a_mean": lambda: {
        **targets_of_numbers(),
        "batch_size": 33,
        "validation_data": None,
    },
    "a_sum": lambda: {**PLAIN, "metrics": None, "loss": nn.CrossEntropyLoss(reduction="sum")},
}


@pytest.mark.parametrize("way", SAME)
def test_several_processes_give_the_numbers_of_one_to_rounding(way, tmp_path):
    def work(_: int, folder: Path) -> None:
        options = {**QUIET, "model": network(dropout=0.0), "data": arrays(), **SAME[way]()}
        model, data = options.pop("model"), options.pop("data")
        history = colabkit.fit(model, data, folder / "run", **options)
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
        steps = history.numbers()["steps"]["loss"].tolist()
        (folder / "numbers").write_text(json.dumps({"epochs": rows, "steps": steps}))

    found = {}
    for count in (1, 2, 3):
        folder = tmp_path / f"{count}"
        came_through(lambda rank, to=folder: work(rank, to), count, folder)
        found[count] = json.loads((folder / "numbers").read_text())
    for count in (2, 3):
        assert found[count]["steps"] == pytest.approx(found[1]["steps"], rel=1e-5)
        for row, alone in zip(found[count]["epochs"], found[1]["epochs"], strict=True):
            assert row == pytest.approx(alone, rel=1e-5)


class Noted(Augmented):
    """Writes down who fetches which sample, and what noise it gets."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        with (self.folder / f"fetched-{dist.get_rank()}").open("a") as log:
            log.write(f"{index} {float((x - self.x[index])[0])}\n")
        return x, y


class Drawing(nn.Module):
    """Writes down what each forward pass would draw."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.inner = network()
        self.folder = folder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with (self.folder / f"drawn-{dist.get_rank()}").open("a") as log:
            log.write(f"{float(torch.rand(()))}\n")
        return self.inner(x)


def test_each_process_fetches_its_samples_alone_and_draws_for_itself(tmp_path):
    came_through(
        lambda _: train(tmp_path, data=Noted(tmp_path), model=Drawing(tmp_path), epochs=3),
        2,
        tmp_path,
    )
    fetched = [
        [line.split() for line in (tmp_path / f"fetched-{rank}").read_text().splitlines()]
        for rank in (0, 1)
    ]
    # The last epoch's: what is read first is read again, to see whether it repeats.
    own = [[int(index) for index, _ in lines][-SAMPLES // 2 :] for lines in fetched]
    assert sorted(own[0] + own[1]) == list(range(SAMPLES))
    noise = [[each for _, each in lines][-SAMPLES // 2 :] for lines in fetched]
    drawn = [(tmp_path / f"drawn-{rank}").read_text().splitlines() for rank in (0, 1)]
    for one, other in (noise, drawn):
        assert len({*one, *other}) == len(one) + len(other)


class OwnLoop:
    """The loop that a person writes with DistributedDataParallel, over the very same batches."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, batches: list[list[int]]) -> None:
        self.x, self.y, self.batches = x, y, batches

    def train(self, model: nn.Module, rank: int, count: int) -> list[float]:
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for indices in self.batches:
            own = torch.tensor(indices).tensor_split(count)[rank]
            loss = functional.cross_entropy(wrapped(self.x[own]), self.y[own])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            both = loss.detach() / count
            dist.all_reduce(both)
            losses.append(float(both))
        return losses


class Batches(torch_data.Sampler[list[int]]):
    """Gives the same batches in each epoch."""

    def __init__(self, size: int) -> None:
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1)).tolist()
        self.batches = [order[at : at + size] for at in range(0, SAMPLES, size)]

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


@pytest.mark.parametrize("count", [2, 3])
def test_the_numbers_are_those_of_a_loop_written_by_hand(count, tmp_path):
    sampler = Batches(12)
    # Whole ones only: a loop written by hand weighs each part alike.
    sampler.batches = sampler.batches[:3]

    def work(rank: int) -> None:
        x, y = arrays()
        model, own = network(dropout=0.0), network(dropout=0.0)
        rows = torch_data.TensorDataset(x, y)
        history = colabkit.fit(
            model,
            torch_data.DataLoader(rows, batch_sampler=sampler),
            tmp_path / "run",
            epochs=2,
            optimizer=lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
            progress=False,
            device="cpu",
        )
        losses = OwnLoop(x, y, sampler.batches * 2).train(own, rank, count)
        pairs = list(zip(model.parameters(), own.parameters(), strict=True))
        if count == 2:
            assert all(torch.equal(one, other) for one, other in pairs)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(history.numbers()["steps"]["loss"], losses, rtol=1e-6)

    came_through(work, count, tmp_path)


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
        world.DEADLINE_S = 6.0
        train(tmp_path, callbacks=[SignalAt(4, signal.SIGSTOP, rank=1)])

    statuses = together(work, 2, tmp_path)
    assert statuses[0] != 0
    assert "ProcessLostError" in failure(tmp_path, 0)


def test_one_process_saves_parts_of_two_between_updates_alone(died, undisturbed, tmp_path):
    way = "groups_that_do_not_divide_and_batch_norm"
    died(way, tmp_path)
    callbacks = [SignalAt(8, signal.SIGINT, rank=0)]  # two into a group that ends at 10
    came_through(lambda _: train(tmp_path, way, callbacks=callbacks), 1, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step == 10
    came_through(lambda _: train(tmp_path, way), 1, tmp_path)
    assert result(tmp_path) == undisturbed(way)


class Broken(Augmented):
    def __getitem__(self, index: int) -> Any:
        if dist.get_rank() == 1 and index == 7:
            message = "sample 7 cannot be read"
            raise OSError(message)
        return super().__getitem__(index)


def test_an_error_in_one_process_is_told_in_the_other(tmp_path):
    statuses = together(lambda _: train(tmp_path, data=Broken()), 2, tmp_path)
    assert 0 not in statuses
    assert "OSError: sample 7 cannot be read" in failure(tmp_path, 1)
    assert "ProcessLostError" in failure(tmp_path, 0)


class Margins(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(3))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(output + self.centres, target)


class Unsteady(torch_data.Sampler[int]):
    def __iter__(self) -> Any:
        return iter(sorted(range(SAMPLES), key=lambda _: os.urandom(4)))

    def __len__(self) -> int:
        return SAMPLES


class Listed(Augmented):
    """Has its samples in the order in which a process came upon them."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.x = self.x.roll(rank, 0)


def refusals(rank: int) -> dict[str, dict[str, Any]]:
    rows = Augmented()
    shared = torch_data.DistributedSampler(rows, num_replicas=2, rank=rank)
    return {
        "it is read as a stream": {"data": [(torch.ones(4, 6), torch.ones(4).long())]},
        "DistributedSampler": {"data": torch_data.DataLoader(rows, sampler=shared)},
        "another order each time": {"data": torch_data.DataLoader(rows, sampler=Unsteady())},
        "microbatch is given": {"microbatch": 4},
        "which fit does itself": {"model": DistributedDataParallel(network())},
        "weights of its own": {"loss": Margins()},
        "batch_size": {"batch_size": 8 + rank},
        "do not add up": {"loss": lambda o, y: functional.cross_entropy(o, y) ** 2 + o.std()},
        "metrics cannot take them together": {
            "metrics": "mae",
            "model": Pooled(),
            "loss": lambda output, _: output.mean(),
        },
        "other data": {"data": Listed(rank)},
    }


class Pooled(nn.Module):
    """Gives one row for a whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).mean(0)


REFUSALS = [
    "it is read as a stream",
    "DistributedSampler",
    "another order each time",
    "microbatch is given",
    "which fit does itself",
    "weights of its own",
    "batch_size",
    "do not add up",
    "metrics cannot take them together",
    "other data",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_what_cannot_be_shared_out_is_refused_and_named(words, tmp_path):
    def work(rank: int) -> None:
        options = refusals(rank)[words]
        given = {"optimizer": "sgd", "model": network(), "data": arrays(), **QUIET, **options}
        with pytest.raises(ColabKitError, match=words):
            colabkit.fit(given.pop("model"), given.pop("data"), tmp_path / "run", **given)
        dist.barrier()

    came_through(work, 2, tmp_path)


def test_a_launcher_in_the_environment_is_enough_and_three_resume_as_three(tmp_path):
    def work(rank: int, **options: Any) -> None:
        train(tmp_path, "augmented_samples_and_validation", **options)

    came_through(work, 3, tmp_path, by_environment=True)
    alone = result(tmp_path)
    same_weights(tmp_path, 3)
    shutil.rmtree(tmp_path / "run")
    statuses = together(
        lambda rank: work(rank, callbacks=[KillRanks(3, (2,))], save_every=1), 3, tmp_path
    )
    assert killed(statuses[2])
    came_through(work, 3, tmp_path)
    assert result(tmp_path) == alone
    assert "provided 3 processes go on" in (tmp_path / "verdict").read_text()


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [(1, 2, "was taken in 1 parts, is taken in 2"), (3, 2, "3 processes summed the gradients")],
)
def test_another_number_of_processes_goes_on_and_says_what_is_not_exact(
    first, then, words, tmp_path
):
    came_through(lambda _: train(tmp_path, max_steps=4), first, tmp_path)
    came_through(lambda _: train(tmp_path), then, tmp_path)
    same_weights(tmp_path, then)
    assert result(tmp_path)["step"] == 12
    assert words in (tmp_path / "verdict").read_text()
    model = network()  # one process reads what several wrote
    colabkit.load(model, tmp_path / "run")
    weights = torch.load(tmp_path / "weights-0", weights_only=True)
    assert all(torch.equal(weights[name], each) for name, each in model.state_dict().items())


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
