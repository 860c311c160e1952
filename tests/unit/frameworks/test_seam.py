"""A framework is one row in a table and an adapter: a toy one trains, dies and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import colabkit
from colabkit.errors import CheckpointMismatchError
from colabkit.frameworks import base, detect
from tests.unit.frameworks.numpy_adapter import Model, NumpyAdapter

EPOCHS, BATCH = 3, 4
DATA = np.random.default_rng(0).normal(size=(18, 3)).astype("float32")
STEPS = EPOCHS * -(-len(DATA) // BATCH)
ROW = detect.FrameworkEntry("toy", ("tests",), "tests.unit.frameworks.numpy_adapter:NumpyAdapter")
LIFE = """
import sys
from tests.unit.frameworks import test_seam
test_seam.detect.FRAMEWORKS.insert(0, test_seam.ROW)
test_seam.train(sys.argv[1], dies_at=int(sys.argv[2]))
assert "torch" not in sys.modules and "keras" not in sys.modules
"""


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(detect, "FRAMEWORKS", [ROW, *detect.FRAMEWORKS])


def train(folder: str | Path, *, dies_at: int = -1, width: int = 3) -> tuple[bytes, list[float]]:
    model = Model(w=np.ones(width), v=np.zeros(width))
    run = colabkit.Run(folder, model=model, save_every=1, progress=False, seed=3)
    for _ in run.epochs(EPOCHS):
        for batch in run.batches(DATA, batch_size=BATCH):
            w, v = (model.weights[name].values for name in "wv")
            noise = np.random.normal(size=width).astype("float32")
            v[...] = 0.9 * v + (batch.mean(0) + 0.1 * noise if width == 3 else noise)
            w -= 0.1 * v
            run.log(loss=float(w @ w))
            if run.step == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
    return model.weights["w"].values.tobytes(), run.history.history["loss"]


def test_the_toy_has_all_that_a_run_asks_for():
    asked = {name for name in vars(base.FrameworkAdapter) if not name.startswith("_")}
    adapter = NumpyAdapter({})
    assert {name for name in asked if not hasattr(adapter, name)} == set()
    assert isinstance(detect.adapter_for({"model": Model()}), NumpyAdapter)


@pytest.mark.parametrize("dies_at", [1, 5, STEPS - 1])
def test_a_toy_run_that_was_killed_ends_with_the_same_bits(dies_at, tmp_path):
    life = [sys.executable, "-c", LIFE, str(tmp_path / "killed"), str(dies_at)]
    assert subprocess.run(life, check=False).returncode == -signal.SIGKILL
    assert train(tmp_path / "killed") == train(tmp_path / "alone")
    assert colabkit.checkpoints(tmp_path / "killed", verify=True)[0].step == STEPS


def test_a_toy_model_of_another_form_is_an_error_and_a_trained_one_loads(tmp_path):
    weights, _ = train(tmp_path)
    with pytest.raises(CheckpointMismatchError, match=r"model\.w"):
        train(tmp_path, width=2)
    fresh = Model(w=np.ones(3), v=np.zeros(3))
    colabkit.load(fresh, tmp_path)
    assert fresh.weights["w"].values.tobytes() == weights
