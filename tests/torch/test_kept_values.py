"""Plain variables of a loop that come back after a resume."""

from __future__ import annotations

import collections
import enum
import random
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import colabkit
from colabkit.errors import ArgumentError


class Cart:
    """An environment that can say where it is."""

    def __init__(self) -> None:
        self.at = 0.0

    def get_state(self) -> dict[str, float]:
        return {"at": self.at}

    def set_state(self, state: dict[str, float]) -> None:
        self.at = state["at"]


def values() -> dict[str, Any]:
    return {
        "best": 0.0,
        "name": "",
        "hidden": torch.zeros(3),
        "q": np.zeros((2, 2)),
        "seen": {},
        "memory": collections.deque(maxlen=3),
        "results": [],
        "chosen": set(),
        "place": (0, 0),
        "none": None,
        "cart": Cart(),
        "rng": np.random.default_rng(1),
        "draws": random.Random(1),
        "noise": torch.Generator().manual_seed(1),
    }


def live(folder: Path, *, until: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Changes every value once for each item; returns what was passed, and what is kept."""
    run = colabkit.Run(folder, progress=False, save_every=1)
    passed = values()
    kept = run.state(**passed)
    for item in run.items(range(9)):
        if item == until:
            break
        kept.best += item
        kept.name += str(item)
        kept.hidden += kept.rng.random() + kept.draws.random()
        kept.hidden += torch.rand(3, generator=kept.noise)
        kept.q[item % 2] += item
        kept.seen[str(item)] = kept.best
        kept.memory.append(item)
        kept.results.append([item])
        kept.chosen.add(item % 4)
        kept.place = (item, -item)
        kept.none = None if item % 2 else item
        kept.cart.at += 0.5 * item
        run.log(best=kept.best)
        run.flush()
        if item == until - 1:
            # As if killed: this session's last step is not saved.
            raise ZeroDivisionError
    return passed, vars(kept)["_values"]


def test_values_come_back_and_what_can_change_in_place_is_what_was_passed(tmp_path):
    _, alone = live(tmp_path / "alone", until=99)
    for until in (4, 7):
        with pytest.raises(ZeroDivisionError):
            live(tmp_path / "run", until=until)
    passed, resumed = live(tmp_path / "run", until=99)
    for name, value in alone.items():
        if isinstance(value, torch.Tensor | np.ndarray):
            assert resumed[name].tolist() == value.tolist()
        elif name not in {"cart", "rng", "draws", "noise"}:
            assert resumed[name] == value
            assert type(resumed[name]) is type(value)
    assert resumed["cart"].at == alone["cart"].at
    assert resumed["rng"].random() == alone["rng"].random()
    for name in ("hidden", "q", "seen", "memory", "results", "chosen", "cart", "rng"):
        assert resumed[name] is passed[name]


@pytest.mark.parametrize("is_hard", [False, True])
def test_the_mask_of_an_array_goes_on_with_it(is_hard, tmp_path):
    def kept_at(until: int) -> Any:
        run = colabkit.Run(tmp_path, progress=False, save_every=1)
        scores: Any = np.ma.array(np.arange(6.0), mask=False, hard_mask=is_hard)
        kept = run.state(scores=scores, rows=[scores.copy()])
        for item in run.items(range(6)):
            kept.scores[item] = np.ma.masked if item % 2 else 10
            kept.rows[0][item] = np.ma.masked
            run.flush()
            if item == until:
                raise ZeroDivisionError
        return kept

    with pytest.raises(ZeroDivisionError):
        kept_at(3)
    kept = kept_at(9)
    assert kept.scores.tolist() == [10, None, 10, None, 10, None]
    assert kept.scores.data.tolist() == [10, 1, 10, 3, 10, 5]
    assert kept.rows[0].tolist() == [None] * 6
    assert kept.scores.hardmask == is_hard


class Replay(list):
    """A memory that is written around in a ring."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.place = size, 0

    def keep(self, item: float) -> None:
        self[self.place : self.place + 1] = [item]
        self.place = (self.place + 1) % self.size


class Doing(enum.Flag):
    MOVES = enum.auto()
    LEARNS = enum.auto()


def replayed(folder: Path, *, until: int) -> tuple[Any, ...]:
    """A loop by a memory of its own; nothing is kept where the folder is none."""
    run = None if folder.name == "by hand" else colabkit.Run(folder, progress=False, save_every=1)
    passed = {"memory": Replay(3), "inner": {"memory": Replay(2)}, "doing": Doing.MOVES}
    kept = types.SimpleNamespace(**passed) if run is None else run.state(**passed)
    for item in range(9) if run is None else run.items(range(9)):
        kept.memory.keep(item + sum(kept.memory))
        kept.inner["memory"].keep(item - len(kept.memory))
        kept.doing = Doing.MOVES | Doing.LEARNS if item > 2 else Doing.MOVES
        if run is not None:
            run.log(size=len(kept.memory))
            run.flush()
        if item == until:
            raise ZeroDivisionError
    memories = [kept.memory, kept.inner["memory"]]
    return kept.doing, *((type(each), list(each), vars(each)) for each in memories)


def test_lists_of_a_class_of_ones_own_and_joined_flags_go_on_as_they_were(tmp_path):
    by_hand = replayed(tmp_path / "by hand", until=99)
    for until in (4, 7):
        with pytest.raises(ZeroDivisionError):
            replayed(tmp_path / "run", until=until)
    assert replayed(tmp_path / "run", until=99) == by_hand


def averaged(folder: Path, passed: Any, *, until: int) -> list[Any]:
    """Keeps weights and their average, and two names of one thing, all of which begin as one."""
    run = colabkit.Run(folder, progress=False, save_every=1)
    kept = run.state(weights=passed, average=passed, first=passed, second=passed)
    is_row = isinstance(passed, list)
    for item in run.items(range(6)):
        weights, average = (
            (kept.weights[0], kept.average[0]) if is_row else (kept.weights, kept.average)
        )
        made = weights + item + 1, average * 0.5 + weights * 0.5
        kept.weights, kept.average = ([made[0]], [made[1]]) if is_row else made
        kept.first[0] = kept.first[0] + 1
        run.log(item=item)
        run.flush()
        if item == until:
            raise ZeroDivisionError
    return [kept.weights, kept.average, kept.first, kept.second]


@pytest.mark.parametrize("library", [torch, np])
@pytest.mark.parametrize("in_list", [True, False])
def test_what_began_as_one_object_and_became_two_stays_two(library, in_list, tmp_path):
    def made() -> Any:
        return [library.zeros(3)] if in_list else library.zeros(3)

    alone = averaged(tmp_path / "alone", made(), until=-1)
    with pytest.raises(ZeroDivisionError):
        averaged(tmp_path / "run", made(), until=3)
    resumed = averaged(tmp_path / "run", made(), until=-1)
    assert repr(resumed) == repr(alone)
    assert resumed[2] is resumed[3]


def test_values_that_nobody_has_asked_for_yet_are_not_lost(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    kept = run.state(best=1.0)
    for _ in run.items("ab"):
        kept.best = 5.0
    later = colabkit.Run(tmp_path, progress=False)
    list(later.items("ab"))
    list(later.items("cd"))
    assert colabkit.Run(tmp_path, progress=False).state(best=0.0).best == 5.0


def test_a_value_passed_again_in_the_same_session_stays_as_it_is(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    run.state(best=1.0).best = 2.0
    assert run.state(best=1.0, other=3).best == 2.0


@pytest.mark.parametrize("beginning", [1.0, 5.0])
def test_what_is_kept_already_and_is_another_by_now_is_told_to_stay_once(
    beginning, tmp_path, capsys
):
    run = colabkit.Run(tmp_path)
    kept = run.state(pace=1.0, rows=[])
    assert run.state(pace=1.0, rows=[]).pace == 1.0
    assert "kept already" not in capsys.readouterr().out
    kept.pace = 2.0
    for _ in range(2):
        assert run.state(pace=beginning, rows=[]).pace == 2.0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("pace is kept already, and stays 2.0") == 1
    assert "rows" not in said


@pytest.mark.parametrize("value", [object(), lambda: None, [object()]])
def test_what_cannot_be_kept_is_named_at_once(value, tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    with pytest.raises(ArgumentError, match="env is a") as caught:
        run.state(env=value)
    assert caught.value.argument == "env"
    with pytest.raises(AttributeError, match=r"run\.state"):
        run.state(best=1).worst = 2


@pytest.mark.parametrize("value", [0.5, {"a": 1}, torch.zeros(2), [1]])
def test_a_plain_value_given_to_run_itself_is_pointed_to_state(value, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        colabkit.Run(tmp_path, progress=False, best=value)
    assert "run.state(best=...)" in caught.value.hint


def test_objects_whose_names_are_those_of_arguments_are_passed_in_a_dict(tmp_path):
    model, seed = torch.nn.Linear(2, 2), torch.Generator()
    colabkit.Run(tmp_path, model=model, objects={"seed": seed}, progress=False)
    with pytest.raises(ArgumentError, match="model is given twice"):
        colabkit.Run(tmp_path, model=model, objects={"model": model}, progress=False)
    with pytest.raises(ArgumentError, match="objects is a Linear, not a dict"):
        colabkit.Run(tmp_path, objects=model, progress=False)


def step_on(*values: Any) -> tuple[Any, ...]:
    return values


@pytest.mark.parametrize(
    "made",
    [torch.zeros(8, 6), (torch.zeros(8, 6), torch.zeros(8, 6)), np.zeros(4), [torch.zeros(3)]],
    ids=["hidden state", "LSTM's two", "observation", "pool"],
)
def test_what_a_loop_hands_on_by_itself_is_named_before_its_first_step(made, tmp_path):
    model = torch.nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(tmp_path, progress=False, model=model, optimizer=optimizer)
    kept = run.state(kept=torch.ones(8, 6))
    state, same, total = made, kept.kept, torch.zeros(())
    for batch in run.batches([torch.ones(8, 6)] * 2):
        (reason,) = run.verdict.reasons
        state, same = step_on(state, same)
        loss = model(batch).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = total + loss.detach()
    assert reason == (
        "the loop's state begins anew at a resume: keep it with run.state(state=state)"
    )


def test_what_a_first_pass_gathers_is_named_as_it_goes_on_at_the_batch(tmp_path):
    model = torch.nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for name, objects in (("a", {"optimizer": optimizer}), ("b", {})):
        run = colabkit.Run(tmp_path / name, progress=False, model=model.eval(), **objects)
        found = torch.zeros(2, 2)
        for batch in run.batches([torch.ones(8, 6)] * 2):
            found = torch.cat([found, model(batch).detach()])
        (reason,) = run.verdict.reasons
        assert reason.startswith("the loop's found begins anew at a resume")


class Walk:
    """An environment without a state to give."""

    def __init__(self) -> None:
        self.at, self.seen = 0.0, collections.deque[float](maxlen=3)

    def reset(self) -> None:
        self.at = 0.0

    def step(self, way: float) -> float:
        self.at += way
        self.seen.append(self.at)
        return sum(self.seen)


class Telling(Walk):
    """One that has been given what the verdict asks for."""

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.seen = state["at"], state["seen"]


def walked(folder: Path, walk: Walk, *, until: int = 6, is_kept: bool = False) -> colabkit.Run:
    run = colabkit.Run(folder, progress=False, save_every=1)
    if is_kept:
        run.state(walk=walk)
    for item in run.items(range(6)):
        if item == until:
            raise TimeoutError
        run.log(found=walk.step(item + 0.1))
    return run


def test_an_object_that_nothing_can_store_is_named_with_what_it_needs(tmp_path):
    alone = walked(tmp_path / "alone", Walk())
    (reason,) = alone.verdict.reasons
    assert reason == (
        "the loop's walk begins anew at a resume: give it state_dict and load_state_dict, and keep"
        " it with run.state(walk=walk)"
    )
    with pytest.raises(TimeoutError):
        walked(tmp_path / "left", Telling(), until=4, is_kept=True)
    resumed = walked(tmp_path / "left", Telling(), is_kept=True)
    assert resumed.verdict.reasons == ()
    expected, found = (each.history.steps["found"].tolist() for each in (alone, resumed))
    assert found == expected


def test_run_asks_for_the_methods_of_an_object_that_nothing_can_store(tmp_path):
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="without state_dict and load_state_dict") as caught:
        colabkit.Run(tmp_path, model=model, walk=Walk(), progress=False)
    assert caught.value.hint.startswith("Give it both, for the numbers")
    colabkit.Run(tmp_path, model=model, walk=Telling(), progress=False)
