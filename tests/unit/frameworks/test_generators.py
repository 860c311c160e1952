"""Generators are found wherever the code of a user's objects draws from them."""

from __future__ import annotations

import collections
import random
import types
from collections.abc import Sequence
from random import choice
from typing import Any

import numpy as np
import pytest

from colabkit.frameworks.generators import (
    ITEMS_WITH_GENERATORS_MAX,
    find_generators,
    find_generators_in_data,
)
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


def _user_dict(generators: list[random.Random]) -> Any:
    return collections.UserDict(enumerate(generators))


def _after_none(generators: list[random.Random]) -> Any:
    return [*[None] * 70, *generators]


CONTAINERS = {
    "a list": list,
    "a dict by number": lambda generators: dict(enumerate(generators)),
    "a dict by name": lambda generators: {f"{n}.png": each for n, each in enumerate(generators)},
    "a defaultdict": lambda generators: collections.defaultdict(list, enumerate(generators)),
    "a UserDict": _user_dict,
    "rows": lambda generators: [(f"{n}.png", each) for n, each in enumerate(generators)],
    "objects": lambda generators: [types.SimpleNamespace(own=each) for each in generators],
    "a list that begins otherwise": _after_none,
    "a dict that begins otherwise": lambda generators: dict(enumerate(_after_none(generators))),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_all_generators_of_a_long_container_are_seeded(kind: str) -> None:
    generators = [random.Random(n) for n in range(300)]
    own = OwnGenerators(types.SimpleNamespace(own=CONTAINERS[kind](generators)))
    own.reseed(1)
    first = [each.random() for each in generators]
    own.reseed(1)
    assert [each.random() for each in generators] == first
    assert len(set(first)) == len(first)
    assert not own.leave_some()


@pytest.mark.parametrize("places", [{}, [None] * 300], ids=["dict", "list"])
def test_generators_that_a_long_container_gets_one_by_one_are_seeded(places: Any) -> None:
    own = OwnGenerators(types.SimpleNamespace(own=places))
    own.reseed(1)
    for number in range(300):
        places[number] = random.Random(number)
        assert own.have_come()
    own.reseed(1)
    first = [places[number].random() for number in range(300)]
    own.reseed(1)
    assert [places[number].random() for number in range(300)] == first


def test_more_generators_than_are_seeded_are_told() -> None:
    many = {number: random.Random(number) for number in range(ITEMS_WITH_GENERATORS_MAX + 1)}
    assert OwnGenerators(types.SimpleNamespace(own=many)).leave_some()
    del many[0]
    assert not OwnGenerators(types.SimpleNamespace(own=many)).leave_some()
    paths = [f"{number}.png" for number in range(ITEMS_WITH_GENERATORS_MAX + 1)]
    assert not OwnGenerators(types.SimpleNamespace(own=paths, one=random.Random(1))).leave_some()
    shared = random.Random(1)
    samples = [types.SimpleNamespace(path=path, one=shared) for path in paths]
    assert not OwnGenerators(types.SimpleNamespace(own=samples)).leave_some()
