"""A loop in which much stands around its passes, with ``Run`` and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np

import colabkit

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


def dying_run(folder: Any, kill_at: int | None, kill: Callable[[], None]) -> Callable[..., Any]:
    """Returns what makes a Run that ends the process behind a step, before that is counted."""

    class Dying(colabkit.Run):
        def batches(self, data: Any, **options: Any) -> Any:
            for batch in super().batches(data, **options):
                yield batch
                if self.step + 1 == kill_at:
                    self.flush()
                    kill()

    return lambda **objects: Dying(folder, progress=False, save_every=1, **objects)


class Seen:
    """What evaluations have found, in an object with a state."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"])


def batches(every: int) -> Any:
    x = np.random.default_rng(5).normal(size=(8 * STEPS, 6)).astype("float32")[::every]
    y = np.random.default_rng(6).integers(0, 3, 8 * STEPS)[::every]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    return [(x[at : at + 8], y[at : at + 8]) for at in range(0, len(x), 8)]


def network() -> keras.Model:
    keras.utils.set_random_seed(3)
    hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization()]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)])


def variable_of(value: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.Variable(value)
    return keras.Variable(value, trainable=False)


def step_of(model: Any, optimizer: Any, accuracy: Any) -> Callable[[Any, Any], Any]:
    return {"tensorflow": on_tensorflow, "torch": on_torch, "jax": on_jax}[keras.backend.backend()](
        model, optimizer, accuracy
    )


def on_tensorflow(model: Any, optimizer: Any, accuracy: Any) -> Callable[[Any, Any], Any]:
    import tensorflow as tf

    @tf.function
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = crossentropy(y, logits)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        accuracy.update_state(y, logits)
        return loss

    return step


def on_torch(model: Any, optimizer: Any, accuracy: Any) -> Callable[[Any, Any], Any]:
    import torch

    def step(x: Any, y: Any) -> Any:
        model.zero_grad()
        logits = model(x, training=True)
        loss = crossentropy(y, logits)
        loss.backward()
        weights = model.trainable_weights
        with torch.no_grad():
            optimizer.apply([each.value.grad for each in weights], weights)
        accuracy.update_state(y, logits)
        return loss.detach()

    return step


def on_jax(model: Any, optimizer: Any, accuracy: Any) -> Callable[[Any, Any], Any]:
    import jax

    def loss_of(trained: Any, rest: Any, x: Any, y: Any) -> Any:
        logits, rest = model.stateless_call(trained, rest, x, training=True)
        return crossentropy(y, logits), (logits, rest)

    slopes_of = jax.jit(jax.value_and_grad(loss_of, has_aux=True))

    def step(x: Any, y: Any) -> Any:
        trained = [each.value for each in model.trainable_variables]
        rest = [each.value for each in model.non_trainable_variables]
        (loss, (logits, rest)), slopes = slopes_of(trained, rest, x, y)
        for variable, value in zip(model.non_trainable_variables, rest, strict=True):
            variable.assign(value)
        optimizer.apply(slopes, model.trainable_variables)
        accuracy.update_state(y, logits)
        return loss

    return step


def around(run_of: Callable[..., Any]) -> dict[str, Any]:
    """Trains, and returns all that it ends with, bit for bit."""
    model, target, optimizer = network(), network(), keras.optimizers.Adam(1e-2)
    average = [variable_of(weight) for weight in model.get_weights()]
    accuracy, best, seen = keras.metrics.SparseCategoricalAccuracy(), variable_of(9.0), Seen()
    summed = keras.metrics.Mean()
    step = step_of(model, optimizer, accuracy)
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
                own.assign(0.9 * keras.ops.convert_to_numpy(own) + 0.1 * weight)
        trained = float(accuracy.result())
        accuracy.reset_state()
        optimizer.learning_rate = float(optimizer.learning_rate) * 0.9
        own_weights, losses = model.get_weights(), []
        model.set_weights([keras.ops.convert_to_numpy(each) for each in average])
        for x, y in run.batches(batches(STEPS // EVALUATED)):
            loss = crossentropy(y, model(x, training=False) + target(x, training=False))
            losses.append(float(loss))
            seen.losses.append(losses[-1])
            summed.update_state(loss)
            accuracy.update_state(y, model(x))
            run.log(val_loss=loss)
        model.set_weights(own_weights)
        best.assign(keras.ops.minimum(best, sum(losses)))
        found = [each.result() for each in (accuracy, summed)]
        kept.rows.append(
            [epoch, trained, *map(float, (*found, *losses, keras.ops.convert_to_numpy(best)))]
        )
        accuracy.reset_state()
        summed.reset_state()
    variables = [*model.weights, *target.weights, *optimizer.variables, *average, best]
    return {
        "bits": [
            np.asarray(keras.ops.convert_to_numpy(each)).tobytes().hex() for each in variables
        ],
        "rows": kept.rows,
        "seen": seen.losses,
    }
