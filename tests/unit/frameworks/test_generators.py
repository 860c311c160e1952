"""Generators are found wherever the code of a user's objects draws from them."""

from __future__ import annotations

import random
import types
from collections.abc import Sequence
from random import choice
from typing import Any

import numpy as np
import pytest

from colabkit.frameworks.generators import find_generators, find_generators_in_data
from colabkit.frameworks.own_generators import OwnGenerators

OF_THE_MODULE = np.random.default_rng(1)
OF_A_TRANSFORM = types.SimpleNamespace(inner=[types.SimpleNamespace(source=random.Random(2))])
LIBRARY = types.ModuleType("augmentations")
LIBRARY.source = np.random.RandomState(3)  # type: ignore[attr-defined]


def noise() -> float:
    return OF_THE_MODULE.random()


def helped() -> float:
    return noise()


class OnTheClass:
    source = random.Random(4)

    def __call__(self, value: Any) -> Any:
        return value + self.source.random()


class Inherits(OnTheClass):
    pass


class UsesGlobal:
    def __call__(self, value: Any) -> Any:
        return value + OF_THE_MODULE.random()


class UsesGlobalInAnInnerFunction:
    def __call__(self, values: Any) -> Any:
        return [value + one() for value in values for one in (lambda: OF_THE_MODULE.random(),)]


class UsesAHelper:
    @staticmethod
    def changed(value: Any) -> Any:
        return value + helped()


class UsesATransform:
    @property
    def drawn(self) -> float:
        return OF_A_TRANSFORM.inner[0].source.random()


class UsesAModule:
    def __call__(self, value: Any) -> Any:
        return value + LIBRARY.source.rand()


class UsesATransformWithAClass:
    def __call__(self, value: Any) -> Any:
        return TRANSFORMS[0](value)


TRANSFORMS = [Inherits()]


class Holds:
    def __init__(self, inner: Any) -> None:
        self.inner = [inner]


PLACES = {
    "a class": (OnTheClass, OnTheClass.source),
    "a class before it": (Inherits, OnTheClass.source),
    "the module": (UsesGlobal, OF_THE_MODULE),
    "the module, from within": (UsesGlobalInAnInnerFunction, OF_THE_MODULE),
    "the module, through helpers": (UsesAHelper, OF_THE_MODULE),
    "an object of the module": (UsesATransform, OF_A_TRANSFORM.inner[0].source),
    "another module": (UsesAModule, LIBRARY.source),
    "the class of an object of the module": (UsesATransformWithAClass, OnTheClass.source),
    "a function": (lambda: noise, OF_THE_MODULE),
}


@pytest.mark.parametrize("find", [find_generators, find_generators_in_data])
@pytest.mark.parametrize("name", PLACES)
def test_a_generator_that_code_names_is_found(name, find):
    make, generator = PLACES[name]
    assert find(make(), ()) == [generator]
    assert find(Holds(make()), ()) == [generator]


def test_the_streams_of_libraries_are_not_taken_for_the_users():
    class Draws:
        def __call__(self, value: Any) -> Any:
            return value + random.random() + np.random.rand() + choice([1, 2])

    assert find_generators(Draws(), ()) == []


def test_generators_of_attributes_come_first_and_each_once():
    both = Holds(OnTheClass())
    both.own = random.Random(5)  # type: ignore[attr-defined]
    both.again = OnTheClass.source  # type: ignore[attr-defined]
    assert find_generators(both, ()) == [both.own, both.again]  # type: ignore[attr-defined]


class Late:
    """Makes a generator when it is asked."""

    def draw(self) -> float:
        if not hasattr(self, "own"):
            self.own = np.random.default_rng(1)
        return float(self.own.normal())


def test_what_generators_are_seeded_with_does_not_follow_from_which_was_made_first() -> None:
    def drawn(order: Sequence[int]) -> list[float]:
        data = [random.Random(0), (Late(), [Late(), Late()])]
        late: Any = [data[1][0], *data[1][1]]  # type: ignore[index]
        generators = OwnGenerators(data)
        generators.reseed(0)
        for place in order:
            late[place].draw()
            assert generators.have_come()
            generators.reseed(0)
            assert not generators.have_come()
        generators.reseed(3)
        return [*(each.draw() for each in late), data[0].random()]  # type: ignore[attr-defined]

    found = drawn((0, 1, 2))
    assert found == drawn((2, 1, 0)) == drawn((1, 0, 2))
    assert len(set(found)) == len(found)
