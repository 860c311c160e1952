"""A loop that calls now one function, now another, is read with all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.torch.steered import named_in, run_of

slowness = 1.0


def at_once(rate: float) -> float:
    return rate


def slower(rate: float) -> float:
    global slowness
    slowness += rate
    return rate / slowness


class AtOnce:
    """Has no memory."""

    def __call__(self, rate: float) -> float:
        return rate

    def paced(self, rate: float) -> float:
        return rate


class Slower:
    """Slows down, or does not."""

    def __init__(self) -> None:
        self.count = 0
        self.choice: Callable[[float], float] = self.at_once

    def at_once(self, rate: float) -> float:
        return rate

    def paced(self, rate: float) -> float:
        self.count += 1
        return rate / self.count

    __call__ = paced

    def chosen(self, rate: float) -> float:
        return self.choice(rate)

    def choose(self, number: int) -> None:
        self.choice = self.at_once if number < 1 else self.paced


def by_condition(run: Any, step: Any) -> None:
    for number in run.items(range(3)):
        pace = at_once if number < 1 else slower
        step(pace(1 + number))


def within_an_expression(run: Any, step: Any) -> None:
    own = Slower()
    for number in run.items(range(3)):
        step((own.at_once if number < 1 else own.paced)(1 + number))


def set_behind_the_call(run: Any, step: Any) -> None:
    own = Slower()
    pace: Callable[[float], float] = at_once
    for number in run.items(range(3)):
        step(pace(1 + number))
        pace = at_once if number < 1 else own.paced


def given_to_a_function(run: Any, step: Any) -> None:
    def paced(pace: Any, rate: float) -> float:
        return float(pace(rate))

    for number in run.items(range(3)):
        choice = slower if number else at_once
        step(paced(choice, 1 + number))


def by_key(run: Any, step: Any) -> None:
    paces = {"at once": at_once, "slower": slower}
    for number in run.items(range(3)):
        step(paces["slower" if number else "at once"](1 + number))


def one_after_another(run: Any, step: Any) -> None:
    paces = [at_once, at_once, slower]
    for number in run.items(range(3)):
        rate = 1.0 + number
        for pace in paces:
            rate = pace(rate)
        step(rate)


def of_several_classes(run: Any, step: Any) -> None:
    paces = [AtOnce(), Slower()]
    for number in run.items(range(3)):
        rate = 1.0 + number
        for pace in paces:
            rate = pace.paced(rate)
        step(rate)


def objects_that_are_called(run: Any, step: Any) -> None:
    first, then = AtOnce(), Slower()
    for number in run.items(range(3)):
        pace: Any = then if number else first
        step(pace(1.0 + number))


def by_name(run: Any, step: Any) -> None:
    own = Slower()
    for number in run.items(range(3)):
        step(getattr(own, "paced" if number else "at_once")(1 + number))


def by_attribute(run: Any, step: Any) -> None:
    own = Slower()
    for number in run.items(range(3)):
        own.choose(number)
        step(own.chosen(1 + number))


NAMED: dict[Callable[[Any, Any], None], set[str]] = {
    by_condition: {"slowness"},
    within_an_expression: {"own.count"},
    set_behind_the_call: {"pace", "own.count"},
    given_to_a_function: {"slowness"},
    by_key: {"slowness"},
    one_after_another: {"slowness"},
    of_several_classes: {"paces[1].count"},
    objects_that_are_called: {"then.count"},
    by_name: {"own.choice", "own.count"},  # any of its methods
    by_attribute: {"own.count"},
}

shown = 0


def quiet(rate: float) -> None:
    pass


def loud(rate: float) -> None:
    global shown
    shown += 1
    print(shown, rate)


def half(rate: float) -> float:
    least = rate / 2
    return max(least, 0.5)


def for_the_eye(run: Any, step: Any) -> None:
    for number in run.items(range(3)):
        show = loud if number else quiet
        show(number)
        step(1.0 + number)


def without_memory(run: Any, step: Any) -> None:
    for number in run.items(range(3)):
        pace = half if number else at_once
        rate = pace(1.0 + number)
        step({"half": half, "at once": at_once}["half" if number else "at once"](rate))


def of_one_kind(run: Any, step: Any) -> None:
    paces = [AtOnce(), AtOnce()]
    for number in run.items(range(3)):
        for pace in paces:
            step(pace(1.0 + number))


EYE = (for_the_eye, without_memory, of_one_kind)


@pytest.mark.parametrize("loop", [*NAMED, *EYE])
def test_what_any_of_them_keeps_is_named(loop: Any, tmp_path: Any, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG, logger="colabkit"):
        run = run_of(loop, tmp_path)
    assert named_in(run) == NAMED.get(loop, set())
    assert "could not be read" not in caplog.text
