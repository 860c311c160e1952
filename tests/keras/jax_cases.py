"""Ways of training that only the JAX backend has, or has its own code for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from tests.keras.cases import arrays, network
from tests.keras.tf_cases import TENSORFLOW_CASES


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


class Blurring(keras.layers.Layer):
    """Draws from a seed of no number, and keeps a mean of what it sees and a count of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator()

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, 0))
            self.calls.assign(self.calls + 1)
            x = x + 0.1 * keras.random.normal(keras.ops.shape(x), seed=self.seeds)
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(x)))
        return x - self.mean


class Subclassed(keras.Model):
    """Built by its first batch, of layers of Keras' and of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = [Blurring(), keras.layers.Dropout(0.2), keras.layers.Dense(3)]

    def call(self, x: Any, training: bool = False) -> Any:
        blur, drop, dense = self.inner
        return dense(drop(blur(x, training=training), training=training))


def subclassed() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    model = Subclassed()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    weights = np.linspace(0.1, 2.0, 44).astype("float32")
    return {"model": model, "data": arrays(), "sample_weight": weights, "validation_split": 0.2}


class Encoding(keras.Model):
    """An encoder and a decoder under a step of their own; the model itself is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
        self.decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
        self.seeds = keras.random.SeedGenerator(5)
        self.tracker = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.tracker]

    def train_step(self, state: Any, seen: Any) -> Any:
        trainable, others, optimizer, metrics = state

        def loss_of(trainable: Any) -> Any:
            pairs = [*zip(self.trainable_variables, trainable, strict=True)]
            pairs += zip(self.non_trainable_variables, others, strict=True)
            with keras.StatelessScope(pairs) as scope:
                mean, spread = keras.ops.split(self.encoder(seen), 2, axis=1)
                noise = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
                code = mean + keras.ops.exp(0.5 * spread) * noise
                loss = keras.ops.mean((seen - self.decoder(code)) ** 2)
            updated = [scope.get_current_value(v) for v in self.non_trainable_variables]
            return loss, updated

        (loss, others), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, grads, trainable)
        metrics = self.tracker.stateless_update_state(metrics, loss)
        logs = {"loss": self.tracker.stateless_result(metrics)}
        return logs, (trainable, others, optimizer, metrics)


def encoding() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    model = Encoding()
    model.compile("adam")
    return {"model": model, "data": arrays()[0]}


def adapted() -> dict[str, Any]:
    """Adapters of rank 2 over layers whose own weights are frozen, eight steps at once."""
    model = network(steps_per_execution=8)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
    model.compile("adam", model.loss, metrics=["accuracy"], steps_per_execution=8)
    return {"model": model, "data": arrays(), "batch_size": 2, "class_weight": {0: 0.5, 2: 3.0}}


def recurrent() -> dict[str, Any]:
    """An LSTM that goes on in each batch where it was in the one before, over more than epochs."""
    keras.utils.set_random_seed(11)
    layers = [keras.layers.LSTM(5, stateful=True, recurrent_dropout=0.2), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input(batch_shape=(4, 3, 2)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = arrays()
    return {"model": model, "data": (x[:24].reshape(24, 3, 2), y[:24]), "batch_size": 4}


def dealt_out(*, weights: bool) -> dict[str, Any]:
    """Each batch on four devices of this processor; on two by two with the weights in parts."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    of = keras.distribution
    if weights:
        mesh = of.DeviceMesh((2, 2), ("batch", "model"), of.list_devices("cpu"))
        layout = of.LayoutMap(mesh)
        layout["dense/kernel"] = (None, "model")
        way = of.ModelParallel(layout_map=layout, batch_dim_name="batch")
    else:
        way = of.DataParallel(devices=of.list_devices("cpu"))
    of.set_distribution(way)
    x, y = arrays()
    return {"model": network(norm=True), "data": (x, y), "validation_data": (x[:8], y[:8])}


JAX_CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "own_stateless_step": stepping,
    "callback_that_reads_weights": reading,
    "four_steps_per_execution_of_unknown_length": several_at_once,
    "gradients_accumulated": accumulating,
    "own_layers_in_a_subclass": subclassed,
    "own_step_without_a_call": encoding,
    "adapters_eight_steps_at_once": adapted,
    "stateful_lstm": recurrent,
    "batches_on_four_devices": lambda: dealt_out(weights=False),
    "batches_and_weights_on_four_devices": lambda: dealt_out(weights=True),
    **{name: case for name, case in TENSORFLOW_CASES.items() if name.startswith("tfdata_")},
}
