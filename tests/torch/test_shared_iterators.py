"""Loops that read on from one iterator are told beforehand, and read as they would without us."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import colabkit


def rows() -> Iterator[int]:
    yield from range(12)


class Bar:
    """Shows what it gives, as progress bars do."""

    def __init__(self, iterable: Any) -> None:
        self.iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        yield from self.iterable


SHARED = {
    "a generator": lambda one: one,
    "a slice of it": lambda one: itertools.islice(one, 3),
    "what is made of it": lambda one: (row + 1 for row in one),
    "it beside another": lambda one: zip(one, [*rows()], strict=False),
    "it behind a bar": Bar,
}
ANEW = {
    "generators": lambda _: rows(),
    "slices": lambda _: itertools.islice(rows(), 3),
    "zips": lambda _: zip(rows(), [*rows()], strict=True),
    "bars": lambda _: Bar(rows()),
    "a list": lambda _: [1, 2, 3],
    "iterators of lists": lambda _: iter([1, 2, 3]),
}


def reasons(folder: Any, make: Any, one: Any) -> list[str]:
    run = colabkit.Run(folder, progress=False)
    for _ in run.epochs(3):
        for _ in run.items(make(one)):
            pass
    found = run.history.verdict.reasons
    assert found == run.verdict.reasons
    return list(found)


@pytest.mark.parametrize("one", [rows, lambda: iter([*rows()])], ids=["generator", "list"])
@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
def test_what_several_loops_read_on_from_is_no_exact_resume(make, one, tmp_path):
    (reason,) = reasons(tmp_path, make, one())
    assert "several loops read on from one iterator" in reason


@pytest.mark.parametrize("make", ANEW.values(), ids=ANEW)
def test_iterators_that_each_loop_has_for_itself_are(make, tmp_path):
    assert not reasons(tmp_path, make, None)


def test_two_loops_side_by_side_over_one_iterator_are_told_before_the_first_step(tmp_path):
    run, one = colabkit.Run(tmp_path, progress=False), rows()
    for _ in zip(run.items(one), run.items(one), strict=False):
        assert any("several loops" in each for each in run.history.verdict.reasons)


def test_a_loop_inside_another_reads_what_that_gives(tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    for _ in run.items(run.items([1, 2])):
        pass
    for _ in run.items(zip(run.items([1, 2]), rows(), strict=False)):
        pass
    assert not run.verdict.reasons


def test_a_loop_that_is_left_leaves_its_iterator_open(tmp_path):
    run, one = colabkit.Run(tmp_path, progress=False), rows()
    for row in run.items(one):
        if row == 4:
            break
    assert list(run.items(one)) == [5, 6, 7, 8, 9, 10, 11]
