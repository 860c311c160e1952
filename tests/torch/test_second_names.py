"""What callbacks, models and losses share goes on being shared, and what they make is made anew.

A second name that training makes for a list, for an object or for memory is one after a resume
as well; where names were one thing at first and are two since, they stay two.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import io
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import colabkit
from tests.torch.cases import arrays
from tests.torch.test_restored import assert_resumes_exactly, network


class Heated:
    """Sets the rate of each step by what it keeps."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer, self.steps = model, optimizer, 0

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.begin(self.steps % 4 == 0, float(logs["loss"]))
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + self.heat())

    def begin(self, is_new: bool, loss: float) -> None:
        raise NotImplementedError

    def heat(self) -> float:
        return 0.0


class Rows(Heated):
    rows: list[list[float]]
    row: list[float] | None = None

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.row = []
            self.rows = [*getattr(self, "rows", ()), self.row]
        self.row.append(loss)

    def heat(self) -> float:
        return sum(map(sum, self.rows))


class ByName(Heated):
    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.all = {**getattr(self, "all", {}), f"step {self.steps}. 'x'": {"n": 0}}
            self.last = self.all[f"step {self.steps}. 'x'"]
        self.last["n"] += 1

    def heat(self) -> float:
        return sum(each["n"] for each in self.all.values())


class Mean:
    def __init__(self) -> None:
        self.sum, self.parts = 0.0, []

    def add(self, value: float) -> None:
        self.sum += value
        self.parts.append(value)


@dataclasses.dataclass
class Count:
    n: int = 0


class Meters(Heated):
    """Makes a meter anew now and then, as many do at the head of each epoch."""

    meter = count = None

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.meter, self.count = Mean(), Count()
        self.meter.add(loss)
        self.count.n += 1

    def heat(self) -> float:
        return self.meter.sum + sum(self.meter.parts) + self.count.n


class Counter(dict):
    """A dict with attributes."""

    def add(self, key: int) -> None:
        self[key] = self.get(key, 0) + 1
        self.total = getattr(self, "total", 0) + 1


class Lines:
    """Writes, and holds a file, which nobody can save."""

    def __init__(self) -> None:
        self.file, self.count = io.StringIO(), 0

    def add(self, value: float) -> None:
        self.count += 1
        self.file.write(f"{self.count} {value}")


class DictOfMeters(Heated):
    """Makes dicts anew that make what they lack, and a writer when it needs one."""

    meters = lines = None

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.meters, self.counter = collections.defaultdict(Mean), Counter()
        self.lines = self.lines or Lines()
        self.lines.add(loss)
        self.meters[self.steps % 2].add(loss)
        self.counter.add(self.steps % 2)

    def heat(self) -> float:
        return sum(each.sum for each in self.meters.values()) + self.counter.total


class RowOfMeters(Heated):
    meter = None

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.meter = Mean()
            self.meters = [*getattr(self, "meters", ()), self.meter]
        self.meter.add(loss)

    def heat(self) -> float:
        return sum(each.sum for each in self.meters)


class Parting(Heated):
    """Names that are one thing at first, and two since."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.best = self.now = []
        self.mean = self.sum = torch.zeros(2)
        self.table = [[0.0] * 2] * 3

    def begin(self, is_new: bool, loss: float) -> None:
        if self.steps == 1:
            self.now, self.mean = [], self.mean + 1
            self.table[1] = [1.0, 0.0]
        self.now.append(loss)
        self.sum += loss
        self.table[1][0] += 1

    def heat(self) -> float:
        found = sum(self.now) + 2 * sum(self.best) + sum(map(sum, self.table))
        return found + float(self.sum.sum() + 3 * self.mean.sum())


class Views(Heated):
    """Takes slices of what it keeps, of PyTorch's and NumPy's."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.bank, self.buffer = torch.zeros(4, 2), np.zeros((3, 4))

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.row, self.column = self.bank[self.steps % 4], self.buffer[:, self.steps % 4]
        self.row += loss
        self.column += loss

    def heat(self) -> float:
        return float(self.bank.sum()) + float((self.buffer * [1, 2, 3, 4]).sum())


class OfRun(Heated):
    """Takes what the run saves itself: a weight, its memory, a layer, a group of the optimizer."""

    weight = memory = layer = group = None

    def begin(self, is_new: bool, loss: float) -> None:
        if self.steps == 1:
            self.layer, self.weight = self.model[3], self.model[0].weight
            self.memory = [each.detach() for each in self.model.parameters()]
            self.group = self.optimizer.param_groups[0]
        if self.group is not None:
            with torch.no_grad():
                self.layer.bias += 0.01
                self.weight *= 0.99
                self.memory[1].mul_(0.98)
            self.group["weight_decay"] = 0.1 / self.steps


class Later(Heated):
    """Takes a copy of the model, its weights, and what the optimizer and NumPy have of memory."""

    average = None

    def begin(self, is_new: bool, loss: float) -> None:
        if self.steps == 3:
            self.average = copy.deepcopy(self.model)
            self.weights = list(self.average.parameters())
            self.momentum = self.optimizer.state[self.model[0].weight]["momentum_buffer"]
            self.array = self.model[3].bias.detach().numpy()
        if self.average is not None:
            for own, other in zip(self.weights, self.model.parameters(), strict=True):
                own.data.lerp_(other.data, 0.1)
            self.momentum.mul_(0.9)
            self.array *= 0.99
            self.model[0].bias.data.lerp_(self.average[0].bias.data, 0.5)


class Node:
    def __init__(self, value: float) -> None:
        self.value, self.below, self.above = value, [], None


class Tree(Heated):
    """Grows a tree whose parts know what is above them, and draws from a generator made late."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.root = self.at = Node(0.0)
        self.first, self.source, self.owner = random.Random(3), None, None

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            node = Node(1.0)
            self.at.below.append(node)
            node.above, self.owner = self.at, self
            self.at = node if self.steps % 8 else self.root
            self.source, self.other = np.random.default_rng(self.steps), self.first
        self.at.value += self.source.random() + self.other.random() + self.first.random()
        if self.at.above is not None:
            self.at.above.value += 1
        self.owner.steps += 0

    def heat(self) -> float:
        return self.root.value + sum(each.value for each in self.root.below)


class Overlapping(Heated):
    """Has slices that overlap, and no longer the array in which both lie."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        array = np.zeros(5)
        self.one, self.other, self.rows = array[:3], array[2:], []

    def begin(self, is_new: bool, loss: float) -> None:
        self.rows.append([loss])
        self.one += loss

    def heat(self) -> float:
        return float(self.other.sum())


class Pair(Heated):
    """Two objects of a callback's, of which one takes what the other has."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.one, self.other = Mean(), Mean()

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.one.parts = []
            self.other.parts = self.one.parts
        self.one.add(loss)

    def heat(self) -> float:
        return sum(self.other.parts)


class InTuples(Heated):
    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.row = []
            self.pairs = [*getattr(self, "pairs", ()), (self.row, loss)]
            self.pair = ((self.row, 1), self.steps)
        self.row.append(loss)
        self.pair[0][0].append(loss)

    def heat(self) -> float:
        return sum(sum(row) for row, _ in self.pairs)


@pytest.mark.parametrize(
    "kind",
    [
        Rows,
        ByName,
        Meters,
        RowOfMeters,
        DictOfMeters,
        Parting,
        Views,
        OfRun,
        Later,
        Tree,
        Overlapping,
        Pair,
        InTuples,
    ],
)
def test_what_a_callback_shares_and_makes_goes_on(kind, tmp_path):
    made: list[Any] = []

    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        made.append(kind(model, optimizer))
        return {"model": model, "optimizer": optimizer, "callbacks": [made[-1]]}

    assert_resumes_exactly(make, tmp_path)
    assert made[-1].heat() == made[0].heat()


class Fold(nn.Module):
    """A module that begins a row now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.rows, self.row = network(), [], None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.rows or len(self.row) == 4:
            self.row = collections.deque()
            self.rows.append(self.row)
        self.row.append(1.0)
        return self.body(x) * (1 + 0.01 * sum(map(sum, self.rows)))


def test_what_a_module_shares_goes_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Fold()}, tmp_path)


ROWS: list[list[float]] = []
ROW: list[float] | None = None


def counted(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    global ROW
    if not ROWS or len(ROW) == 4:
        ROW = []
        ROWS.append(ROW)
    ROW.append(1.0)
    return functional.cross_entropy(outputs, y) * (1 + 0.01 * sum(map(sum, ROWS)))


def test_what_a_losss_globals_share_goes_on(tmp_path):
    def make() -> dict[str, Any]:
        global ROW
        ROWS.clear()
        ROW = None
        return {"model": network(), "loss": counted}

    assert_resumes_exactly(make, tmp_path)


class Slices(Heated):
    """Takes slices that overlap, and no array in which both lie."""

    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            array = np.zeros(5)
            self.one, self.other = array[:3], array[2:]


class OfHere(Heated):
    def begin(self, is_new: bool, loss: float) -> None:
        class Local:
            pass

        if is_new:
            self.local = Local()


class OfAFunction(Heated):
    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.counts = collections.defaultdict(lambda: 1)
        self.counts[self.steps] += 1


class Taking:
    def __init__(self) -> None:
        self.source = iter(range(100))


class OfAnIterator(Heated):
    def begin(self, is_new: bool, loss: float) -> None:
        if is_new:
            self.taking = Taking()
        next(self.taking.source)


class Long(Heated):
    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self.means = collections.deque((Mean() for _ in range(70)), maxlen=70)

    def begin(self, is_new: bool, loss: float) -> None:
        self.means.append(Mean())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Slices, "callback 0 Slices.other (ndarray) is a second name since"),
        (OfHere, "callback 0 OfHere.local (Local) changes in training and cannot be saved"),
        (OfAFunction, "callback 0 OfAFunction.counts (defaultdict) changes in training"),
        (OfAnIterator, "callback 0 OfAnIterator.taking.source (iterator) changes in training"),
        (Long, "callback 0 Long.means (deque) changes in training and cannot be saved"),
    ],
)
def test_what_cannot_be_shared_or_made_again_is_named(kind, said, tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    history = colabkit.fit(
        model,
        arrays(),
        tmp_path,
        optimizer=optimizer,
        callbacks=[kind(model, optimizer)],
        epochs=2,
        save_every=1,
        progress=False,
    )
    assert any(each.startswith(said) for each in history.verdict.reasons)


class Begun(Heated):
    """Sets as training begins what each session sets anew."""

    def on_train_begin(self, run: Any) -> None:
        self.parts = [self.model]
        self.pair = (self.model, self.optimizer)
        self.views = tuple(each.detach() for each in self.model.parameters())

    def begin(self, is_new: bool, loss: float) -> None:
        with torch.no_grad():
            self.parts[0][0].bias += 0.01
            self.views[1].mul_(0.99)


def test_what_training_begins_with_is_named_by_nobody(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return {"model": model, "optimizer": optimizer, "callbacks": [Begun(model, optimizer)]}

    assert_resumes_exactly(make, tmp_path)


class Begins(Heated):
    """Makes as training begins what it could not be given, and fills it."""

    def on_train_begin(self, run: Any) -> None:
        self.counts = collections.defaultdict(lambda: 1)

    def begin(self, is_new: bool, loss: float) -> None:
        self.counts[self.steps] += 1

    def heat(self) -> float:
        return sum(self.counts.values())


def test_a_container_made_as_training_begins_is_filled_and_named_by_nobody(tmp_path):
    reasons = []

    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return {
            "model": model,
            "optimizer": optimizer,
            "callbacks": [
                Begins(model, optimizer),
                lambda event: reasons.append(event.run.verdict),
            ],
        }

    assert_resumes_exactly(make, tmp_path)
    assert not reasons[-1].reasons
