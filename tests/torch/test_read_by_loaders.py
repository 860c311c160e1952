"""What the data of a loop reads by itself, and the loop changes, is named; the rest is not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from tests.torch.killing import in_child
from tests.torch.plain_notebook import Notebook, X, Y, check_killed, train
from tests.torch.steered import named_in, run_of


class Data(Dataset[torch.Tensor]):
    """Scales what it gives."""

    level = 1.0

    def __init__(self, transform: Any = None) -> None:
        self.rows, self.transform = torch.ones(4), transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        row = self.rows[index] * self.level
        return row if self.transform is None else self.transform(row)


class Scale:
    """A transform of samples, and of batches."""

    by = 1.0

    def __call__(self, rows: Any) -> Any:
        return self.by * (default_collate(rows) if isinstance(rows, list) else rows)


def labels_under_a_name_of_their_own(run: Any, step: Any) -> None:
    labels, others = torch.ones(4), torch.ones(4)
    data = TensorDataset(torch.ones(4), labels)
    for _ in run.epochs(2):
        for row, label in run.batches(DataLoader(data, 2)):
            step(row.sum() + label.sum())
        labels[2:] = 0.0
        others[2:] = 0.0


def labels_of_a_library(run: Any, step: Any) -> None:
    data = TensorDataset(torch.ones(4), torch.ones(4))
    loader = DataLoader(data, 2)
    for _ in run.epochs(2):
        for row, label in run.batches(loader):
            step(row.sum() + label.sum())
        data.tensors[1][2:] = 0.0


def levels_set_behind(run: Any, step: Any) -> None:
    data = Data()
    inner, scale, collate = DataLoader(Subset(Data(), range(4))), Scale(), Scale()
    scaled, collated = DataLoader(Data(scale)), DataLoader(Data(), collate_fn=collate)
    for epoch in run.epochs(2):
        for loader in (DataLoader(data), inner, scaled, collated):
            for row in run.batches(loader):
                step(row.sum())
        data.level = 1.0 + epoch
        inner.dataset.dataset.level = 1.0 + epoch  # type: ignore[attr-defined]
        scale.by = 1.0 + epoch
        collate.by += 1.0


def what_is_set_before(run: Any, step: Any) -> None:
    data = Data()
    loader = DataLoader(data)
    for epoch in run.epochs(2):
        data.level = 1.0 + epoch
        for row in run.batches(loader):
            step(row.sum())


def closed_over_counts(run: Any, step: Any) -> None:
    counts, others, passes = {"steps": 0}, {"steps": 0}, 0

    class Counted(Data):
        def __getitem__(self, index: int) -> torch.Tensor:
            return self.rows[index] * counts["steps"] * passes

    loader = DataLoader(Counted())
    for _ in run.epochs(2):
        for row in run.batches(loader):
            step(row.sum())
            counts["steps"] += 1
            others["steps"] += 1
        passes += 1


def a_class(run: Any, step: Any) -> None:
    class Leveled(Data):
        level = 1.0

    loader = DataLoader(Leveled())
    for _ in run.epochs(2):
        for row in run.batches(loader):
            step(row.sum())
        Leveled.level += 1.0


def what_a_sampler_draws(run: Any, step: Any) -> None:
    sampler, rows = SubsetRandomSampler([0, 1, 2, 3]), [0, 1, 2, 3]
    for _ in run.epochs(2):
        for loader in (DataLoader(Data(), sampler=sampler), DataLoader(Data(), sampler=rows)):
            for row in run.batches(loader):
                step(row.sum())
        sampler.indices = [3, 2, 1]
        rows.reverse()


class Trainer:
    """Collates by a method of its own, and keeps more than that reads."""

    def __init__(self) -> None:
        self.loader = DataLoader(Data(), 2, collate_fn=self.collate)
        self.scale, self.losses, self.seen = 1.0, [0.0], 0

    def collate(self, rows: list[torch.Tensor]) -> torch.Tensor:
        return self.scaled(torch.stack(rows))

    def scaled(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * self.scale

    def train(self, run: Any, step: Any) -> None:
        for _ in run.epochs(2):
            for row in run.batches(self.loader):
                self.losses.append(float(step(row.sum())))
                self.seen += len(row)
            self.scale += 1.0
            print(sum(self.losses), self.seen)


def a_trainer_that_collates(run: Any, step: Any) -> None:
    trainer = Trainer()
    trainer.train(run, step)


NAMED: dict[Callable[..., None], set[str]] = {
    labels_under_a_name_of_their_own: {"labels"},
    labels_of_a_library: {"data.tensors[1]"},
    levels_set_behind: {"data.level", "inner.dataset.dataset.level", "scale.by", "collate.by"},
    what_is_set_before: set(),
    closed_over_counts: {"counts", "passes"},
    a_class: {"Leveled.level"},
    what_a_sampler_draws: {"sampler.indices", "rows"},
    a_trainer_that_collates: {"self.scale"},
}


@pytest.mark.parametrize("loop", NAMED, ids=lambda loop: str(loop.__name__))
def test_what_data_reads_by_itself_and_a_loop_changes_is_named(loop, tmp_path):
    assert named_in(run_of(loop, tmp_path)) == NAMED[loop]


class PseudoLabels(Notebook):
    """Labels half of the samples by what the model says of them."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.labels = Y.clone()
        self.data = DataLoader(TensorDataset(X, self.labels), 10, shuffle=True)


def labeling(book: Any, *, keeps: bool) -> None:
    if keeps:
        book.run.state(labels=book.labels)
    for _ in book.run.epochs(3):
        for x, y in book.run.batches(book.data):
            book.step(torch.nn.functional.cross_entropy(book.model(x), y))
        with torch.no_grad():
            book.labels[20:] = book.model(X[20:]).argmax(1)


def test_labels_that_are_kept_as_advised_are_those_of_the_loaders_data(tmp_path):
    class Ordered(PseudoLabels):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.data = DataLoader(TensorDataset(X, self.labels), 10)  # the plain loop draws none

    check_killed(functools.partial(labeling, keeps=True), tmp_path, [5, 9], kind=Ordered)


def test_a_batch_of_what_is_named_may_be_another_at_a_resume(tmp_path):
    loop = functools.partial(labeling, keeps=False)
    killed = functools.partial(train, loop, tmp_path / "run", dies_at=6, kind=PseudoLabels)
    assert not in_child(killed, report=tmp_path / "report")
    _, run = train(loop, tmp_path / "run", kind=PseudoLabels)
    assert any("labels begins anew" in each for each in run.verdict.reasons)
