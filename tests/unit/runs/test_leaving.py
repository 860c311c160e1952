"""What a loop of the user's hands on besides its run, and who counts its steps."""

from __future__ import annotations

import itertools
import weakref
from itertools import islice

import pytest

from colabkit.runs.leaving import Loop, carried_over, counted_by

SEEN: list[object] = []


def steps(ask, count: int = 3) -> Loop[int]:
    def loop(own):
        SEEN.append(ask(own[0]))
        yield from range(count)

    return Loop.knowing_itself(loop)


def bar(iterable):
    shown = 0
    for each in iterable:
        yield each
        shown = shown + 1


@pytest.fixture(autouse=True)
def _unseen():
    SEEN.clear()


def test_what_a_step_reads_and_then_sets_is_carried_and_nothing_else():
    key, total, hidden, unread, steady = "key", 0, [1], 0, 2
    for step in bar(steps(carried_over)):
        key, drawn = key + "'", key
        loss = len(drawn) * steady
        total += loss
        if step > 0:
            hidden = [*hidden, loss]
        unread = loss
        loss = unread
    assert SEEN == [{"key": "key", "total": 0, "hidden": [1], "shown": 0}]
    assert len(hidden) == 3


def test_variables_of_a_cell_and_of_a_loop_around_are_seen_as_well():
    cell = """
key, best, rate = 0, 9, 1
for epoch in steps(ask):
    rate = rate * 0.9
    for step in steps(ask):
        key = key + 1
        best = min(best, key)
"""
    exec(compile(cell, "<cell>", "exec"), {"steps": steps, "ask": carried_over})
    outer, inner, *_ = SEEN
    assert outer == {"rate": 1, "key": 0, "best": 9}
    assert inner == {"key": 0, "best": 9}


def test_where_no_for_reads_a_loop_nothing_is_told():
    key = 0
    reading = iter(steps(carried_over))
    while next(reading, None) is not None:
        key += 1
    assert SEEN == [{}]


COUNTED = {
    "nothing": (lambda loop: loop, ()),
    "enumerate": (enumerate, ("enumerate",)),
    "enumerate behind a bar": (lambda loop: bar(enumerate(loop)), ("enumerate",)),
    "a slice": (lambda loop: islice(loop, 2), ("islice",)),
    "a slice of a bar": (lambda loop: itertools.islice(bar(loop), 2), ("islice",)),
    "a zip": (lambda loop: zip(range(9), loop, strict=False), ("zip",)),
    "both": (lambda loop: enumerate(zip(loop, "abc", strict=True)), ("enumerate", "zip")),
    "pairs": (lambda loop: itertools.pairwise(loop), ("pairwise",)),
    "a sum": (lambda loop: itertools.accumulate(bar(loop), lambda a, b: b), ("accumulate",)),
    "groups": (lambda loop: itertools.groupby(loop, str), ("groupby",)),
    "two loops of one run": (lambda loop: zip(loop, steps(lambda _: None), strict=True), ()),
}


@pytest.mark.parametrize("how", COUNTED)
def test_who_counts_from_the_beginning_is_told(how):
    _names = enumerate, islice, zip  # as a cell names them
    _more = itertools.pairwise, itertools.accumulate, itertools.groupby
    around, told = COUNTED[how]
    for _ in around(steps(counted_by)):
        break
    assert told in SEEN


def test_who_counts_something_else_is_not():
    others = enumerate("ab"), zip("ab", "cd", strict=True), islice("ab", 1)
    for _ in steps(counted_by):
        pass
    assert SEEN == [()]
    assert others


def test_a_loop_knows_itself_only_while_it_lives():
    kept: list[weakref.ref[object]] = []
    loop = Loop.knowing_itself(lambda own: kept.append(own) or (each for each in "ab"))
    assert kept[0][0]() is loop._given()
