"""``Run`` around loops of JAX: killed, they end with the same bits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.keras.lives import WarmProcess, needs_jax, outcome

pytestmark = needs_jax
# By name: the steps of a whole run.
LOOPS = {
    "with_all_of_it_kept": 9,
    "with_optax": 9,
    "several": 9,
    "with_nnx": 9,
    "with_train_state": 9,
    "as_equinox_does": 9,
    "in_chunks": 9,
    "over_four_devices": 9,
    "with_a_world_beside": 9,
}


@pytest.mark.parametrize("steps", [(1, 4), (5, 11)])
def test_means_that_are_reset_between_two_passes_are_those_of_a_loop_left_alone(
    steps: tuple[int, int], on_jax: WarmProcess, tmp_path: Path
) -> None:
    killed = {"loop": "that_evaluates", "run": "killed"}
    assert on_jax.live(tmp_path, {**killed, "run": "alone"})
    for step in steps:
        assert not on_jax.live(tmp_path, {**killed, "kill_at_step": step})
    assert on_jax.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")
    assert outcome(tmp_path, "alone")["verdict"].startswith("Resume is exact")


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_killed_twice_ends_with_the_same_bits(
    name: str, on_jax: WarmProcess, tmp_path: Path
) -> None:
    killed = {"loop": name, "run": "killed"}
    assert on_jax.live(tmp_path, {"loop": name, "run": "alone"})
    chooser = random.Random(name)
    for step in (chooser.randint(1, 3), chooser.randint(4, 3 * LOOPS[name] // 4)):
        assert not on_jax.live(tmp_path, {**killed, "kill_at_step": step})
    assert on_jax.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")
    assert outcome(tmp_path, "alone")["step"] == LOOPS[name]
    assert outcome(tmp_path, "alone")["verdict"].startswith("Resume is exact")
