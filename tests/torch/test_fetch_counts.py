"""Numbers that fetching changes and goes by are named; those that are for show are not."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from tests.torch.cases import Augmented, loader, network


class Warming(Augmented):
    """Augments once it has been asked often enough."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def __getitem__(self, index):
        self.asked += 1
        return self._warmed(self.x[index]), self.y[index]

    def _warmed(self, x):
        return x + torch.rand(()) if self.asked > 1000 else x


class Sizing(Augmented):
    """Chooses a size now and then, and collates to it, as detectors do."""

    def __init__(self):
        super().__init__()
        self.batches, self.size = 0, 6

    def collate(self, items):
        self.batches += 1
        if self.batches % 100 == 0:
            self.size = random.choice([5, 6])
        x, y = torch_data.default_collate(items)
        return functional.interpolate(x[:, None], size=self.size)[:, 0], y


ASKED = 0


class InGlobal(Augmented):
    def __getitem__(self, index):
        global ASKED
        ASKED += 1
        return (self.x[index] * 2 if ASKED > 1000 else self.x[index]), self.y[index]


class Mixing:
    def __init__(self):
        self.steps = 0

    def __call__(self, items):
        x, y = torch_data.default_collate(items)
        self.steps = self.steps + 1
        return (x.flip(0) if self.steps >= 1000 else x), y


class ForShow(Augmented):
    """Counts, notes what it is at, and fills a cache: nothing of that changes a batch."""

    def __init__(self):
        super().__init__()
        self.asked, self.at, self.cache, self.most = 0, None, {}, float("nan")

    def __getitem__(self, index):
        self.asked = self.asked + 1
        self.at = index
        self.cache[index] = self._found()
        return self.cache[index]

    def _found(self):
        x = self.x[self.at]
        return (x * self.most if self.most > 0 else x), self.y[self.at]

    def report(self):
        return f"{self.asked} fetched"


def collated_by(dataset):
    return torch_data.DataLoader(dataset, 8, collate_fn=dataset.collate)


def mixed():
    return torch_data.DataLoader(ForShow(), 8, collate_fn=Mixing())


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: loader(Warming()), "asked"),
        (lambda: collated_by(Sizing()), "batches"),
        (lambda: loader(InGlobal()), "ASKED"),
        (mixed, "steps"),
        (lambda: loader(ForShow()), None),
        (lambda: loader(torch_data.TensorDataset(torch.ones(40, 6), torch.ones(40).long())), None),
    ],
)
def test_data_that_counts_what_it_fetches_and_goes_by_that_is_named(make, count, workers, tmp_path):
    data = make()
    data = torch_data.DataLoader(data.dataset, 8, collate_fn=data.collate_fn, num_workers=workers)
    reasons = colabkit.fit(network(), data, tmp_path, epochs=1, progress=False).verdict.reasons
    expected = f"the data counts in {count} what it fetches, and goes by that"
    assert [each.partition(":")[0] for each in reasons] == ([expected] if count else [])
