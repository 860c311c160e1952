"""What steps change through a view, an indexer or a library's method, and go by, is named."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from tqdm.std import EMA, tqdm

from tests.torch.steered import named_in, run_of

sklearn = pytest.importorskip("sklearn")

from sklearn.linear_model import SGDClassifier  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

POINTS, LABELS = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1]


class River:
    """Learns from one sample after another, as those of River do."""

    def __init__(self) -> None:
        self.weights = np.zeros(2)

    def learn_one(self, row: Any) -> None:
        self.weights = self.weights + row

    def predict_one(self, row: Any) -> float:
        return float(self.weights @ row)


def by_views_of_tensors(run: Any, step: Any) -> None:
    names = [torch.zeros(2, 2) for _ in range(8)]
    data, part, turned, flat, detached, again, added, given = names
    for row in run.items(range(2)):
        step(sum(each.sum() for each in (data, part, turned, flat, detached, again, added, given)))
        data.data.add_(1.0)
        part.data[row] = 1.0
        turned.T[0, row] = 1.0
        flat.view(-1)[row] = 1.0
        detached.detach().mul_(2.0)
        again.data = again.data + 1
        added.data += 1
        torch.add(given, 1, out=given.data)


def by_views_of_arrays(run: Any, step: Any) -> None:
    flat, shaped, shared = np.zeros((2, 2)), np.zeros((2, 2)), torch.zeros(2)
    for row in run.items(range(2)):
        step(flat.sum() + shaped.sum() + shared.sum())
        flat.flat[row] = 1.0
        shaped.reshape(-1)[row] = 1.0
        shared.numpy()[row] = 1.0


def by_names_of_parts(run: Any, step: Any) -> None:
    added, cleared, set_in, column, viewed = (torch.zeros(4, 2) for _ in range(5))
    array, twice, renamed, handed, shown = np.zeros(4), *(torch.zeros(4) for _ in range(4))
    for row in run.items(range(2)):
        step(added.sum() + cleared.sum() + set_in.sum() + column.sum() + viewed.sum())
        step(array.sum() + twice.sum() + renamed.sum() + handed.sum() + shown.sum())
        part = added[row : row + 2]
        part += 1.0
        part = cleared[row:]
        part.mul_(2.0).add_(1.0)
        part = set_in[row:]
        part[0] = 1.0
        part = column[:, 0]
        torch.add(part, 1.0, out=part)
        part = viewed.view(-1)
        part += 1.0
        part = array[row : row + 2]
        part -= 1.0
        part = twice[row:]
        inner = part[:1]
        inner += 1.0
        part = renamed
        part += 1.0
        raised(handed)
        raised(shown[row:], by=2.0)
        raised(shown[[row, 0]])


def raised(numbers: torch.Tensor, by: float = 1.0) -> None:
    numbers += by


def by_parts_that_are_overwritten(run: Any, step: Any) -> None:
    cleared, given, filled = (torch.zeros(4) for _ in range(3))
    for _ in run.items(range(2)):
        part = cleared[:2]
        part.zero_()
        part = given[:2]
        torch.add(part, 1.0, out=part)
        torch.nn.init.ones_(filled[:2])
        cleared[3] += 1.0
        given[3] += 1.0
        filled[3] += 1.0
        step(cleared.sum() + given.sum() + filled.sum())


def by_what_is_overwritten_first(run: Any, step: Any) -> None:
    buffer, other = torch.zeros(4), torch.zeros(4)
    for row in run.items(range(2)):
        sums = buffer
        sums.zero_()
        sums += row
        again = other.data
        again.fill_(1.0)
        again += row
        step(buffer.sum() + other.sum())


def by_names_of_copies(run: Any, step: Any) -> None:
    bank, again, other, array = torch.zeros(4), torch.zeros(4), torch.zeros(4), np.zeros(4)
    rows = [[0.0], [0.0]]
    for row in run.items(range(2)):
        part = bank[[row, 0]]
        part += 1.0
        chosen = array[array > 0]
        chosen -= 1.0
        later = again[row:]
        later = later + 1.0
        later += 1.0
        some = rows[row:]
        some += [[1.0]]
        raised(other[[row, 0]])
        set_anew(other)
        step(part.sum() + chosen.sum() + later.sum() + again.sum() + len(some) + other.sum())


def set_anew(numbers: torch.Tensor) -> None:
    numbers = numbers * 2.0
    numbers += 1.0


def from_files(run: Any, step: Any) -> None:
    lines, names = io.StringIO("1\n2\n3\n4\n"), io.StringIO("1\n2\n3\n4\n")
    with contextlib.closing(sqlite3.connect(":memory:")) as base:
        cursor = base.execute("values (1), (2), (3), (4)")
        for _ in run.items(range(2)):
            step(float(lines.readline()) + float(names.read(2)) + cursor.fetchone()[0])


class Keeping:
    """Holds a sampler, as a trainer does."""

    def __init__(self) -> None:
        self.sampler = WeightedRandomSampler(torch.ones(4), 4)


def by_what_one_loader_draws(run: Any, step: Any) -> None:
    drawn, other = (WeightedRandomSampler(torch.ones(4), 4) for _ in range(2))
    loader = DataLoader(TensorDataset(torch.arange(4.0)), 2, sampler=drawn)
    for _ in run.epochs(2):
        for (row,) in run.batches(loader):
            step(row.sum())
            drawn.weights[row.long()] = 2.0
        other.weights[0] = 2.0


def by_what_a_trainers_loader_draws(run: Any, step: Any) -> None:
    kept = Keeping()
    loader = DataLoader(TensorDataset(torch.arange(4.0)), 2, sampler=kept.sampler)
    for _ in run.epochs(2):
        for (row,) in run.batches(loader):
            step(row.sum())
        kept.sampler.weights = kept.sampler.weights * 2.0


def by_copies(run: Any, step: Any) -> None:
    bank, point = torch.zeros(2), torch.zeros(2, requires_grad=True)
    for _ in run.items(range(2)):
        point.grad = None
        step(bank.clone().add_(1.0).sum() + point.sum().item())


def in_tables(run: Any, step: Any) -> None:
    by_name, by_place, row_of = (pandas.DataFrame({"a": [0.0, 0.0]}) for _ in range(3))
    series = pandas.Series([0.0, 0.0])
    for row in run.items(range(2)):
        step(by_name["a"].sum() + by_place.a.sum() + row_of["a"].max() + series.sum())
        by_name.loc[row, "a"] = 1.0
        by_place.iloc[row, 0] = 1.0
        row_of.at[row, "a"] += 1.0
        series.iloc[row] = 1.0


def in_a_table_that_is_shown(run: Any, step: Any) -> None:
    frame = pandas.DataFrame({"a": [0.0, 0.0]})
    for row in run.items(range(2)):
        frame.loc[row, "a"] = float(step())
    print(frame)


def learns_on(run: Any, step: Any) -> None:
    scaler, chained, warm, river = (
        StandardScaler(),
        StandardScaler(),
        SGDClassifier(warm_start=True, tol=None, max_iter=2),
        River(),
    )
    for row in run.items(range(2)):
        scaler.partial_fit(POINTS + row)
        warm.fit(POINTS, LABELS)
        river.learn_one(POINTS[row])
        told = chained.partial_fit(POINTS + row).transform(POINTS).sum() + scaler.var_[0]
        step(told + warm.predict(POINTS).sum() + river.predict_one(POINTS[0]))


def is_fitted_now_and_then(run: Any, step: Any) -> None:
    first, lazy, replaced = StandardScaler(), StandardScaler(), StandardScaler().fit(POINTS)
    for row in run.items(range(3)):
        if row == 0:
            first.fit(POINTS)
        if not hasattr(lazy, "mean_"):
            lazy.fit(POINTS)
        step(sum(each.transform(POINTS).sum() for each in (first, lazy, replaced)))
        if row == 1:
            replaced = StandardScaler().fit(2 * POINTS)


def is_fitted_each_time(run: Any, step: Any) -> None:
    scaler, chained, before = StandardScaler(), StandardScaler(), StandardScaler().fit(POINTS)
    for row in run.items(range(2)):
        scaler.fit(POINTS + row)
        step(scaler.transform(POINTS).sum() + before.transform(POINTS).sum())
        step(chained.fit_transform(POINTS).sum())


def learns_for_the_eye(run: Any, step: Any) -> None:
    scaler = StandardScaler()
    for _ in run.items(range(2)):
        step()
        scaler.partial_fit(POINTS)
        print(scaler.mean_)


def averages_in_a_library(run: Any, step: Any) -> None:
    average, shown = EMA(), EMA()
    for _ in run.items(range(2)):
        average(float(step()))
        shown(1.0)
        step(average.last)
        print(shown.last)


def counts_over_a_pass_in_a_library(run: Any, step: Any) -> None:
    for _ in run.epochs(2):
        bar, shown, begun_s = tqdm(disable=True), tqdm(disable=True), time.monotonic()
        for _ in run.batches([1, 2]):
            step()
            bar.update(1)
            shown.update(time.monotonic() - begun_s)
            begun_s = time.monotonic()
        step(bar.n)
        print(shown.n)


NAMED: dict[Callable[..., None], set[str]] = {
    by_views_of_tensors: {
        "data", "part", "turned", "flat", "detached", "again", "added", "given",
    },
    by_views_of_arrays: {"flat", "shaped", "shared"},
    by_names_of_parts: {
        "added", "array", "cleared", "column", "handed", "renamed", "set_in", "shown", "twice",
        "viewed",
    },
    by_parts_that_are_overwritten: {"cleared", "given", "filled"},
    by_what_is_overwritten_first: set(),
    by_names_of_copies: set(),
    from_files: {"lines", "names", "cursor"},
    by_what_one_loader_draws: {"drawn.weights", "sampler's weights"},
    by_what_a_trainers_loader_draws: {"kept.sampler.weights"},
    by_copies: set(),
    in_tables: {"by_name", "by_place", "row_of", "series"},
    in_a_table_that_is_shown: set(),
    learns_on: {"scaler", "chained", "warm", "river.weights"},
    is_fitted_now_and_then: {"first", "lazy", "replaced"},
    is_fitted_each_time: set(),
    learns_for_the_eye: set(),
    averages_in_a_library: {"average.last"},
    counts_over_a_pass_in_a_library: {"bar.n"},
}  # fmt: skip


@pytest.mark.parametrize("loop", NAMED, ids=lambda loop: loop.__name__)
def test_what_steps_go_by_is_named_however_it_is_changed(loop: Any, tmp_path: Any) -> None:
    assert named_in(run_of(loop, tmp_path / "run")) == NAMED[loop]
