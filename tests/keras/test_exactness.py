"""A killed Keras run ends with bitwise the numbers of one left alone, for every way of training."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests import abilities
from tests.keras.lives import WarmProcess, needs_jax, needs_keras, outcome

pytestmark = needs_keras

SOAK = bool(os.environ.get("COLABKIT_SOAK"))

# By name: the steps of a whole run.
ON_ANY = {
    "arrays_shuffled_with_dropout": 18,
    "pydataset_with_two_workers": 18,
    "generator_function": 18,
    "endless_generator": 15,
    "endless_generators_with_validation": 15,
    "steps_that_do_not_divide_arrays": 10,
    "pydataset_with_eight_workers": 18,
    "torch_dataloader": 18,
    "sample_weights": 18,
    "class_weights": 18,
    "learning_rate_schedule": 18,
    "plateau_and_early_stopping": 18,
    "two_inputs_and_two_outputs": 18,
    "mixed_bfloat16": 18,
    "mixed_float16_with_loss_scale": 18,
    "averages_and_batch_norm": 18,
    "eager_with_a_callback_that_draws": 18,
    "callbacks_with_generators_of_their_own": 18,
    "states_and_variables_beside_the_weights": 18,
    "variables_and_seeds_of_losses_lambdas_and_callbacks": 18,
    "plain_numbers_of_layers_closures_and_callbacks": 18,
    "counts_that_a_callback_keeps_in_objects": 18,
}
ON_TENSORFLOW = {
    **ON_ANY,
    "tfdata_shuffled_augmented_cached": 18,
    "tfdata_that_keeps_its_draws": 18,
    "tfdata_made_for_each_epoch": 18,
    "tfdata_without_an_end": 21,
    "tfdata_shuffled_twice": 18,
    "tfdata_of_a_generator_that_draws": 18,
    "tfdata_shown_after_each_epoch": 18,
    "tfdata_shown_after_each_step": 18,
    "class_weights_of_a_pipeline": 18,
    "steps_of_a_pipeline_of_unknown_length": 10,
    "four_steps_per_execution_of_unknown_length": 18,
    "eight_steps_per_execution": 66,
    "two_replicas": 18,
    "own_layers_and_step_of_two_replicas": 18,
    "loss_of_two_replicas_with_states": 18,
    "gan_with_its_own_step": 18,
    "vae_with_its_own_step": 18,
    "diffusion_with_its_own_steps": 18,
    "model_that_prepares_text_itself": 18,
}
# What of the code the backends do not share.
ON_TORCH = {
    "arrays_shuffled_with_dropout": 18,
    "averages_and_batch_norm": 18,
    "learning_rate_schedule": 18,
    "mixed_float16_with_loss_scale": 18,
    "own_layers_in_a_subclass": 18,
    "own_step": 18,
    "tfdata_shuffled_and_validated": 18,
    "plain_numbers_of_layers_closures_and_callbacks": 18,
    "counts_that_a_callback_keeps_in_objects": 18,
    "variables_and_seeds_of_losses_lambdas_and_callbacks": 18,
    "pydataset_with_two_workers": 18,
    "torch_dataloader": 18,
    "two_inputs_and_two_outputs": 18,
}
ON_JAX = {
    "arrays_shuffled_with_dropout": 18,
    "averages_and_batch_norm": 18,
    "plateau_and_early_stopping": 18,
    "mixed_float16_with_loss_scale": 18,
    "generator_function": 18,
    "own_stateless_step": 18,
    "callback_that_reads_weights": 18,
    "counts_that_a_callback_keeps_in_objects": 18,
    "four_steps_per_execution_of_unknown_length": 18,
    "gradients_accumulated": 18,
    "two_inputs_and_two_outputs": 18,
    "pydataset_with_two_workers": 18,
    "own_layers_in_a_subclass": 15,
    "own_step_without_a_call": 18,
    "adapters_eight_steps_at_once": 66,
    "stateful_lstm": 18,
    "batches_on_four_devices": 18,
    "batches_and_weights_on_four_devices": 18,
    "tfdata_shuffled_and_validated": 18,
}
# The plain variables that these keep beside the model are built into a step of JAX's.
NAMED_ON_JAX = {"variables_and_seeds_of_losses_lambdas_and_callbacks"}


def check_killed(warm: WarmProcess, folder: Path, name: str, *, steps: int) -> None:
    """Kills at the very end of the first epoch, and either before that or later."""
    chooser, epoch = random.Random(name), steps // 3
    another = chooser.choice([chooser.randint(2, epoch), chooser.randint(epoch + 2, steps)])
    first, second = sorted([epoch + 1, another])
    alone = {"case": name, "run": "alone"}
    killed = {"case": name, "run": "killed", "waits": True}
    plan = {**killed, "kill_at_step": first, "save_every": chooser.choice([1, 2, 3])}
    assert not warm.live(folder, alone, plan)
    assert not warm.live(folder, {**killed, "kill_at_step": second, "save_every": 1})
    assert warm.live(folder, killed)
    assert outcome(folder, "killed") == outcome(folder, "alone")
    assert outcome(folder, "alone")["step"] == steps
    assert outcome(folder, "alone")["verdict"].startswith("Resume is exact")


@pytest.mark.parametrize(
    ("name", "steps_per_epoch"),
    [
        ("tfdata_shuffled_without_an_end", 6),
        ("tfdata_of_which_an_epoch_takes_a_part", 5),
        ("tfdata_of_unknown_length_in_parts", 3),
    ],
)
def test_a_pipeline_read_in_parts_goes_on_at_the_end_of_each_epoch(
    name, steps_per_epoch, on_tensorflow, tmp_path
):
    killed = {"case": name, "run": "killed", "waits": True, "save_every": 1}
    assert on_tensorflow.live(tmp_path, {"case": name, "run": "alone"})
    for epoch in (1, 2):
        step = epoch * steps_per_epoch + 1
        assert not on_tensorflow.live(tmp_path, {**killed, "kill_at_step": step})
    assert on_tensorflow.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")
    assert outcome(tmp_path, "alone")["verdict"].startswith("Resume is exact")


@pytest.mark.parametrize("name", ON_TENSORFLOW)
def test_a_run_on_tensorflow_killed_twice_ends_with_the_same_bits(name, on_tensorflow, tmp_path):
    check_killed(on_tensorflow, tmp_path, name, steps=ON_TENSORFLOW[name])


@pytest.mark.parametrize("name", ON_TORCH)
def test_a_run_on_pytorch_killed_twice_ends_with_the_same_bits(name, on_torch, tmp_path):
    check_killed(on_torch, tmp_path, name, steps=ON_TORCH[name])


@needs_jax
@pytest.mark.parametrize("name", ON_JAX)
def test_a_run_on_jax_killed_twice_ends_with_the_same_bits(name, on_jax, tmp_path):
    check_killed(on_jax, tmp_path, name, steps=ON_JAX[name])


@needs_jax
@pytest.mark.parametrize("name", sorted(NAMED_ON_JAX))
def test_what_a_step_of_jax_has_built_in_and_changes_is_named(name, on_jax, tmp_path):
    assert on_jax.live(tmp_path, {"case": name, "run": "alone"})
    assert "which the compiled step has built in" in outcome(tmp_path, "alone")["verdict"]


@needs_jax
def test_an_epoch_on_jax_that_was_complete_is_ended_by_the_next_session(on_jax, tmp_path):
    case = "averages_and_batch_norm"
    killed = {"case": case, "run": "killed", "save_every": 1}
    alone = {"case": case, "run": "alone"}
    assert not on_jax.live(tmp_path, alone, {**killed, "kill_at_epoch_end": 0})
    assert not on_jax.live(tmp_path, {**killed, "kill_at_epoch_end": 2})
    assert on_jax.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")


@needs_jax
@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("name", sorted(ON_ANY.keys() - ON_JAX.keys() - NAMED_ON_JAX))
def test_the_other_runs_on_jax_end_with_the_same_bits(name, on_jax, tmp_path):
    check_killed(on_jax, tmp_path, name, steps=ON_ANY[name])


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("name", sorted(ON_ANY.keys() - ON_TORCH.keys()))
def test_the_other_runs_on_pytorch_end_with_the_same_bits(name, on_torch, tmp_path):
    check_killed(on_torch, tmp_path, name, steps=ON_ANY[name])


def test_a_run_killed_after_every_step_ends_with_the_same_bits(on_tensorflow, tmp_path):
    case = "averages_and_batch_norm"
    on_tensorflow.live(tmp_path, {"case": case, "run": "alone"})
    killed = {"case": case, "run": "killed", "save_every": 1}
    kills = range(3, 19, 2)  # odd ones wait for their saves, and so get on
    for step in kills:
        assert not on_tensorflow.live(tmp_path, {**killed, "kill_at_step": step})
    assert on_tensorflow.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")


@pytest.mark.parametrize(
    ("case", "epoch"),
    [
        ("averages_and_batch_norm", 0),
        ("averages_and_batch_norm", 2),
        ("metrics_that_a_callback_resets", 1),
        ("two_replicas", 1),
        ("own_layers_and_step_of_two_replicas", 1),
        ("two_replicas_of_a_pydataset", 1),
        ("two_replicas_of_a_pipeline", 1),
        ("two_replicas_of_a_pipeline_without_an_end", 1),
    ],
)
def test_a_run_killed_at_an_epochs_end_ends_with_the_same_bits(
    case, epoch, on_tensorflow, tmp_path
):
    killed = {"case": case, "run": "killed", "save_every": 1}
    alone = {"case": case, "run": "alone"}
    assert not on_tensorflow.live(tmp_path, alone, {**killed, "kill_at_epoch_end": epoch})
    assert on_tensorflow.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")


def kill_at_random_moments(
    warm: WarmProcess, folder: Path, *, case: str, alone_s: float, chooser: random.Random
) -> int:
    """Kills from outside until a life gets to its end; returns how many did not."""
    plan = {"case": case, "run": "killed", "save_every": 1}
    kills = 0
    # Longer each time, so that a machine which slows down comes to an end as well.
    while not warm.live(
        folder, plan, kill_after_s=chooser.uniform(0.3, 1.2) * alone_s * 1.1**kills
    ):
        kills += 1
    return kills


def check_killed_at_random(warm: WarmProcess, folder: Path, *, case: str, runs: int) -> None:
    began_s = time.monotonic()
    assert warm.live(folder, {"case": case, "run": "alone"})
    alone_s = time.monotonic() - began_s
    chooser, kills, number = random.Random(case), 0, 0
    while number < runs or not kills:
        run = folder / str(number)
        run.mkdir()
        kills += kill_at_random_moments(warm, run, case=case, alone_s=alone_s, chooser=chooser)
        # A life that finds nothing left to train gives no verdict.
        verdict = {"verdict": outcome(folder, "alone")["verdict"]}
        assert outcome(run, "killed") | verdict == outcome(folder, "alone")
        number += 1
        if not kills:
            # The machine was busier while the first life was timed: kill earlier.
            alone_s /= 2


@pytest.mark.parametrize("case", ["arrays_shuffled_with_dropout", "pydataset_with_two_workers"])
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(case, on_tensorflow, tmp_path):
    check_killed_at_random(on_tensorflow, tmp_path, case=case, runs=3)


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("case", ON_TENSORFLOW)
def test_no_moment_is_a_bad_one_to_be_killed_at(case, on_tensorflow, tmp_path):
    check_killed_at_random(on_tensorflow, tmp_path, case=case, runs=20)
