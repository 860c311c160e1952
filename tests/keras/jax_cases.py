"""Ways of training that only the JAX backend has, or has its own code for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import keras

from tests.keras.cases import arrays, network


class Stepping(keras.Model):
    """A stateless step of its own in JAX's words, with a seed generator and a metric."""

    def __init__(self) -> None:
        super().__init__()
        self.network = keras.Sequential(
            [keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(6)]
        )
        self.seeds = keras.random.SeedGenerator(3)
        self.tracker = keras.metrics.Mean(name="loss")

    def call(self, x: Any) -> Any:
        return self.network(x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.seeds))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.tracker]

    def train_step(self, state: Any, data: Any) -> Any:
        trainable, others, optimizer, metrics = state

        def loss_of(trainable: Any) -> Any:
            given, updated = self.stateless_call(trainable, others, data)
            return ((given - data) ** 2).mean(), updated

        (loss, others), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, grads, trainable)
        metrics = self.tracker.stateless_update_state(metrics, loss)
        return {"loss": self.tracker.stateless_result(metrics)}, (
            trainable,
            others,
            optimizer,
            metrics,
        )


def stepping() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    model = Stepping()
    model.compile("adam")
    return {"model": model, "data": arrays()[0]}


class Reading(keras.callbacks.Callback):
    """Reads and changes weights at each batch, whose values the step has taken."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        weight = self.model.trainable_weights[0]
        weight.assign(weight * (1 + 0.001 * float(keras.ops.sum(weight))))


def reading() -> dict[str, Any]:
    return {"model": network(), "data": arrays(), "callbacks": [Reading()]}


def several_at_once() -> dict[str, Any]:
    model = network(steps_per_execution=4)

    def batches() -> Any:
        x, y = arrays()
        for begin in range(0, len(x), 8):
            yield x[begin : begin + 8], y[begin : begin + 8]

    return {"model": model, "data": batches}


def accumulating() -> dict[str, Any]:
    model = network(optimizer=keras.optimizers.Adam(0.01, gradient_accumulation_steps=4))
    x, y = arrays()
    return {"model": model, "data": (x, y), "validation_data": (x[:9], y[:9])}


JAX_CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "own_stateless_step": stepping,
    "callback_that_reads_weights": reading,
    "four_steps_per_execution_of_unknown_length": several_at_once,
    "gradients_accumulated": accumulating,
}
