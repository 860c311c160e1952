"""Which phase of a run a call is."""

from __future__ import annotations

import dataclasses

import pytest

from colabkit.errors import ArgumentError, CheckpointMismatchError
from colabkit.runs.phases import Call, Found, Left, Phase, Standing, Start, find, without_likes

HEAD, ALL = {"model": "2 of 6"}, {"model": "6 of 6"}
FAST, SLOW = {"optimizer": {"lr": 0.1}}, {"optimizer": {"lr": 0.01}}
FIRST = Phase("", HEAD, FAST, 2)
SECOND = Phase("", ALL, SLOW, 5, step=12, epoch=2, stands_on="a01-g0001-00000002-0badcafe")
GROWN = Phase("", HEAD, FAST, 3, earlier=(1, 2))
DONE, UNDER_WAY = Standing(2, True, "runs/x"), Standing(1, False, "runs/x")


def call(parts=HEAD, settings=FAST, epochs=2, name="") -> Call:
    return Call(name, parts, settings, epochs)


def left(index=0, *, as_left=False, weights=True) -> Left:
    return Left(index, as_left, weights)


FOUND = {
    "the same call again": ([FIRST], call(), DONE, None, Found(0)),
    "more epochs": ([FIRST], call(epochs=4), DONE, None, Found(0)),
    "fewer epochs": ([FIRST], call(epochs=1), DONE, None, Found(0)),
    "another rate of what is unfinished": ([FIRST], call(settings=SLOW), UNDER_WAY, None, Found(0)),
    "another rate and more epochs of what is done": (
        [FIRST], call(settings=SLOW, epochs=4), DONE, None, Found(1, Start.WHOLE),
    ),
    "other parts in the session that trained": (
        [FIRST], call(ALL, SLOW, 5), DONE, left(), Found(1, Start.AS_IT_IS),
    ),
    "other parts after an interrupt": (
        [FIRST], call(ALL, SLOW, 5), UNDER_WAY, left(), Found(1, Start.AS_IT_IS),
    ),
    "the same cell after an interrupt, at another rate": (
        [FIRST], call(settings=SLOW), UNDER_WAY, left(), Found(0),
    ),
    "nothing changed, and more epochs": (
        [FIRST], call(epochs=4), DONE, left(as_left=True), Found(0),
    ),
    "other weights, and more epochs": (
        [FIRST], call(epochs=4), DONE, left(as_left=True, weights=False), Found(1, Start.AS_IT_IS),
    ),
    "other weights, and no epochs said": (
        [FIRST], call(epochs=None), DONE, left(as_left=True, weights=False),
        Found(1, Start.AS_IT_IS),
    ),
    "the first of two": ([FIRST, SECOND], call(), UNDER_WAY, None, Found(0)),
    "the first of two, at another rate": (
        [FIRST, SECOND], call(settings=SLOW), UNDER_WAY, None, Found(0),
    ),
    "the second of two": ([FIRST, SECOND], call(ALL, SLOW, 5), UNDER_WAY, None, Found(1)),
    "the second, after the first": (
        [FIRST, SECOND], call(ALL, SLOW, 5), UNDER_WAY, left(), Found(1),
    ),
    "the second at another rate, after the first": (
        [FIRST, SECOND], call(ALL, FAST, 5), UNDER_WAY, left(), Found(1),
    ),
    "as the first was, but later": (
        [FIRST, SECOND], call(epochs=7), Standing(5, True, "x"), left(1), Found(2, Start.AS_IT_IS),
    ),
    "by name": (
        [FIRST, Phase("all", ALL, SLOW, 5)], call(ALL, SLOW, 5, "all"), UNDER_WAY, None, Found(1),
    ),
    "a name given afterwards": ([FIRST], call(name="head"), UNDER_WAY, None, Found(0)),
    "a new name": (
        [FIRST], call(settings=SLOW, epochs=4, name="slow"), UNDER_WAY, None,
        Found(1, Start.WEIGHTS),
    ),
    "a call of the loop that made the first of two": (
        [GROWN, SECOND], call(epochs=1), UNDER_WAY, None, Found(0),
    ),
    "the next call of that loop": (
        [GROWN, SECOND], call(epochs=2), UNDER_WAY, left(as_left=True), Found(0),
    ),
    "the last call of that loop": (
        [GROWN, SECOND], call(epochs=3), UNDER_WAY, left(as_left=True), Found(0),
    ),
    "what an older version has saved": ([Phase()], call(ALL, SLOW, 5), UNDER_WAY, None, Found(0)),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_a_call_is_told_by_what_it_trains_and_how_far(name):
    phases, asked, standing, before, found = FOUND[name]
    assert find(phases, asked, standing, before) == found


STRANGE = {
    "other parts of what is unfinished": ([FIRST], call(ALL), UNDER_WAY, None),
    "other parts of what is done, in another session": ([FIRST], call(ALL, SLOW, 5), DONE, None),
    "the first of two, with more epochs": ([FIRST, SECOND], call(epochs=3), UNDER_WAY, None),
    "what no call of a loop asked for": (
        [dataclasses.replace(GROWN, epochs=9), SECOND], call(epochs=3), UNDER_WAY, None,
    ),
    "neither of two": ([FIRST, SECOND], call({"model": "4 of 6"}), UNDER_WAY, None),
    "not the next one": ([FIRST, SECOND], call({"model": "4 of 6"}, epochs=5), UNDER_WAY, left()),
    "other parts under a known name": (
        [Phase("head", HEAD, FAST, 2)], call(ALL, name="head"), UNDER_WAY, None,
    ),
    "more epochs of a named one that has ended": (
        [Phase("head", HEAD, FAST, 2), SECOND], call(epochs=3, name="head"), UNDER_WAY, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_cannot_be_told_apart_is_an_error_that_says_the_way_on(name):
    phases, asked, standing, before = STRANGE[name]
    with pytest.raises(CheckpointMismatchError, match=r"runs/x.* Run the cells before") as caught:
        find(phases, asked, standing, before)
    assert caught.value.differences


def test_epochs_of_a_new_phase_that_are_trained_already_are_an_error_with_the_right_number():
    with pytest.raises(ArgumentError, match="epochs=4 to train 2 more") as caught:
        find([FIRST], call(ALL, SLOW, 2), DONE, left())
    assert caught.value.argument == "epochs"


def test_a_phase_knows_the_ends_that_it_went_beyond():
    grown = FIRST.going_on_to(3, done=2).going_on_to(4, done=3)
    assert (grown.epochs, grown.earlier) == (4, (2, 3))
    assert FIRST.going_on_to(3, done=1).earlier == ()
    assert grown.going_on_to(3, done=3).earlier == (2,)


def test_of_phases_that_are_alike_only_the_newest_ends_are_kept():
    alike = [Phase("", HEAD, FAST, n, stands_on=str(n) if n else "") for n in range(4)]
    assert [each.stands_on for each in without_likes(alike)] == ["", "", "", "3"]
    named = [dataclasses.replace(each, name=str(each.epochs)) for each in alike]
    assert without_likes(named) == named
    different = [FIRST, SECOND, Phase("", HEAD, FAST, 7, stands_on="z")]
    assert without_likes(different) == different
