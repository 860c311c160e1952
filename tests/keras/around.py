"""A loop in which much stands around its passes, with ``Run`` and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

STEPS, EVALUATED, EPOCHS = 4, 2, 3
layers = keras.layers
crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class PlainLoop:
    """What the loop is without colabkit: the judge."""

    def epochs(self, count: int) -> Iterable[int]:
        return range(count)

    def batches(self, data: Iterable[Any]) -> Iterator[Any]:
        return iter(data)

    def state(self, **values: Any) -> Any:
        return SimpleNamespace(**values)

    def log(self, **values: Any) -> None:
        pass


class Seen:
    """What evaluations have found, in an object with a state."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"])


def batches(every: int) -> tf.data.Dataset:
    x = np.random.default_rng(5).normal(size=(8 * STEPS, 6)).astype("float32")
    y = np.random.default_rng(6).integers(0, 3, len(x))
    return tf.data.Dataset.from_tensor_slices((x[::every], y[::every])).batch(8)


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization()]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)])


def around(run_of: Callable[..., Any]) -> dict[str, Any]:
    """Trains, and returns all that it ends with, bit for bit."""
    model, target, optimizer = network(), network(), keras.optimizers.Adam(1e-2)
    average = [tf.Variable(weight) for weight in model.get_weights()]
    accuracy, best, seen = keras.metrics.SparseCategoricalAccuracy(), tf.Variable(9.0), Seen()
    summed = keras.metrics.Mean()

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = crossentropy(y, logits)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        accuracy.update_state(y, logits)
        return loss

    run = run_of(
        model=model,
        target=target,
        optimizer=optimizer,
        average=average,
        metrics=[accuracy, summed],
        best=best,
        seen=seen,
    )
    kept = run.state(rows=[])
    for epoch in run.epochs(EPOCHS):
        optimizer.learning_rate.assign(optimizer.learning_rate * 0.5)
        pairs = zip(target.get_weights(), model.get_weights(), strict=True)
        target.set_weights([(one + other) / 2 for one, other in pairs])
        for x, y in run.batches(batches(1)):
            run.log(loss=step(x, y))
            for own, weight in zip(average, model.get_weights(), strict=True):
                own.assign(0.9 * own + 0.1 * weight)
        trained = float(accuracy.result())
        accuracy.reset_state()
        optimizer.learning_rate = float(optimizer.learning_rate) * 0.9
        own_weights, losses = model.get_weights(), []
        model.set_weights([each.numpy() for each in average])
        for x, y in run.batches(batches(STEPS // EVALUATED)):
            loss = crossentropy(y, model(x, training=False) + target(x, training=False))
            losses.append(float(loss))
            seen.losses.append(losses[-1])
            summed.update_state(loss)
            accuracy.update_state(y, model(x))
            run.log(val_loss=loss)
        model.set_weights(own_weights)
        best.assign(tf.minimum(best, sum(losses)))
        found = [each.result() for each in (accuracy, summed)]
        kept.rows.append([epoch, trained, *map(float, (*found, *losses, best.numpy()))])
        accuracy.reset_state()
        summed.reset_state()
    variables = [*model.weights, *target.weights, *optimizer.variables, *average, best]
    return {
        "bits": [np.asarray(each.numpy()).tobytes().hex() for each in variables],
        "rows": kept.rows,
        "seen": seen.losses,
    }
