"""The demo keeps what it says: killed twice, and bit for bit what it would be."""

from __future__ import annotations

import pytest

from colabkit import demo
from tests import abilities
from tests.abilities import package

# Enough for both kills; too few for the accuracy that the demo asks for.
EPOCHS = 12


SLOW = [pytest.mark.soak, pytest.mark.needs(abilities.SOAK)]


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=SLOW)])
def test_the_killed_demo_ends_with_the_weights_of_the_one_left_alone(backend, capfd):
    package("keras", backend).require()
    demo.main(["--framework", "keras", "--backend", backend, "--epochs", str(EPOCHS)])
    said = capfd.readouterr()
    assert "bitwise those of the run left alone: yes" in said.out
    assert "killed in mid-write" in said.out
    assert not said.err
