"""What callbacks of Keras' form share goes on being shared, and what they make is made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.keras.lives import needs_keras
from tests.keras.test_beside import kept_by, model

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


class Mean:
    def __init__(self) -> None:
        self.sum, self.parts = 0.0, []

    def add(self, value: float) -> None:
        self.sum += value
        self.parts.append(value)


def sharing() -> Any:
    import keras

    class Sharing(keras.callbacks.Callback):
        """Takes second names for what it keeps, at every third step."""

        def __init__(self) -> None:
            super().__init__()
            self.steps, self.rows, self.table = 0, [], {}
            self.row = self.named = self.meter = self.kernel = self.layer = None
            self.buffer = np.zeros((3, 4))
            self.best = self.now = []

        def goes_on(self) -> None:
            if self.steps % 3 == 0:
                self.row = []
                self.rows.append(self.row)
                self.named = self.table[f"{self.steps}. 'x'"] = {"n": 0}
                self.meter = Mean()
                self.column = self.buffer[:, self.steps % 4]
            if self.steps == 1:
                self.now, self.layer = [], self.model.layers[0]
                self.kernel = self.layer.kernel
            self.steps += 1
            self.row.append(self.steps)
            self.named["n"] += 1
            self.meter.add(self.steps)
            self.column += self.steps
            self.now.append(self.steps)
            if self.kernel is not None:
                self.kernel.assign(self.kernel * 0.5)
                self.layer.bias.assign_add(self.layer.bias + 1)

        def knows(self) -> str:
            kept = [self.rows, self.row, self.table, self.named, vars(self.meter)]
            arrays = [self.buffer, self.column, *self.model.get_weights()]
            return repr([kept, self.best, self.now, [each.tolist() for each in arrays]])

    return Sharing()


def after(
    steps: int, kept: Any = None, weights: Any = None
) -> tuple[str, Any, Any, tuple[str, ...]]:
    from colabkit.frameworks.keras.beside import Beside

    callback, trained = sharing(), model()
    callback.set_model(trained)
    if weights is not None:
        trained.set_weights(weights)
    beside = Beside(trained, [callback], ())
    if kept is not None:
        beside.load_state_dict(kept)
    beside.begin()
    for _ in range(steps):
        callback.goes_on()
    return callback.knows(), kept_by(beside), trained.get_weights(), beside.unsaved()


def test_what_a_callback_shares_and_makes_goes_on(tmp_path: Path):
    del tmp_path
    whole, _, _, unsaved = after(8)
    assert unsaved == ()
    _, kept, weights, _ = after(2)
    _, again, weights, _ = after(3, kept, weights)
    assert after(3, again, weights)[0] == whole
