"""What steps change beside the run, and later steps go by, is named before the first of them."""

from __future__ import annotations

import ast
import collections
import heapq
import logging
import random
import time
import types
from typing import Any

import numpy as np
import pytest
import torch

import colabkit
from colabkit.runs import loop_source
from tests.torch.steered import run_of


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


def heaps(run: Any, step: Any) -> None:
    queue: list[Any] = []
    for row in run.items(range(3)):
        heapq.heappush(queue, (step(), row))
        step(heapq.nsmallest(1, queue)[0][1])


def writes_by_key(run: Any, step: Any) -> None:
    prototypes = {}
    for row in run.items(range(3)):
        step(prototypes[row - 1].sum() if row else 1.0)
        prototypes[row] = step()


def counts_by_key(run: Any, step: Any) -> None:
    counts: collections.Counter[int] = collections.Counter()
    for row in run.items(range(3)):
        counts[row % 2] += 1
        step(1 / counts[0])


class Trainer:
    """A loop in a method, whose steps are methods as well."""

    def __init__(self, run: Any, step: Any) -> None:
        self.run, self.step = run, step
        self.best, self.waited, self.shown = 9.0, 0, 0
        self.queue: list[Any] = []

    def train(self) -> None:
        for _ in self.run.items(range(3)):
            self.after(self.one_step())
            if self.waited > 2:
                break

    def one_step(self) -> Any:
        loss = self.step()
        self.queue.append(loss)
        return self.step(sum(self.queue)).item()

    def after(self, loss: float) -> None:
        self.shown += 1
        logging.getLogger("x").info("%d steps", self.shown)
        if loss < self.best:
            self.best = loss
        else:
            self.waited += 1


def in_methods(run: Any, step: Any) -> None:
    Trainer(run, step).train()


def in_object(run: Any, step: Any) -> None:
    told = types.SimpleNamespace(pace=1.0, seen=[])
    for _ in run.items(range(3)):
        step(told.pace)
        told.pace *= 0.9


def in_closure(run: Any, step: Any) -> None:
    done = 0

    def warm() -> None:
        nonlocal done
        done += 1
        step(min(1.0, done / 3))

    for _ in run.items(range(3)):
        warm()


def draws(run: Any, step: Any) -> None:
    noise, order = np.random.default_rng(0), torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(torch.zeros(3, 1), shuffle=True, generator=order)
    for _ in run.batches(loader):
        step(noise.random())


def hands_a_sum_to_a_schedule(run: Any, step: Any) -> None:
    schedule = Schedule()
    total = 0.0
    for _ in run.items(range(3)):
        total += step().item()
    schedule.adjust(total / 3)


def returns_a_sum(run: Any, step: Any) -> None:
    def one_epoch() -> float:
        total = 0.0
        for _ in run.items(range(3)):
            total += step().item()
        return total / 3

    if one_epoch() > 1.0:
        step()


class Schedule:
    def adjust(self, mean: float) -> None:
        self.rate = 1 / mean


def gathers(run: Any, step: Any) -> None:
    states = []
    for _ in run.items(range(3)):
        states.append(step())
    step(sum(states) / 3)


class Rows:
    """A data set whose labels a loop changes now and then."""

    def __init__(self) -> None:
        self.labels = torch.zeros(3)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return self.labels[index]


def relabels_now_and_then(run: Any, step: Any) -> None:
    rows = Rows()
    for _ in run.items(range(3)):
        if run.step > 1:
            rows.labels = torch.ones(3)
        step()


class Table:
    """Rows that a writer of one's own keeps, and gives back by a property."""

    def __init__(self) -> None:
        self._rows: list[Any] = []

    def __call__(self, row: Any) -> None:
        self._rows.append(row)

    @property
    def rows(self) -> list[Any]:
        return self._rows


def writes_for_its_caller(run: Any, step: Any) -> None:
    table = Table()

    def train(table: Any) -> None:
        for _ in run.items(range(3)):
            table(step())

    train(table)
    step(sum(table.rows))


def counts_for_its_caller(run: Any, step: Any) -> None:
    done = 0

    def train() -> None:
        nonlocal done
        for _ in run.items(range(3)):
            step()
            done += 1

    train()
    step(done)


def steps_what_is_not_given(run: Any, step: Any) -> None:
    other = torch.optim.Adam(torch.nn.Linear(2, 1).parameters())
    for _ in run.items(range(3)):
        step()
        other.step()


def follows_now_and_then(run: Any, step: Any) -> None:
    target, source = torch.nn.Linear(2, 1), run.model
    for _ in run.items(range(3)):
        step(target(torch.ones(2)).sum().item())
        if run.step % 2:
            target.load_state_dict(source.state_dict())


def follows_softly(run: Any, step: Any) -> None:
    def follow(target: Any, source: Any) -> None:
        for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
            ours.data.mul_(0.9).add_(theirs.data, alpha=0.1)

    slow = torch.nn.Linear(2, 1)
    for _ in run.items(range(3)):
        step(slow(torch.ones(2)).sum().item())
        follow(slow, run.model)


def sets_a_rate_by_a_sum(run: Any, step: Any) -> None:
    total, optimizer = 0.0, run.optimizer
    for _ in run.items(range(3)):
        total += step().item()
    optimizer.param_groups[0]["lr"] = 1 / total


def goes_by_means(run: Any, step: Any) -> None:
    baseline, widest = torch.zeros(()), np.float32(1.0)
    for _ in run.items(range(3)):
        loss = step(1.0 - baseline)
        baseline = 0.9 * baseline + 0.1 * loss
        widest = np.maximum(widest, step(widest).numpy().mean())


def replays_in_a_function(run: Any, step: Any) -> None:
    memory, losses, limits, errors = [1.0], [], [1], []

    def replay(weight: float) -> float:
        return float(step(weight))

    for number in run.items(range(3)):
        for weight in memory:
            losses.append(replay(weight))
        print(sum(losses), float(number))
        if len(errors) > limits[0]:
            error = replay(2.0)
            print(error)
        memory.append(2.0)
        errors.append(1.0)


def stays_in_evaluation_now_and_then(run: Any, step: Any) -> None:
    seen = 0

    def evaluate() -> float:
        run.model.eval()
        return run.model(torch.ones(1, 2)).item()

    for _ in run.items(range(3)):
        step()
        seen += 1  # noqa: SIM113
        if seen % 2 == 0:
            good = evaluate()
            print(good)


def decays_now_and_then(run: Any, step: Any) -> None:
    seen = 0

    def decayed() -> int:
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.mul_(0.9)
        return seen

    for _ in run.items(range(3)):
        step()
        seen += 1
        if seen % 2 == 0:
            print(decayed())


NAMED = {
    stays_in_evaluation_now_and_then: {"seen"},
    decays_now_and_then: {"seen"},
    replays_in_a_function: {"memory", "errors"},
    goes_by_means: {"baseline", "widest"},
    writes_for_its_caller: {"table._rows"},
    counts_for_its_caller: {"done"},
    steps_what_is_not_given: {"other"},
    follows_now_and_then: {"target"},
    follows_softly: {"slow"},
    sets_a_rate_by_a_sum: {"total"},
    heaps: {"queue"},
    writes_by_key: {"prototypes"},
    counts_by_key: {"counts"},
    in_methods: {"self.best", "self.waited", "self.queue"},
    in_object: {"told.pace"},
    in_closure: {"done"},
    draws: {"noise"},
    hands_a_sum_to_a_schedule: {"total"},
    returns_a_sum: {"total"},
    gathers: {"states"},
    relabels_now_and_then: {"rows.labels"},
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


class Warming:
    """An optimizer around another, as tutorials of Transformers write it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.taken = optimizer, 0

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def step(self) -> None:
        self.taken += 1
        for group in self.optimizer.param_groups:
            group["lr"] = min(self.taken**-0.5, self.taken * 8**-1.5)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "optimizer": self.optimizer.state_dict()}


def warms_up(run: Any, step: Any) -> None:
    warming = Warming(run.optimizer)
    for _ in run.items(range(3)):
        step()
        warming.step()


NAMED[warms_up] = {"warming.taken"}


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


def is_only_shown(run: Any, step: Any) -> None:
    seen, running, losses, table = 0, 0.0, [], {"loss": []}
    last = time.monotonic()
    for row in run.items(range(3)):
        loss = step().item()
        seen, running = seen + 1, running + loss
        losses.append(loss)
        table["loss"].append(np.mean(losses[-2:]))
        mean = running / seen
        if seen % 2 == 0 or time.monotonic() - last > 9:
            print(f"{row}: {mean:.3f} of {seen}, at most {max(losses)}")
            running, last = 0.0, time.monotonic()


def is_only_returned(run: Any, step: Any) -> None:
    def one_epoch() -> tuple[float, int]:
        total, done = 0.0, 0
        for _ in run.items(range(3)):
            total += step().item()
            done += 1
        return total, done

    total, done = one_epoch()
    logging.getLogger("x").info("%s", total / done)


def sums_tensors_for_the_eye(run: Any, step: Any) -> None:
    def one_epoch() -> Any:
        total = torch.zeros(())
        for _ in run.items(range(3)):
            total = total + step()
        return total / 3

    means = [one_epoch()]
    smooth = torch.zeros(())
    for _ in run.items(range(3)):
        smooth = 0.9 * smooth + 0.1 * step()
        print(f"{float(smooth):.3f} after {means}")


def goes_by_a_teacher(run: Any, step: Any) -> None:
    teacher = torch.nn.Linear(2, 1)
    for _ in run.items(range(3)):
        step(teacher(torch.ones(2)).sum().item())
        for parameter in teacher.parameters():
            parameter.mean()


def steps_a_scaler_that_is_off(run: Any, step: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in run.items(range(3)):
        step()
        scaler.step(run.optimizer)
        scaler.update()


def writes_into_part_of_what_is_given(run: Any, step: Any) -> None:
    for _ in run.items(range(3)):
        step()
        for parameter in run.model.parameters():
            parameter.data.clamp_(-1, 1)


def shows_what_a_writer_has(run: Any, step: Any) -> None:
    table = Table()

    def train(table: Any) -> None:
        for _ in run.items(range(3)):
            table(step())
            print(len(table.rows))

    train(table)
    print(table.rows)


def evaluates_now_and_then(run: Any, step: Any) -> None:
    seen, best = 0, []

    @torch.no_grad()
    def estimate() -> dict[str, Any]:
        out = {}
        run.model.eval()
        for split in ("train", "val"):
            losses = torch.zeros(2)
            for number in range(2):
                losses[number] = run.model(torch.ones(1, 2)).item()
            out[split] = losses.mean()
        run.model.train()
        return out

    def evaluate(model: torch.nn.Module) -> float:
        was = model.training
        model.eval()
        good = model(torch.ones(1, 2)).item()
        model.train(was)
        best.append(good)
        return good

    for _ in run.items(range(3)):
        step()
        seen += 1  # noqa: SIM113
        if seen % 2 == 0:
            losses = estimate()
            print(losses)
            print(evaluate(run.model))


def evaluates_between_turns(run: Any, step: Any) -> None:
    seen = 0

    def evaluate() -> float:
        run.model.eval()
        return run.model(torch.ones(1, 2)).item()

    for _ in run.items(range(3)):
        run.model.train()
        step()
        seen += 1  # noqa: SIM113
        if seen % 2 == 0:
            good = evaluate()
            print(good)


EYE = [
    evaluates_between_turns,
    evaluates_now_and_then,
    sums_tensors_for_the_eye,
    goes_by_a_teacher,
    writes_into_part_of_what_is_given,
    steps_a_scaler_that_is_off,
    shows_what_a_writer_has,
    is_only_shown,
    is_only_returned,
    sums_for_the_eye,
    collects,
    makes_anew,
    keeps,
    reads_settings,
]


@pytest.mark.parametrize("loop", [*NAMED, *EYE])
def test_what_later_steps_go_by_is_named_and_what_is_for_the_eye_is_not(loop, tmp_path):
    run = run_of(loop, tmp_path)
    told = {each.split("begins anew")[0].split()[-1] for each in run.verdict.reasons}
    assert told == NAMED.get(loop, set())


def test_a_source_is_read_again_where_another_thread_has_confused_the_parser(tmp_path, monkeypatch):
    failures = ["AST constructor recursion depth mismatch"] * 2
    parse = ast.parse

    def parse_in_the_end(*given: Any, **named: Any) -> Any:
        if failures:
            raise SystemError(failures.pop())
        return parse(*given, **named)

    run = colabkit.Run(tmp_path, progress=False, generator=torch.Generator())
    loop_source._parsed.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", parse_in_the_end)
        replays(run, lambda: 0.0)
    assert not failures
    assert any("memory" in each for each in run.verdict.reasons)


class Shy:
    """Looks like an array, and will not say of which shape."""

    dtype = float

    @property
    def shape(self) -> Any:
        message = "not yet"
        raise RuntimeError(message)


def test_an_object_that_raises_when_it_is_looked_at_ends_no_training(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    shy = Shy()
    for _ in run.items(range(3)):
        shy.last = run.step
        shy = shy or None
    assert run.step == 3


class Tutorial:
    """A training as tutorials write it."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 1)
        self.scaler = torch.amp.GradScaler("cuda", enabled=False)

    def train(self, run: Any) -> None:
        for _ in run.epochs(1):
            for x in run.batches(torch.ones(6, 2), batch_size=2):
                inner = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)
                inner.step()
                self.scaler.scale(self.model(x).sum()).backward()
                self.scaler.step(self.optimizer)
                self.optimizer.step()
            self.schedule.step()


@pytest.mark.parametrize(
    ("given", "named", "with_module"),
    [
        ("", ["optimizer", "schedule", "model"], True),
        ("model", ["optimizer", "schedule"], False),
        ("model schedule", ["optimizer"], False),
        ("model optimizer", ["schedule"], False),
        ("model optimizer schedule", [], False),
    ],
)
def test_an_optimizer_or_schedule_that_a_run_was_not_given_is_named(
    given, named, with_module, tmp_path
):
    tutorial = Tutorial()
    objects = {name: getattr(tutorial, name) for name in given.split()}
    run = colabkit.Run(tmp_path, **objects, progress=False)
    tutorial.train(run)
    more = {"optimizer": ", and the module that it trains" if with_module else ""}
    assert [*run.verdict.reasons] == [
        f"the loop's self.{name} begins anew at a resume: pass {name}=self.{name} to Run"
        f"{more.get(name, '')}"
        for name in named
    ]


class Both:
    """Saves what it holds."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def test_an_optimizer_that_an_object_of_the_run_holds_is_given(tmp_path):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(tmp_path, model=model, both=Both(optimizer), progress=False)
    for x in run.batches(torch.ones(6, 2), batch_size=2):
        model(x).sum().backward()
        optimizer.step()
    assert not run.verdict.reasons
