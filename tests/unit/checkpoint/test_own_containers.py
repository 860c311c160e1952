"""Containers of classes of the user's own come back as what they were."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch

from colabkit.checkpoint import Forms, Pack, decode, deep_copy, encode, taken_over
from colabkit.frameworks.torch.backend import TorchBackend


class Memory(list):
    """What a loop keeps, with a place to write to next."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __iter__(self) -> Any:
        return (each * 2 for each in super().__iter__())


class Settings(dict):
    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclasses.dataclass
class Output(collections.OrderedDict):
    loss: float = 0.0

    def __post_init__(self) -> None:
        self["loss"] = self.loss


class Window(collections.deque):
    pass


class Counts(collections.defaultdict):
    __slots__ = ("total",)


class Point(tuple):
    __slots__ = ()


class Seen(set):
    pass


class Grid(np.ndarray):
    unit: str


class Ways(enum.Flag):
    UP = enum.auto()
    LEFT = enum.auto()


class Guarded(dict):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.lock = threading.Lock()


class Answering(dict):
    """Answers any name by what it holds, or by KeyError."""

    __slots__ = ("place",)

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Attributed(dict):
    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__ = self


class Node(list):
    above: Any = None


def memory() -> Memory:
    made = Memory(8)
    made.extend([1, (2.5, None)])
    return made


def counts() -> Counts:
    made = Counts(int, {"a": 1})
    made.total = 3
    return made


def grid() -> Grid:
    made = np.arange(6.0).reshape(2, 3).view(Grid)
    made.unit = "m"
    return made


MADE = {
    "list": memory,
    "dict": lambda: Settings(rate=0.1, sizes=Settings(a=[1, 2])),
    "answering": lambda: Answering(a=1),
    "attributes": lambda: Attributed(a=[1]),
    "ordered": lambda: Output(0.5),
    "deque": lambda: Window([1, 2, 3], maxlen=3),
    "defaultdict": counts,
    "tuple": lambda: Point((1, 2)),
    "shape": lambda: torch.Size([2, 3]),
    "set": lambda: Seen({1, 2}),
    "array": grid,
    "flags": lambda: Ways.UP | Ways.LEFT,
    "no flag": lambda: Ways(0),
}


def restored(value: Any, pack: Pack | None = None) -> Any:
    skeleton, leaves = encode(value, torch.is_tensor, pack)
    return decode(json.loads(json.dumps(skeleton)), lambda _, name: leaves[name])


def held(value: Any) -> Any:
    """What is in a value, whatever its class says of that."""
    if isinstance(value, np.ndarray):
        return value.tolist(), vars(value)
    if isinstance(value, dict):
        slots = [each.total for each in [value] if isinstance(value, Counts)]
        own = {} if isinstance(value, Answering | Counts) else vars(value)
        return [*dict.items(value)], own, slots
    if isinstance(value, list):
        return [*list.__iter__(value)], vars(value)
    return value


@pytest.mark.parametrize("number", [1, 20])  # so many are stored by columns
@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_they_keep_their_class_and_attributes(make, number):
    pack = None if make is grid else Pack(TorchBackend(torch.device("cpu")), Forms())
    for back in restored([make() for _ in range(number)], pack):
        assert type(back) is type(make())
        assert held(back) == held(make())
    assert held(restored(make())) == held(make())


def test_a_tensor_in_one_keeps_its_name():
    _, leaves = encode({"state": Settings(step=torch.ones(2))}, torch.is_tensor)
    assert [*leaves] == ["state.step"]


def test_one_whose_attributes_cannot_be_stored_is_what_it_holds():
    assert restored(Guarded(a=1)) == {"a": 1}
    assert type(restored(Guarded(a=1))) is dict


def test_a_class_that_is_gone_leaves_what_was_held(monkeypatch):
    skeleton, _ = encode(Settings(a=1), torch.is_tensor)
    monkeypatch.delattr(f"{__name__}.Settings")
    assert decode(skeleton, lambda *_: None) == {"a": 1}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_copy_is_of_the_same_class(make):
    value = make()
    copy = deep_copy({"is": value})["is"]
    assert type(copy) is type(value)
    assert held(copy) == held(value)


def test_one_takes_over_what_another_holds_and_has():
    passed, stored = memory(), memory()
    passed.begun = True
    stored.size = 5
    stored.append(3)
    assert taken_over(passed, stored) is passed
    assert held(passed) == held(stored)
    assert taken_over(Window([1], maxlen=2), stored) is stored
    of_attributes = Attributed(a=1)
    assert taken_over(of_attributes, Attributed(b=2)) is of_attributes
    assert vars(of_attributes) == of_attributes == {"b": 2}


@pytest.mark.parametrize("back", [restored, deep_copy])
def test_attributes_that_are_what_a_dict_holds_stay_so(back):
    found = back({"is": Attributed(a=1)})["is"]
    found.a = 2
    assert found == {"a": 2}
    assert vars(found) is found


def test_one_that_holds_itself_is_stored_without_and_copied_with():
    top = Node([Node([1])])
    top[0].above = top
    assert restored(top) == [[1]]
    copy = deep_copy(top)
    assert copy == [[1]]
    assert isinstance(copy[0].above, Node)


def test_what_two_share_they_share_in_a_copy():
    tensor = torch.ones(1)
    node = Node([tensor])
    node.above = tensor
    copy = deep_copy({"node": node, "tensor": tensor})
    assert copy["node"][0] is copy["tensor"]
    assert copy["node"].above is copy["tensor"]
    assert copy["tensor"] is not tensor
