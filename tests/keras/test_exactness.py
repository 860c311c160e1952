"""A killed Keras run ends with bitwise the numbers of one left alone, for every way of training."""

from __future__ import annotations

import random

import pytest

from tests.keras.lives import live, needs_tensorflow, outcome

pytestmark = needs_tensorflow

# By name: the steps of a whole run.
STEPS = {
    "arrays_shuffled_with_dropout": 18,
    "tfdata_shuffled_augmented_cached": 18,
    "tfdata_that_keeps_its_draws": 18,
    "tfdata_made_for_each_epoch": 18,
    "tfdata_without_an_end": 21,
    "pydataset_with_two_workers": 18,
    "generator_function": 18,
    "endless_generator": 15,
    "torch_dataloader": 18,
    "sample_weights": 18,
    "class_weights": 18,
    "class_weights_of_a_pipeline": 18,
    "eight_steps_per_execution": 66,
    "learning_rate_schedule": 18,
    "plateau_and_early_stopping": 18,
    "two_inputs_and_two_outputs": 18,
    "gan_with_its_own_step": 18,
    "mixed_bfloat16": 18,
    "mixed_float16_with_loss_scale": 18,
    "averages_and_batch_norm": 18,
    "eager_with_a_callback_that_draws": 18,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_run_killed_twice_ends_with_the_same_bits(name, tmp_path):
    chooser = random.Random(name)
    first, second = sorted(chooser.sample(range(2, STEPS[name]), 2))
    every = chooser.choice([1, 2, 3])
    alone = {"case": name, "run": "alone"}
    killed = {"case": name, "run": "killed"}
    assert not live(tmp_path, alone, {**killed, "kill_at_step": first, "save_every": every})
    assert not live(tmp_path, {**killed, "kill_at_step": second, "save_every": 1})
    assert live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")
    assert outcome(tmp_path, "alone")["step"] == STEPS[name]
    assert outcome(tmp_path, "alone")["verdict"].startswith("Resume is exact")
