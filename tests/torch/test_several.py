"""Several processes train one model: the same call, each batch in parts, bitwise after kills."""

from __future__ import annotations

import copy
import datetime
import itertools
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import colabkit
from colabkit.frameworks.torch import world
from tests.torch.cases import network
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import (
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


def test_one_process_saves_parts_of_two_between_updates_alone(died, undisturbed, tmp_path):
    way = "groups_that_do_not_divide_and_batch_norm"
    died(way, tmp_path)
    callbacks = [SignalAt(8, signal.SIGINT, rank=0)]  # two into a group that ends at 10
    came_through(lambda _: train(tmp_path, way, callbacks=callbacks), 1, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step == 10
    came_through(lambda _: train(tmp_path, way), 1, tmp_path)
    assert result(tmp_path) == undisturbed(way)


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


def test_a_call_is_what_process_0_knows_it_to_be(tmp_path):
    """Other processes may have copies of what the notebook's own has trained and changed."""

    def work(rank: int) -> None:
        ends = []
        for each in ("alone", "copied"):
            model = network()
            for parameter in model[0].parameters():
                parameter.requires_grad_(False)
            train(tmp_path / each, model=model, epochs=1)
            for parameter in model[0].parameters():
                parameter.requires_grad_(True)
            if rank and each == "copied":
                model = copy.deepcopy(model)
            assert len(train(tmp_path / each, model=model).epochs) == 2
            ends.append(model.state_dict())
        assert all(torch.equal(ends[0][name], end) for name, end in ends[1].items())

    came_through(work, 2, tmp_path)


ENDS: dict[str, Callable[[], dict[str, Any]]] = {
    "in_mid_epoch": lambda: {"max_steps": 4},
    "with_an_epoch": dict,
    "by_an_interrupt": lambda: {"callbacks": [SignalAt(4, signal.SIGINT, rank=1)]},
}


@pytest.mark.parametrize("end", ENDS)
def test_statistics_of_batch_norm_are_those_that_were_saved_in_each_process(end, tmp_path):
    def work(_: int) -> None:
        train(tmp_path, model=network(norm=True), **ENDS[end]())

    came_through(work, 2, tmp_path)
    same_weights(tmp_path)
    saved = network(norm=True)
    colabkit.load(saved, tmp_path / "run")
    held = torch.load(tmp_path / "weights-1", weights_only=True)
    assert all(torch.equal(held[name], each) for name, each in saved.state_dict().items())


def test_a_restart_meets_apart_from_what_the_dead_have_left_in_the_launchers_store(monkeypatch):
    engine: Any = dist
    kept = engine.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{kept.port}", "RANK": "1"}
    for name, value in {**given, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    wait = datetime.timedelta(seconds=600)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert world._own_store(wait) == {}
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    met = world._own_store(wait)
    assert (met["rank"], met["world_size"]) == (1, 2)
    kept.set("address", "of one that is dead")
    assert not met["store"].check(["address"])
    met["store"].set("address", "of one that lives")
    assert kept.get("address") == b"of one that is dead"
