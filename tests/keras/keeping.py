"""A callback whose steps go by counts that it keeps in whatever users keep them in."""

from __future__ import annotations

import collections
import dataclasses
import types
from typing import Any

import keras
import numpy as np


class Meter:
    __slots__ = ("count", "seen")

    def __init__(self) -> None:
        self.seen: list[int] = []

    def add(self) -> int:
        self.count = getattr(self, "count", 0) + 1
        self.seen.append(self.count)
        return len(self.seen)


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    count: int = 0


@dataclasses.dataclass
class Entry:
    count: int = 0


class Names(list):  # type: ignore[type-arg]
    total = 0


class Board(collections.OrderedDict):  # type: ignore[type-arg]
    """A table of one's own."""


def counted() -> int:
    counted.calls += 1  # type: ignore[attr-defined]
    return counted.calls  # type: ignore[attr-defined,no-any-return]


class Keeping(keras.callbacks.Callback):
    """Sets the rate by the sum of all its counts, each of which must go on."""

    __slots__ = ("own",)
    every = 0

    def __init__(self) -> None:
        super().__init__()
        counted.calls = type(self).every = 0  # type: ignore[attr-defined]
        self.own = 0
        self.meters = [Meter(), {"inner": (Meter(),)}]
        self.mark = Mark()
        self.entry = self.same = Entry()
        self.entries: list[Entry] = []
        self.names, self.board = Names(), Board()
        self.by_name: Any = collections.defaultdict(lambda: 3)
        self.space, self.data = types.SimpleNamespace(count=0), collections.UserDict(count=0)
        self.table = {"rule": lambda n: n + 1, "count": 0}

    def on_train_begin(self, logs: Any = None) -> None:
        self.mean = keras.ops.zeros((2,))
        self.means = [keras.ops.copy(keras.ops.convert_to_tensor(self.model.weights[0]))]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        del batch, logs
        self.own += 1
        type(self).every += 1
        self.mark = dataclasses.replace(self.mark, count=self.mark.count + 1)
        self.entry.count += 1
        self.entries.append(Entry(len(self.entries)))
        self.names.append("a")
        self.names.total += 1
        self.board[f"{len(self.board)}"] = self.own
        self.by_name[f"{len(self.by_name)}"] += 1
        self.space.count += 1
        self.data["count"] += 1
        self.table["count"] = self.table["rule"](self.table["count"])
        weight = keras.ops.convert_to_tensor(self.model.weights[0])
        self.mean, self.means = self.mean + 1.0, [0.5 * self.means[0] + 0.5 * weight]
        self.model.optimizer.learning_rate = 0.01 / self._sum()

    def _sum(self) -> float:
        meters = [self.meters[0], self.meters[1]["inner"][0]]  # type: ignore[index]
        tensors = [self.mean[0], keras.ops.sum(self.means[0])]
        return float(
            sum(each.add() for each in meters)
            + sum([self.own, self.every, counted(), self.mark.count, self.same.count])
            + sum(each.count for each in self.entries)
            + sum([len(self.names), self.names.total, *self.board.values()])
            + sum([*self.by_name.values(), self.space.count, self.data["count"]])
            + self.table["count"]
            + np.abs([float(keras.ops.convert_to_numpy(each)) for each in tensors]).sum()
        )
