"""Tables for the eye."""

from __future__ import annotations

from colabkit.notebook.tables import text_table


def test_the_numbers_of_a_column_have_as_many_decimals_as_its_longest():
    rows = [{"n": 9, "v": 0.9778}, {"n": 10, "v": 0.98}, {"n": 11, "v": 1.0}]
    told = text_table(rows, columns=["n", "v"]).splitlines()
    assert [line.split() for line in told[1:]] == [
        ["9", "0.9778"],
        ["10", "0.9800"],
        ["11", "1.0000"],
    ]


def test_a_column_with_very_small_or_no_numbers_keeps_each_as_it_is():
    rows = [{"v": 0.00001234}, {"v": 2.5}, {"v": None}, {"v": float("nan")}, {"v": "x"}]
    told = text_table(rows, columns=["v"]).split()
    assert told == ["v", "1.234e-05", "2.5", "–", "nan", "x"]
