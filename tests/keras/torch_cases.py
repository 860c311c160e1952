"""Ways of training that only the PyTorch backend has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch

from tests.keras.cases import arrays
from tests.keras.tf_cases import TENSORFLOW_CASES


class Denoiser(keras.Model):
    """A step of its own in PyTorch's words, with a seed generator and a loss metric."""

    def __init__(self) -> None:
        super().__init__()
        hidden = keras.layers.Dense(8, activation="relu")
        self.network = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(6)])
        self.seeds = keras.random.SeedGenerator(3)
        self.tracker = keras.metrics.Mean(name="loss")
        self.built = True

    def call(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.tracker]

    def train_step(self, clean: torch.Tensor) -> dict[str, torch.Tensor]:
        noisy = clean + 0.1 * keras.random.normal(clean.shape, seed=self.seeds)
        noisy = noisy + 0.1 * torch.randn_like(clean)
        self.zero_grad()
        loss = ((self(noisy) - clean) ** 2).mean()
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([w.value.grad for w in weights], weights)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def denoiser() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    model = Denoiser()
    model.compile("adam")
    return {"model": model, "data": arrays()[0]}


class Doubling(keras.layers.Layer):
    def call(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Subclassed(keras.Model):
    """Built by its first batch, of layers of Keras' and of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [Doubling(), keras.layers.Dropout(0.2), keras.layers.Dense(3)]

    def call(self, x: torch.Tensor, training: bool = False) -> torch.Tensor:
        double, drop, dense = self.inner
        return dense(drop(double(x), training=training))


def subclassed() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    model = Subclassed()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return {"model": model, "data": arrays()}


TORCH_CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "own_step": denoiser,
    "own_layers_in_a_subclass": subclassed,
    **{name: case for name, case in TENSORFLOW_CASES.items() if name.startswith("tfdata_")},
}
