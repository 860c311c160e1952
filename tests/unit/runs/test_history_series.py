"""Values by step: exact over resumes, and full chunks stay as they are."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest

from colabkit.errors import ArgumentError
from colabkit.runs.history_series import CHUNK_STEPS, StepSeries

LONG = 2 * CHUNK_STEPS + 100


def value_of(step: int) -> dict[str, float]:
    values = {"loss": math.sin(step)}
    if step % 1000 == 0:
        values["rare"] = float(step)
    if step > CHUNK_STEPS + 7:
        values["late"] = step / 3
    return values


def filled(steps: int) -> StepSeries:
    series = StepSeries()
    for step in range(steps):
        series.append(step, value_of(step))
    return series


def same(one: StepSeries, other: StepSeries) -> bool:
    left, right = one.arrays(), other.arrays()
    return {n: a.tobytes() for n, a in left.items()} == {n: a.tobytes() for n, a in right.items()}


def test_the_value_of_a_step_lies_at_its_place():
    arrays = filled(LONG).arrays()
    assert {name: array.shape for name, array in arrays.items()} == dict.fromkeys(arrays, (LONG,))
    assert arrays["loss"][CHUNK_STEPS] == math.sin(CHUNK_STEPS)
    assert list(np.flatnonzero(~np.isnan(arrays["rare"]))) == list(range(0, LONG, 1000))
    assert np.isnan(arrays["late"][: CHUNK_STEPS + 8]).all()
    assert arrays["late"][-1] == (LONG - 1) / 3
    assert arrays["loss"].dtype == np.float64


@pytest.mark.parametrize(
    "killed_at",
    [0, 1, 5, CHUNK_STEPS - 1, CHUNK_STEPS, CHUNK_STEPS + 1, CHUNK_STEPS + 9, 2 * CHUNK_STEPS],
)
def test_a_resumed_series_is_bitwise_the_uninterrupted_one(killed_at):
    saved = filled(killed_at).state_dict()
    resumed = StepSeries()
    resumed.append(3, {"forgotten": 1.0})
    resumed.load_state_dict(saved)
    assert same(resumed, filled(killed_at))
    for step in range(killed_at, LONG):
        resumed.append(step, value_of(step))
    assert same(resumed, filled(LONG))


def test_a_state_does_not_change_while_the_run_goes_on():
    series = filled(10)
    state = series.state_dict()
    before = copy.deepcopy(state)
    for step in range(10, CHUNK_STEPS + 10):
        series.append(step, value_of(step))
    assert state["end"] == before["end"] == 10
    assert state["chunks"]["loss"][0].tobytes() == before["chunks"]["loss"][0].tobytes()


def test_loading_a_state_does_not_write_into_it():
    state = filled(10).state_dict()
    resumed = StepSeries()
    resumed.load_state_dict(state)
    resumed.append(9, {"loss": -1.0})
    assert state["chunks"]["loss"][0][9] == math.sin(9)


def test_full_chunks_are_the_same_arrays_in_every_state():
    series = filled(CHUNK_STEPS + 1)
    first = series.state_dict()["chunks"]["loss"]
    for step in range(CHUNK_STEPS + 1, LONG):
        series.append(step, value_of(step))
    later = series.state_dict()["chunks"]["loss"]
    assert later[0] is first[0]
    assert [len(chunk) for chunk in later] == [CHUNK_STEPS, CHUNK_STEPS, 100]


def test_two_names_may_be_logged_at_one_step_one_after_the_other():
    series = StepSeries()
    series.append(0, {"loss": 1.0})
    series.append(0, {"accuracy": 0.5})
    assert {name: list(array) for name, array in series.arrays().items()} == {
        "loss": [1.0],
        "accuracy": [0.5],
    }


def test_steps_left_out_hold_nan():
    series = StepSeries()
    series.append(3 * CHUNK_STEPS + 1, {"loss": 1.0})
    array = series.arrays()["loss"]
    assert len(array) == 3 * CHUNK_STEPS + 2
    assert np.isnan(array[:-1]).all()


def test_a_step_far_back_is_refused():
    series = StepSeries()
    series.append(CHUNK_STEPS, {"loss": 1.0})
    with pytest.raises(ArgumentError, match="Step 5 was logged after step 8192"):
        series.append(5, {"loss": 1.0})


def test_an_append_costs_little():
    series = StepSeries()
    values = {f"value {n}": 0.5 for n in range(8)}
    series.append(0, values)
    best_s = math.inf
    for _ in range(20):
        began_s = time.perf_counter()
        for step in range(1, 501):
            series.append(step, values)
        best_s = min(best_s, (time.perf_counter() - began_s) / 500 / len(values))
    assert best_s < 5e-6, f"{best_s * 1e9:.0f} ns per name"


@pytest.mark.parametrize("first", [0, 1, CHUNK_STEPS - 1, CHUNK_STEPS, CHUNK_STEPS + 5, 10**6])
def test_the_values_since_a_step_are_the_tail_of_all(first):
    series = StepSeries()
    for step in range(0, 2 * CHUNK_STEPS + 7, 3):
        series.append(step, {"loss": float(step)} if step % 2 else {"late": 1.0})
    everything = series.arrays()
    for name, values in series.since(first).items():
        assert np.array_equal(values, everything[name][first:], equal_nan=True)
