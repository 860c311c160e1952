"""The Keras side keeps the contract of ``fit``, on each backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import abilities
from tests.fit_contract import FitContract
from tests.keras.lives import needs_jax, needs_keras

pytestmark = needs_keras


class KerasContract(FitContract):
    def model(self, *, outputs: int = 3) -> Any:
        import keras  # only in the process that the test runs in

        keras.utils.set_random_seed(11)
        layers = [keras.layers.Dense(12, "relu"), keras.layers.Dropout(0.2)]
        model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(outputs)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    def weights(self, model: Any) -> list[np.ndarray]:
        return model.get_weights()

    def in_child(self, work, folder):
        from tests.torch.killing import in_child  # needs PyTorch

        return in_child(work, report=folder / "report.txt")


@pytest.mark.in_nursery("on_tensorflow")
class TestKerasOnTensorFlow(KerasContract):
    pass


@pytest.mark.in_nursery("on_torch")
class TestKerasOnPyTorch(KerasContract):
    pass


@needs_jax
@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.in_nursery("on_jax")
class TestKerasOnJax(KerasContract):
    pass
