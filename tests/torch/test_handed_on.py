"""What steps change beside the run, and later steps go by, is named before the first of them."""

from __future__ import annotations

import collections
import random
from typing import Any

import numpy as np
import pytest
import torch

import colabkit


class Memory:
    """A replay buffer, as tutorials write it."""

    def __init__(self) -> None:
        self.rows: collections.deque[Any] = collections.deque(maxlen=50)

    def push(self, *row: Any) -> None:
        self.rows.append(row)

    def sample(self) -> Any:
        return random.choice(self.rows)


class Environment:
    """One that has no state to give."""

    def __init__(self) -> None:
        self.place = np.zeros(2)
        self.draws = np.random.RandomState(0)

    def reset(self) -> Any:
        return self.place

    def step(self, action: float) -> Any:
        self.place = self.place + action
        return self.place


class Settings(dict[str, Any]):
    """One that raises KeyError where it is asked for a name that it lacks."""

    __getattr__ = dict.__getitem__


def replays(run: Any, step: Any) -> None:
    memory = collections.deque(maxlen=50)
    for row in run.items(range(3)):
        memory.append((row, step()))
        random.choice(memory)


def pushes(run: Any, step: Any) -> None:
    memory = Memory()
    for row in run.items(range(3)):
        memory.push(row, step())
        memory.sample()


def samples_in_function(run: Any, step: Any) -> None:
    memory = []

    def learn() -> None:
        random.choice(memory)

    for _ in run.items(range(3)):
        memory.append(step())
        learn()


def asks(run: Any, step: Any) -> None:
    pool = list(range(9))
    for _ in run.items(range(3)):
        step(pool[0])
        pool = [each for each in pool if each != run.step]


def writes(run: Any, step: Any) -> None:
    bank = torch.zeros(9, 2)
    for row in run.items(range(3)):
        step(bank[row].sum())
        bank[row] = 1.0


def carries_nothing_yet(run: Any, step: Any) -> None:
    hidden = None
    for _ in run.items(range(3)):
        if hidden is not None:
            step(hidden)
        hidden = step()


def stops_early(run: Any, step: Any) -> None:
    best, waited = 9.0, 0
    for _ in run.epochs(3):
        loss = step().item()
        if loss < best:
            best = loss
        else:
            waited += 1
            if waited > 2:
                break


def counts(run: Any, step: Any) -> None:
    done = 0
    for _ in run.items(range(3)):
        step(done)
        done += 1  # noqa: SIM113


def acts(run: Any, step: Any) -> None:
    env = Environment()
    for _ in run.items(range(3)):
        step(env.step(1.0).sum())


NAMED = {
    replays: {"memory"},
    pushes: {"memory"},
    samples_in_function: {"memory"},
    asks: {"pool"},
    writes: {"bank"},
    carries_nothing_yet: {"hidden"},
    stops_early: {"best", "waited"},
    counts: {"done"},
    acts: {"env"},
}


def sums_for_the_eye(run: Any, step: Any) -> None:
    total, losses, seen = 0.0, [], 0
    for _ in run.items(range(3)):
        loss = step()
        total += loss.item()
        seen += 1  # noqa: SIM113
        losses.append(loss.item())
        max(losses)


def collects(run: Any, step: Any) -> None:
    rows = []
    for _ in run.items(range(3)):
        rows.append(step())
    len(rows)


def makes_anew(run: Any, step: Any) -> None:
    for _ in run.items(range(3)):
        rows, best = [], None
        for _ in range(2):
            rows.append(step())
            if best is None or rows[-1] < best:
                best = rows[-1]


def keeps(run: Any, step: Any) -> None:
    memory, env = Memory(), Environment()
    kept = run.state(rows=memory.rows, draws=env.draws, best=9.0)
    for row in run.items(range(3)):
        memory.push(row, step())
        memory.sample()
        env.step(1.0)
        if row < kept.best:
            kept.best = row


def reads_settings(run: Any, step: Any) -> None:
    settings, losses = Settings(scale=1.0, seen=Settings()), Settings()
    for row in run.items(range(3)):
        losses[row] = step(settings.scale).item()
        settings.seen.update({row: losses[row]})


EYE = [sums_for_the_eye, collects, makes_anew, keeps, reads_settings]


@pytest.mark.parametrize("loop", [*NAMED, *EYE])
def test_what_later_steps_go_by_is_named_and_what_is_for_the_eye_is_not(loop, tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(weight: Any = 1.0) -> Any:
        optimizer.zero_grad()
        loss = (model(torch.ones(2)) * float(weight)).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = colabkit.Run(tmp_path, model=model, optimizer=optimizer, progress=False)
    loop(run, step)
    told = {each.split("begins anew")[0].split()[-1] for each in run.verdict.reasons}
    assert told == NAMED.get(loop, set())
