"""What steps change by another way than a name is named as well, and what is for the eye is not.

By an index, a weak reference, a second name, a lambda, a bound method, a function of the class.
"""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import random
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from tests.torch.steered import named_in, run_of


class Pace:
    """Counts, and says how fast to go."""

    def __init__(self) -> None:
        self.count, self.rows = 0, []

    def faster(self) -> float:
        self.count += 1
        return 1 / self.count


class Holder:
    """Holds another object, strongly or weakly."""

    steps = 0

    def __init__(self, pace: Any) -> None:
        self.pace = pace

    def faster(self) -> float:
        pace = self.pace()
        pace.count += 1
        return 1 / pace.count


KEPT = [Pace()]
_hidden = Pace()


def hidden() -> Pace:
    return _hidden


def counted() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def by_second_name(run: Any, step: Any) -> None:
    holder = Holder(Pace())
    for _ in run.items(range(3)):
        pace = holder.pace
        pace.count += 1
        step(pace.count)


def by_name_given_before(run: Any, step: Any) -> None:
    holder = Holder(Pace())
    pace = holder.pace
    for _ in run.items(range(3)):
        pace.count += 1
        step(holder.pace.count)


def by_index(run: Any, step: Any) -> None:
    paces = {"fast": [Pace()]}
    for _ in run.items(range(3)):
        paces["fast"][0].count += 1
        step(paces["fast"][0].count)


def one_by_one(run: Any, step: Any) -> None:
    paces = [Pace()]
    for _ in run.items(range(3)):
        for number, pace in enumerate(paces):
            pace.count += number + 1
            step(pace.count)


def by_weak_reference(run: Any, step: Any) -> None:
    pace = weakref.ref(KEPT[0])
    for _ in run.items(range(3)):
        found = pace()
        found.count += 1
        step(found.count)


def by_weak_reference_in_object(run: Any, step: Any) -> None:
    holder = Holder(weakref.ref(KEPT[0]))
    for _ in run.items(range(3)):
        step(holder.faster())


def by_weak_proxy(run: Any, step: Any) -> None:
    pace = weakref.proxy(KEPT[0])
    for _ in run.items(range(3)):
        pace.count += 1
        step(pace.count)


def by_weak_set(run: Any, step: Any) -> None:
    paces = weakref.WeakSet(KEPT)
    for _ in run.items(range(3)):
        for pace in paces:
            step(pace.faster())


def by_function(run: Any, step: Any) -> None:
    for _ in run.items(range(3)):
        hidden().count += 1
        step(hidden().count)


def on_function(run: Any, step: Any) -> None:
    def faster() -> float:
        faster.count += 1
        return 1 / faster.count

    faster.count = 0
    scaled = lambda value: value * faster()  # noqa: E731
    for _ in run.items(range(3)):
        step(scaled(1.0))


def by_default(run: Any, step: Any) -> None:
    def faster(count: list[int] = [0]) -> float:  # noqa: B006
        count[0] += 1
        return 1 / count[0]

    for _ in run.items(range(3)):
        step(faster())


def by_partial(run: Any, step: Any) -> None:
    def faster(state: dict[str, int], by: int) -> float:
        state["count"] += by
        return 1 / state["count"]

    pace = functools.partial(faster, {"count": 0})
    for _ in run.items(range(3)):
        step(pace(1))


def in_lambda(run: Any, step: Any) -> None:
    rows: list[Any] = []
    push = lambda row: rows.append(row)  # noqa: E731
    for row in run.items(range(3)):
        push(row)
        step(sum(rows))


def in_lambda_of_row(run: Any, step: Any) -> None:
    rows: list[Any] = []
    calls = {"push": lambda row: rows.append(row)}
    for row in run.items(range(3)):
        calls["push"](row)
        step(sum(rows))


def into_tensor_in_lambda(run: Any, step: Any) -> None:
    mean = torch.zeros(())
    follow = lambda value: mean.mul_(0.9).add_(value)  # noqa: E731
    for _ in run.items(range(3)):
        follow(step())
        step(mean)


def by_bound_method(run: Any, step: Any) -> None:
    rows: list[Any] = []
    push = rows.append
    for row in run.items(range(3)):
        push(row)
        step(sum(rows))


def by_method_given_away(run: Any, step: Any) -> None:
    rows: list[Any] = []
    for row in run.items(range(3)):
        list(map(rows.append, [row]))
        step(sum(rows))


def by_function_of_class(run: Any, step: Any) -> None:
    bank, rows = torch.zeros(3, 2), []
    for row in run.items(range(3)):
        torch.Tensor.index_copy_(bank, 0, torch.tensor([row]), torch.ones(1, 2))
        list.append(rows, row)
        step(bank.sum() + sum(rows))


def by_functions_that_write(run: Any, step: Any) -> None:
    sums, counts, seen = torch.zeros(2), np.zeros(3), {"rows": 0}
    for row in run.items(range(3)):
        torch.add(sums, row, out=sums)
        np.add.at(counts, [row], 1)
        operator.setitem(seen, "rows", seen["rows"] + 1)
        step(sums.sum() + counts.sum() + seen["rows"])


def by_setattr(run: Any, step: Any) -> None:
    holder = Holder(None)
    for _ in run.items(range(3)):
        setattr(holder, "steps", holder.steps + 1)  # noqa: B010
        step(holder.steps)


def reads_on_in_function(run: Any, step: Any) -> None:
    numbers = counted()

    def faster() -> float:
        return 1 / next(numbers)

    for _ in run.items(range(3)):
        step(faster())


def reads_on_in_lambda(run: Any, step: Any) -> None:
    numbers = counted()
    faster = lambda: 1 / next(numbers)  # noqa: E731
    for _ in run.items(range(3)):
        step(faster())


def reads_on_by_method(run: Any, step: Any) -> None:
    numbers = itertools.count(1)
    following = numbers.__next__
    for _ in run.items(range(3)):
        step(1 / following())


def reads_on_in_slices(run: Any, step: Any) -> None:
    numbers = itertools.count(1)
    for _ in run.items(range(3)):
        step(sum(itertools.islice(numbers, 2)))


def reads_on_in_loop(run: Any, step: Any) -> None:
    numbers = counted()
    for _ in run.items(range(3)):
        for number in numbers:
            step(number)
            break


def sends(run: Any, step: Any) -> None:
    numbers = counted()
    for _ in run.items(range(3)):
        step(numbers.send(None))


def remembers_a_pool(run: Any, step: Any) -> None:
    @functools.cache
    def pool() -> list[Any]:
        return []

    for row in run.items(range(3)):
        pool().append(row)
        step(sum(pool()))


NAMED = {
    by_second_name: {"holder.pace.count"},
    by_name_given_before: {"pace.count"},
    by_index: {"paces['fast'][0].count"},
    one_by_one: {"paces[...].count"},
    by_weak_reference: {"pace().count"},
    by_weak_reference_in_object: {"holder.pace().count"},
    by_weak_proxy: {"pace.count"},
    by_weak_set: {"paces[...].count"},
    by_function: {"_hidden.count"},
    on_function: {"faster.count"},
    by_default: {"faster:count"},
    by_partial: {"pace.args[0]"},
    in_lambda: {"rows"},
    in_lambda_of_row: {"rows"},
    into_tensor_in_lambda: {"mean"},
    by_bound_method: {"rows"},
    by_method_given_away: {"rows"},
    by_function_of_class: {"bank", "rows"},
    by_functions_that_write: {"sums", "counts", "seen"},
    by_setattr: {"holder.steps"},
    reads_on_in_function: {"numbers"},
    reads_on_in_lambda: {"numbers"},
    reads_on_by_method: {"numbers"},
    reads_on_in_slices: {"numbers"},
    reads_on_in_loop: {"numbers"},
    sends: {"numbers"},
    remembers_a_pool: {"pool()"},
}


class Meter:
    """Shows a mean."""

    def __init__(self) -> None:
        self.sum, self.count, self.best = 0.0, 0, 9.0

    def update(self, value: float) -> None:
        self.sum += value
        self.count += 1
        if value < self.best:
            self.best = value

    @property
    def mean(self) -> float:
        return self.sum / self.count

    def show(self) -> None:
        print(self.mean, self.best)


def shows_meters(run: Any, step: Any) -> None:
    meters = {"loss": Meter(), "error": Meter()}
    for _ in run.items(range(3)):
        meters["loss"].update(step().item())
        for name, meter in meters.items():
            if meter.count:
                print(name, meter.mean)


def shows_in_functions(run: Any, step: Any) -> None:
    def shown() -> None:
        shown.count += 1
        print(shown.count)

    shown.count = 0
    losses: list[float] = []
    hooks = [losses.append, lambda _: print(len(losses))]
    for _ in run.items(range(3)):
        loss = step().item()
        shown()
        for hook in hooks:
            hook(loss)


def spins(run: Any, step: Any) -> None:
    marks, log = itertools.cycle("ab"), logging.getLogger("x")
    show = lambda: print(next(marks))  # noqa: E731
    for _ in run.items(range(3)):
        step()
        show()
        log.info(next(marks))


def reads_anew(run: Any, step: Any) -> None:
    for row in run.items(range(3)):
        numbers = counted()
        next(numbers)
        step(next(numbers) + row)


def reads_run_in_turns(run: Any, step: Any) -> None:
    for _ in run.items(itertools.islice(counted(), 3)):
        step()


def writes_into_scratch(run: Any, step: Any) -> None:
    twice, copied = torch.zeros(2), torch.zeros(2)
    for row in run.items(range(3)):
        torch.mul(torch.ones(2), row, out=twice)
        copied.copy_(twice)
        copied.mul_(2)
        step(copied.sum())


def clips(run: Any, step: Any) -> None:
    weights = list(run.model.parameters())
    for _ in run.items(range(3)):
        step()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        with torch.no_grad():
            torch._foreach_mul_(weights, 0.99)


def goes_through_layers(run: Any, step: Any) -> None:
    layers = [run.model, torch.nn.Linear(1, 1)]
    for _ in run.items(range(3)):
        value = torch.ones(2)
        for layer in layers:
            value = layer(value)
        step()


def remembers_what_is_always_so(run: Any, step: Any) -> None:
    @functools.lru_cache(maxsize=4)
    def weight(number: int) -> float:
        return random.Random(number).random() + float(np.random.default_rng(number).normal())

    @functools.cache
    def noise(number: int) -> torch.Tensor:
        return torch.randn(1, generator=torch.Generator().manual_seed(number))

    for row in run.items(range(3)):
        step(weight(row % 2) + noise(row % 2))


def remembers_what_was_drawn_before(run: Any, step: Any) -> None:
    @functools.cache
    def noise(number: int) -> torch.Tensor:
        return torch.randn(1) + number

    noise(0)
    for _ in run.items(range(3)):
        step(noise(0))


EYE = [
    shows_meters,
    shows_in_functions,
    spins,
    reads_anew,
    reads_run_in_turns,
    writes_into_scratch,
    clips,
    goes_through_layers,
    remembers_what_is_always_so,
    remembers_what_was_drawn_before,
]


@pytest.mark.parametrize("loop", [*NAMED, *EYE])
def test_what_later_steps_go_by_is_named_and_what_is_for_the_eye_is_not(loop, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="colabkit"):
        run = run_of(loop, tmp_path)
    assert named_in(run) == NAMED.get(loop, set())
    assert "could not be read" not in caplog.text


class Augmented:
    """Draws a noise of its own at its first use."""

    @functools.cached_property
    def noise(self) -> torch.Tensor:
        return torch.randn(1)

    @functools.lru_cache  # noqa: B019
    def of(self, number: int) -> float:
        return number + random.random()


def remembers_draws(run: Any, step: Any) -> None:
    def drawn() -> torch.Tensor:
        return torch.randn(1)

    @functools.cache
    def noise(number: int) -> torch.Tensor:
        return drawn() * number

    flip = functools.lru_cache(lambda number: np.random.rand() + number)
    augmented = Augmented()
    for row in run.items(range(3)):
        step(noise(row % 2) + flip(row % 2) + augmented.noise + augmented.of(row % 2))


def remembers_what_the_model_gave(run: Any, step: Any) -> None:
    model = run.model

    @functools.cache
    def target(number: int) -> torch.Tensor:
        return model(torch.ones(2)).detach() * number

    @functools.cache
    def rate() -> float:
        return 1 / (1 + run.step)

    @functools.cache
    def width() -> int:
        return len(list(model.parameters()))

    for row in run.items(range(3)):
        step(target(row % 2) * rate() * width())


@pytest.mark.parametrize(
    ("loop", "named"),
    [
        (remembers_draws, ["augmented.noise", "augmented.of", "flip", "noise"]),
        (remembers_what_the_model_gave, ["rate", "target"]),
    ],
)
def test_functions_that_remember_what_a_resume_would_make_anew_are_named(loop, named, tmp_path):
    reasons = run_of(loop, tmp_path).verdict.reasons
    assert sorted(reasons) == [
        f"the loop's {path} remembers what it drew or made with the model, and has to do so again"
        f" at a resume: keep its answers in a dict with run.state({path.rpartition('.')[2]}={{}})"
        for path in named
    ]
