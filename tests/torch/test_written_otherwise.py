"""What steps go by is named in whichever form of Python it is written, and what is shown is not."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import copy
import dataclasses
import enum
import functools
import io
import json
import logging
import math
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pandas
import pytest
import torch
import tqdm
from torch.utils.tensorboard import SummaryWriter

from tests.torch.steered import named_in, run_of


class Pace:
    """Counts."""

    number = 0

    def __init__(self) -> None:
        self.count, self._rate = 0, 0
        self.every = 2

    def faster(self) -> float:
        self.count += 1
        return 1 / self.count

    def is_over(self) -> bool:
        self.count += 1
        if self.count > 9:  # noqa: SIM103
            return True
        return False

    def step_now_and_then(self, step: Any) -> None:
        self.count += 1
        if self.count % self.every:
            return
        step()

    def show_now_and_then(self) -> None:
        self.count += 1
        if self.count % self.every:
            return
        print(self.count)

    @property
    def rate(self) -> int:
        return self._rate

    @rate.setter
    def rate(self, value: int) -> None:
        self._rate = value

    @classmethod
    def of_class(cls) -> float:
        cls.number += 1
        return 1 / cls.number

    @staticmethod
    def of_nobody() -> float:
        Pace.number += 1
        return 1 / Pace.number

    def __iter__(self) -> Iterator[float]:
        for _ in range(2):
            self.count += 1
            yield 1 / self.count

    def __enter__(self) -> Pace:
        self.count += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Quicker(Pace):
    def faster(self) -> float:
        return 2 * super().faster()


class Indexed(Pace):
    def __getitem__(self, place: int) -> float:
        self.count += 1
        return place + 1 / self.count


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@dataclasses.dataclass(slots=True)
class Row:
    count: int = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    count: int = 0


class Settings(dict[str, Any]):
    """A dict whose keys are attributes."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Stage(enum.Enum):
    EASY = 1
    HARD = 2


pace_of_module = pace_by_code = 0


def in_slots(run: Any, step: Any) -> None:
    slotted, row = Slotted(), Row()
    for _ in run.items(range(3)):
        slotted.count += 1
        row.count += 1
        step(slotted.count + row.count)


def by_key_as_attribute(run: Any, step: Any) -> None:
    settings = Settings(count=0)
    for _ in run.items(range(3)):
        settings.count += 1
        step(settings.count)


def in_namespaces(run: Any, step: Any) -> None:
    pace, other = Pace(), Pace()
    for _ in run.items(range(3)):
        globals()["pace_of_module"] += 1
        vars(pace)["count"] += 1
        other.__dict__["count"] += 1
        step(pace_of_module + pace.count + other.count)


def by_module(run: Any, step: Any) -> None:
    module = sys.modules[__name__]
    for _ in run.items(range(3)):
        module.pace_of_module += 1  # type: ignore[attr-defined]
        step(pace_of_module)


def in_expression(run: Any, step: Any) -> None:
    count = 0
    for _ in run.items(range(3)):
        step(count := count + 1)


def shown_and_assigned_in_expression(run: Any, step: Any) -> None:
    count = double = 0
    for _ in run.items(range(3)):
        step(double)
        count += 1  # noqa: SIM113
        print(double := 2 * count)


def in_case(run: Any, step: Any) -> None:
    pace = 1.0
    for _ in run.items(range(3)):
        match run.step:
            case 1:
                pace = 0.5
        step(pace)


def in_handler(run: Any, step: Any) -> None:
    pace = 1.0
    for _ in run.items(range(3)):
        try:
            step()
        except RuntimeError:
            pace = 0.5
        step(pace)


def returns_from_loop(run: Any, step: Any) -> None:
    waited = 0
    for _ in run.items(range(3)):
        step()
        waited += 1  # noqa: SIM113
        if waited > 9:
            return


def returns_before_step(run: Any, step: Any) -> None:
    pace = Pace()
    for _ in run.items(range(3)):
        pace.step_now_and_then(step)


def answers_in_branches(run: Any, step: Any) -> None:
    pace = Pace()
    for _ in run.items(range(3)):
        step()
        if pace.is_over():
            break


def in_short_circuit(run: Any, step: Any) -> None:
    count, other = 0, 0
    for _ in run.items(range(3)):
        count += 1  # noqa: SIM113
        other += 1  # noqa: SIM113
        count % 2 == 0 and step()
        step() if other % 2 else None


def in_function_of_loop(run: Any, step: Any) -> None:
    count = total = 0
    for _ in run.items(range(3)):

        def faster() -> float:
            nonlocal count
            count += 1
            return 1 / count

        def called(times: int) -> float:
            nonlocal total
            total += times
            return step(total)

        step(faster())
        called(2)


def given_away_where_it_is_defined(run: Any, step: Any) -> None:
    calls = 0
    for _ in run.items(range(3)):

        def closure() -> Any:
            nonlocal calls
            calls += 1
            return step(calls)

        run.optimizer.step(closure)


def by_default_of_lambda(run: Any, step: Any) -> None:
    count = 0
    for _ in run.items(range(3)):
        scaled: Callable[[float], float] = lambda value, count=count: value * count  # noqa: E731
        step(scaled(1.0))
        count += 1  # noqa: SIM113


def by_keyword_of_partial(run: Any, step: Any) -> None:
    def push(row: int, rows: list[int]) -> None:
        rows.append(row)

    rows: list[int] = []
    push_on = functools.partial(push, rows=rows)
    for row in run.items(range(3)):
        push_on(row)
        step(sum(rows))


def behind_starred(run: Any, step: Any) -> None:
    def scaled(*parts: float, by: float = 1.0, **more: float) -> float:
        return sum(parts) * by * more["number"]

    more = {"number": 1.0}
    for _ in run.items(range(3)):
        step(scaled(*[1.0, 2.0], **more))
        more["number"] += 1


def by_setter(run: Any, step: Any) -> None:
    pace = Pace()
    for _ in run.items(range(3)):
        pace.rate += 1
        step(pace.rate)


def of_super(run: Any, step: Any) -> None:
    pace = Quicker()
    for _ in run.items(range(3)):
        step(pace.faster())


def of_class(run: Any, step: Any) -> None:
    pace = Pace()
    for _ in run.items(range(3)):
        step(pace.of_class())


def of_nobody(run: Any, step: Any) -> None:
    for _ in run.items(range(3)):
        step(Pace.of_nobody())


def reads_class_by_object(run: Any, step: Any) -> None:
    pace = Pace()
    for _ in run.items(range(3)):
        Pace.number += 1
        step(pace.number)


def without_a_call(run: Any, step: Any) -> None:
    over, indexed, entered = Pace(), Indexed(), Pace()
    for _ in run.items(range(3)):
        for rate in over:
            step(rate)
        step(indexed[0])
        with entered as pace:
            step(pace.count)


def in_generator(run: Any, step: Any) -> None:
    def rates(pace: Pace) -> Iterator[float]:
        for _ in range(2):
            pace.count += 1
            yield 1 / pace.count

    pace = Pace()
    for _ in run.items(range(3)):
        for rate in rates(pace):
            step(rate)


def in_coroutine(run: Any, step: Any) -> None:
    async def faster(pace: Pace) -> float:
        pace.count += 1
        return 1 / pace.count

    async def train() -> None:
        for _ in run.items(range(3)):
            step(await faster(pace))

    pace = Pace()
    asyncio.run(train())


def in_words(run: Any, step: Any) -> None:
    phase, best, stage = "easy", (9.0, 0), Stage.EASY
    for row in run.items(range(3)):
        step(1.0 if phase == "easy" else best[0] + (stage is Stage.HARD))
        if row > 0:
            phase, best, stage = "hard", (1.0, row), Stage.HARD


def in_circles(run: Any, step: Any) -> None:
    place, pace = 1.0, 0.1
    for _ in run.items(range(3)):
        place = place - pace
        pace = 0.9 * pace + 0.1 * place
        step(place)


def goes_by_its_sum(run: Any, step: Any) -> None:
    total, kept = torch.zeros(()), torch.zeros(())
    graph, scaled = torch.zeros(()), torch.zeros(())
    for _ in run.items(range(3)):
        loss = run.model(torch.ones(2)).sum() * total
        total = total + loss
        total.backward()
        total = total.detach()
        kept = kept + run.model(torch.ones(2)).sum()
        kept.backward()
        kept = kept.detach()
        step(kept)
        graph = graph + run.model(torch.ones(2)).sum()
        graph.backward(retain_graph=True)
        scaled = scaled * run.model(torch.ones(2)).sum()
        scaled.backward()
        scaled = scaled.detach()


def goes_by_a_table(run: Any, step: Any) -> None:
    frame, losses, total = pandas.DataFrame(columns=["loss"]), [], 0.0
    for _ in run.items(range(3)):
        losses.append(step())
        total += losses[-1].item()
        frame.loc[len(frame)] = [total]
        step(frame.loss.sum() + torch.stack(losses).mean())


def writes_into_memory(run: Any, step: Any) -> None:
    class Writer:
        def __init__(self) -> None:
            self.rows: list[Any] = []

        def write(self, row: Any) -> None:
            self.rows.append(row)

    memory, count = Writer(), 0
    for _ in run.items(range(3)):
        count += 1  # noqa: SIM113
        memory.write(count)
        step(sum(memory.rows))


def in_rows(run: Any, step: Any) -> None:
    paces, named, deep = [Pace()], {"a": Pace()}, {"a": [Pace()]}
    for _ in run.items(range(3)):
        for pace in paces:
            pace.count += 1
        for name in ["a"]:
            named[name].count += 1
            for each in deep[name]:
                each.count += 1
        step(paces[0].count + named["a"].count + deep["a"][0].count)


def by_words_of_python(run: Any, step: Any) -> None:
    pace = types.SimpleNamespace(_in=0)
    for _ in run.items(range(3)):
        pace._in += 1
        step(pace._in)


def by_bar(run: Any, step: Any) -> None:
    bar, other = tqdm.tqdm(run.items(range(3)), total=3), tqdm.tqdm(total=3)
    for _ in bar:
        step(bar.n / bar.total + other.n)
        other.update(1)
    other.close()


def made_at_first_use(run: Any, step: Any) -> None:
    def faster() -> float:
        faster.count = getattr(faster, "count", 0) + 1  # type: ignore[attr-defined]
        return 1 / faster.count  # type: ignore[attr-defined]

    pace = types.SimpleNamespace()
    for row in run.items(range(3)):
        if not hasattr(pace, "mean"):
            pace.mean = 1.0
        pace.mean = 0.9 * pace.mean + 0.1 * row
        step(pace.mean * faster())


def by_replaced_values(run: Any, step: Any) -> None:
    pair, frozen, whole = collections.namedtuple("Pair", "count rate")(0, 1.0), Frozen(), Pace()
    for _ in run.items(range(3)):
        step(pair.count + frozen.count + whole.count)
        pair = pair._replace(count=pair.count + 1)
        frozen = dataclasses.replace(frozen, count=frozen.count + 1)
        whole = whole if whole.count > 9 else Quicker()


def goes_down_by_hand(run: Any, step: Any) -> None:
    rate, moves = torch.tensor(0.1), {}
    for _ in run.items(range(3)):
        gradients = torch.autograd.grad(run.model(torch.ones(2)).sum(), run.model.parameters())
        with torch.no_grad():
            for weight, gradient in zip(run.model.parameters(), gradients, strict=True):
                moves[weight] = 0.9 * moves.get(weight, 0.0) + gradient
                weight -= rate * moves[weight]
        rate *= 0.9
    step()


def sets_or_goes_on_counting(run: Any, step: Any) -> None:
    wait = tries = best = 0
    pace, other = Pace(), Pace()
    for epoch in run.epochs(3):
        loss = sum(float(step()) for _ in run.items(range(2)))
        if loss < epoch - 9:
            wait, pace.count, other.count, tries = 0, 0, 0, 0
        else:
            wait += 1
            pace.count = pace.count + 1
            other.faster()
            tries = [tries + 1][0]
        if wait >= 4 or pace.count >= 4 or other.count >= 4 or tries > best + 4:
            break


def sets_or_counts_and_goes_on(run: Any, step: Any) -> None:
    wait = fails = kinds = 0
    for epoch in run.epochs(3):
        loss = sum(float(step()) for _ in run.items(range(2)))
        match epoch:
            case 7:
                kinds = 0
            case _:
                kinds += 1
        try:
            1 / (epoch - 7)
        except ZeroDivisionError:
            fails += 1
        else:
            fails = 0
        if loss < epoch - 9:
            wait = 0
        elif wait > 4:
            break
        else:
            wait += 1
            continue
        if fails + kinds > 4:
            break


def sets_now_and_then(run: Any, step: Any) -> None:
    rate = decay = weight = other = 1.0
    for epoch in run.epochs(3):
        if epoch == 1:
            rate = 0.5
        elif epoch == 2:
            rate = 0.1
        if epoch == 0:
            decay = 0.5
        else:
            if epoch == 2:
                decay = 0.3
        try:
            1 / (epoch - 1)
            weight = 0.3
        except ZeroDivisionError:
            pass
        match epoch:
            case 1:
                other = 0.2
            case 2:
                other = 0.1
        for _ in run.items(range(2)):
            step(rate * decay * weight * other)


def sets_in_bodies_that_may_turn_no_time(run: Any, step: Any) -> None:
    rate = decay = weight = other = 1.0
    rows = [0.1]
    for epoch in run.epochs(3):
        for turn in range(epoch % 2):
            rate = 0.3 * turn
        for _ in range(random.randint(0, 2)):
            weight = 0.2
        for row in rows:
            other = row
        rows.clear()
        while epoch:
            decay, epoch = 0.5, epoch - 1
        for _ in run.items(range(2)):
            step(rate * decay * weight * other)


def leaves_before_it_sets(run: Any, step: Any) -> None:
    def adjust(pace: Pace, epoch: int) -> None:
        if epoch == 0:
            return
        pace.every = 3

    pace, rate, last = Pace(), 1.0, 0.0
    for epoch in run.epochs(3):
        adjust(pace, epoch)
        for turn in range(3):
            if turn < epoch:
                break
            rate = 0.5
        for _ in run.items(range(2)):
            step(pace.every * rate)
        if epoch == 2:
            continue
        last = epoch
    step(last)


def by_names_nobody_can_tell(run: Any, step: Any) -> None:
    global pace_of_module, pace_by_code
    one, two, three, name = Pace(), Pace(), Pace(), "count"
    for _ in run.items(range(3)):
        step(one.count + two.count + three.count + pace_of_module + pace_by_code)
        setattr(one, name, one.count + 1)
        vars(two).update(count=two.count + 1)
        three.__dict__[name] += 1
        globals().update(pace_of_module=pace_of_module + 1)
        exec("pace_by_code += 1", globals())


def puts_others_in_place(run: Any, step: Any) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = run.model

        def average(self) -> None:
            self.model = copy.deepcopy(self.model)

    model, optimizer, trainer = run.model, run.optimizer, Trainer()
    for epoch in run.epochs(3):
        if epoch == 1:
            model, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=0.1)
            trainer.average()
        for _ in run.items(range(2)):
            step((model(torch.ones(2)) + trainer.model(torch.ones(2))).sum().detach())
            optimizer.step()


def gives_what_it_averaged(run: Any, step: Any) -> None:
    class Average:
        def __init__(self) -> None:
            self.kept = {n: p.detach().clone() for n, p in run.model.named_parameters()}

        def update(self) -> None:
            for name, weight in run.model.named_parameters():
                self.kept[name] = 0.9 * self.kept[name] + 0.1 * weight.detach()

        def give(self) -> None:
            for name, weight in run.model.named_parameters():
                weight.data = self.kept[name]

    average = Average()
    for _ in run.items(range(3)):
        step()
        average.update()
    average.give()


def takes_others(run: Any, step: Any) -> None:
    loss, weigh, kind = torch.nn.MSELoss(), math.sqrt, Pace
    for epoch in run.epochs(3):
        if epoch == 1:
            loss, weigh, kind = torch.nn.L1Loss(), math.exp, Indexed
        for _ in run.items(range(2)):
            step(weigh(1 + float(loss(torch.ones(1), torch.zeros(1)))) + kind().count)


def sets_and_goes_on_with_it(run: Any, step: Any) -> None:
    """Each number leads to a step, but through what is set again on the way there."""
    doubled, caught, cut, round_, late, drawn, waited, given = [0] * 8
    chosen = 1.0

    def settle(_: Any) -> float:
        nonlocal chosen
        chosen = 1.0
        return chosen

    for _ in run.items(range(3)):
        weight = 1.0
        doubled += 1
        if doubled % 2:
            weight = doubled
        weight = weight * 2
        step(weight)

        scale = 1.0
        caught += 1
        try:
            scale = caught
            step()
            scale = 2.0
        except ValueError:
            step(scale)

        share = 1.0
        cut += 1
        with contextlib.suppress(ValueError):
            share = cut
            step()
            share = 2.0
        step(share)

        part = 1.0
        round_ += 1
        for _turn in range(2):
            step(part)
            part = round_

        factor = 1.0
        later = lambda: step(factor)  # noqa: B023, E731
        late += 1
        factor = late
        later()
        factor = 1.0

        rate = 1.0
        rates = (rate for _ in range(2))
        drawn += 1
        rate = drawn
        step(next(rates))
        rate = 1.0

        given += 1
        chosen = given
        sorted([], key=settle)
        step(chosen)

        pause = 1.0
        waited += 1
        while True:
            if pause > 1:
                step(pause)
                break
            pause = 1 + waited


def sets_what_it_has_done_with(run: Any, step: Any) -> None:
    count = shown = 0
    for _ in run.items(range(3)):
        loss = step()
        weight = 1.0
        step(weight)
        count = count + 1
        shown = shown + 1
        if count % 2 == 0:
            loss, weight = loss.item(), count
            print(f"{loss} {weight}")
        try:
            last = shown
            print(last)
        finally:
            last = 0
        step(last or 1)


def shows_as_tutorials_do(run: Any, step: Any) -> None:
    for _ in run.epochs(2):
        for number, _x in enumerate(run.items(range(3))):
            loss = step()
            if number % 2 == 0:
                loss, current = loss.item(), (number + 1) * 4
                print(f"{loss} [{current}]")


def has_its_own_beside_what_another_keeps(run: Any, step: Any) -> None:
    keeps_its_best(run, step)
    best = 1.0
    for _ in run.items(range(3)):
        best = min(best, step(best).item())


def keeps_its_best(run: Any, step: Any) -> None:
    kept = run.state(best=1.0)
    best = kept.best
    for _ in run.items(range(3)):
        best = kept.best = min(best, step(best).item())


NAMED = {
    sets_and_goes_on_with_it: {
        "doubled",
        "caught",
        "cut",
        "round_",
        "late",
        "drawn",
        "waited",
        "given",
    },
    has_its_own_beside_what_another_keeps: {"best"},
    gives_what_it_averaged: {"average"},
    puts_others_in_place: {"model", "optimizer", "trainer.model"},
    sets_in_bodies_that_may_turn_no_time: {"rate", "decay", "weight", "other", "rows"},
    leaves_before_it_sets: {"pace.every", "rate", "last"},
    by_names_nobody_can_tell: {
        "one.count",
        "two.count",
        "three.count",
        "pace_of_module",
        "pace_by_code",
    },
    takes_others: {"loss", "weigh", "kind"},
    sets_now_and_then: {"rate", "decay", "weight", "other"},
    sets_or_goes_on_counting: {"wait", "pace.count", "other.count", "tries"},
    sets_or_counts_and_goes_on: {"wait", "fails", "kinds"},
    made_at_first_use: {"faster.count", "pace.mean"},
    by_replaced_values: {"pair", "frozen", "whole"},
    goes_down_by_hand: {"rate", "moves"},
    by_bar: {"bar.n", "other.n"},
    in_rows: {"paces[...].count", "named[...].count", "deep[...][...].count"},
    by_words_of_python: {"pace._in"},
    goes_by_its_sum: {"total", "kept", "graph", "scaled"},
    goes_by_a_table: {"frame", "losses", "total"},
    writes_into_memory: {"memory.rows", "count"},
    in_slots: {"slotted.count", "row.count"},
    by_key_as_attribute: {"settings.count"},
    in_namespaces: {"pace_of_module", "pace.count", "other.count"},
    by_module: {"pace_of_module"},
    in_expression: {"count"},
    shown_and_assigned_in_expression: {"count", "double"},
    in_case: {"pace"},
    in_handler: {"pace"},
    returns_from_loop: {"waited"},
    returns_before_step: {"pace.count"},
    answers_in_branches: {"pace.count"},
    in_short_circuit: {"count", "other"},
    in_function_of_loop: {"count", "total"},
    given_away_where_it_is_defined: {"calls"},
    by_default_of_lambda: {"count"},
    by_keyword_of_partial: {"push_on.keywords['rows']"},
    behind_starred: {"more"},
    by_setter: {"pace._rate"},
    of_super: {"pace.count"},
    of_class: {"pace.number"},
    of_nobody: {"Pace.number"},
    reads_class_by_object: {"Pace.number"},
    without_a_call: {"over.count", "indexed.count", "entered.count"},
    in_generator: {"pace.count"},
    in_coroutine: {"pace.count"},
    in_words: {"phase", "best", "stage"},
    in_circles: {"place", "pace"},
}


def shows_now_and_then(run: Any, step: Any) -> None:
    pace = Pace()
    for _ in run.items(range(3)):
        step()
        pace.show_now_and_then()
        pace.count > 9 and print(pace.count)


def sets_in_every_case(run: Any, step: Any) -> None:
    pace = other = 1.0
    for _ in run.items(range(3)):
        match run.step:
            case 1:
                pace = 0.5
            case _:
                pace = 0.2
        if run.step > 9:
            continue
        other = 0.1
        try:
            rate = step(pace)
        except RuntimeError:
            rate = 1.0
        step(rate + other)


def returns_what_is_shown(run: Any, step: Any) -> None:
    def one_epoch() -> float:
        total = 0.0
        for _ in run.items(range(3)):
            total += step().item()
        if total < 0:
            return 0.0
        return total

    logging.getLogger("x").info("%s", one_epoch())


def minimizes(run: Any, step: Any) -> None:
    for row in run.items(range(3)):

        def closure() -> Any:
            return step(row)  # noqa: B023

        run.optimizer.step(closure)


def sets_in_each_case_and_counts_from_there(run: Any, step: Any) -> None:
    scale = kind = loss = rate = 0
    weigh = math.exp
    for epoch in run.epochs(3):
        weigh = math.exp if epoch else math.sqrt
        if epoch % 2:
            scale = 1
        else:
            scale = 2
            scale += 1
        try:
            kind = 1
        except ValueError:
            kind = 2
            kind += 1
        if epoch == 1:
            rate = 0.5
        elif epoch == 2:
            rate = 0.1 if scale else 0.2
        else:
            with torch.no_grad():
                rate = 0.3
        try:
            for _ in run.items(range(2)):
                loss = step(weigh(scale + kind + rate))
        except KeyboardInterrupt:
            print("stopped")
        if loss > 1e9:
            break


def names_what_it_has(run: Any, step: Any) -> None:
    rows = [Pace(), Pace()]
    for _ in run.epochs(2):
        pace = rows[0]
        for _ in run.items(range(3)):
            with pace as same:
                print(same.count)
            step()


def sums_up_what_it_goes_down(run: Any, step: Any) -> None:
    total, other = torch.zeros(()), torch.zeros(())
    for _ in run.items(range(3)):
        total = total + run.model(torch.ones(2)).sum()
        run.optimizer.zero_grad()
        total.backward()
        run.optimizer.step()
        total = total.detach()
        shown = total / 3
        other += run.model(torch.ones(2)).sum() + step()
        other.backward()
        print(shown, other.item())
        other = torch.zeros(())


def logs_with_libraries(run: Any, step: Any) -> None:
    writer, frame = SummaryWriter(run.folder), pandas.DataFrame(columns=["loss"])
    losses, rows, running, count, out = [], [], 0.0, 0, io.StringIO()
    for row in run.items(range(3)):
        losses.append(step())
        running, count = running + losses[-1].item(), count + 1
        rows.append({"step": row, "loss": running / count})
        frame.loc[len(frame)] = [running]
        writer.add_scalar("loss", running / count, count)
        json.dump(rows, out)
    print(torch.stack(losses).mean(), pandas.DataFrame(rows).loss.mean(), frame)
    pandas.DataFrame(rows).to_csv(out)
    writer.close()


def stands_within(run: Any, step: Any) -> None:
    rate = decay = 1.0
    rows, count = [0.1, 0.2], 2
    if run.step == 0:
        try:
            for epoch in run.epochs(3):
                rate = 1 / (1 + epoch)
                for row in rows:
                    decay = row
                for _ in range(count):
                    weight = rate
                for _ in run.items(range(2)):
                    step(rate * decay * weight)
        except ValueError:
            print("stopped")


def names_again_what_it_trains(run: Any, step: Any) -> None:
    model, same = run.model, run.model
    for _ in run.epochs(3):
        model = model.to("cpu")
        model = model.train()
        for _ in run.items(range(2)):
            step(model(torch.ones(2)).sum().detach())
        with torch.no_grad():
            model = same
    for model in [same]:
        print(model)


def takes_a_batch_apart(run: Any, step: Any) -> None:
    loss, count = None, 0
    for row in run.items(range(3)):
        count += 1  # noqa: SIM113
        shown, scale = count, 1.0
        for part in torch.ones(2 + row, 2).chunk(2):
            loss = run.model(part).sum()
            loss.backward()
        step(scale)
        print(shown, loss.item())


def shows_a_bar(run: Any, step: Any) -> None:
    bar = tqdm.tqdm(run.items(range(3)), total=3)
    for _ in bar:
        loss = step(1 / bar.total)
        bar.set_postfix(loss=loss.item(), done=bar.n)


EYE = [
    shows_as_tutorials_do,
    sets_what_it_has_done_with,
    keeps_its_best,
    takes_a_batch_apart,
    names_again_what_it_trains,
    stands_within,
    shows_a_bar,
    sums_up_what_it_goes_down,
    logs_with_libraries,
    shows_now_and_then,
    sets_in_every_case,
    returns_what_is_shown,
    minimizes,
    names_what_it_has,
    sets_in_each_case_and_counts_from_there,
]


@pytest.mark.parametrize("loop", [*NAMED, *EYE])
def test_what_later_steps_go_by_is_named_and_what_is_for_the_eye_is_not(loop, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="colabkit"):
        run = run_of(loop, tmp_path)
    assert named_in(run) == NAMED.get(loop, set())
    assert "could not be read" not in caplog.text
