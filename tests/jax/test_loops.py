"""``Run`` around loops of JAX: killed, they end with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.keras.lives import Nursery, needs_jax, outcome

pytestmark = needs_jax
LOOPS = ("with_optax", "several", "with_nnx", "with_train_state")
STEPS = 9


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_killed_twice_ends_with_the_same_bits(
    name: str, on_jax: Nursery, tmp_path: Path
) -> None:
    killed = {"loop": name, "run": "killed"}
    assert on_jax.live(tmp_path, {"loop": name, "run": "alone"})
    for step in (2, 5):
        assert not on_jax.live(tmp_path, {**killed, "kill_at_step": step})
    assert on_jax.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")
    assert outcome(tmp_path, "alone")["step"] == STEPS
    assert outcome(tmp_path, "alone")["verdict"].startswith("Resume is exact")
