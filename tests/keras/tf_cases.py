"""Ways of training that only the TensorFlow backend has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tests.keras.cases import BATCH, arrays, network


def pipeline() -> tf.data.Dataset:
    """Shuffles, draws for each sample, keeps what was read, and reads ahead."""
    x, y = arrays()
    noisy = lambda a, b: (a + tf.random.uniform([6]) * 0.1, b)  # noqa: E731
    data = tf.data.Dataset.from_tensor_slices((x, y)).cache()
    return data.shuffle(20).map(noisy).batch(BATCH).prefetch(2)


def kept_draws() -> tf.data.Dataset:
    """A cache after the draws keeps those of the first pass."""
    x, y = arrays()
    noisy = lambda a, b: (a + tf.random.uniform([6]) * 0.1, b)  # noqa: E731
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(20).map(noisy)
    return data.cache().shuffle(10).batch(BATCH)


def seeded(make: Callable[[], Any]) -> Any:
    # What a pipeline draws follows from the seed set before it is built.
    keras.utils.set_random_seed(11)
    return make()


class TinyGan(keras.Model):
    """Two optimizers, two loss metrics and a seed generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        layers = keras.layers
        self.generator = keras.Sequential(
            [keras.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(6)]
        )
        hidden = layers.Dense(8, activation="relu")
        self.discriminator = keras.Sequential(
            [keras.Input((6,)), hidden, layers.Dropout(0.2), layers.Dense(1)]
        )
        self.seeds = keras.random.SeedGenerator(3)
        self.d_loss = keras.metrics.Mean(name="d_loss")
        self.g_loss = keras.metrics.Mean(name="g_loss")
        self.built = True

    def compile(self) -> None:
        super().compile()
        self.d_optimizer = keras.optimizers.Adam(1e-3)
        self.g_optimizer = keras.optimizers.RMSprop(1e-3)
        self.loss_function = keras.losses.BinaryCrossentropy(from_logits=True)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.d_loss, self.g_loss]

    def train_step(self, real: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(real)[0]
        noise = keras.random.normal((count, 4), seed=self.seeds)
        both = tf.concat([self.generator(noise), real], 0)
        labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], 0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_function(labels, self.discriminator(both, training=True))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        noise = keras.random.normal((count, 4), seed=self.seeds)
        with tf.GradientTape() as tape:
            judged = self.discriminator(self.generator(noise, training=True))
            g_loss = self.loss_function(tf.zeros((count, 1)), judged)
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        self.d_loss.update_state(d_loss)
        self.g_loss.update_state(g_loss)
        return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}


def gan() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    model = TinyGan()
    model.compile()
    return {"model": model, "data": arrays()[0]}


TENSORFLOW_CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "tfdata_shuffled_augmented_cached": lambda: {"model": network(), "data": seeded(pipeline)},
    "tfdata_that_keeps_its_draws": lambda: {"model": network(), "data": seeded(kept_draws)},
    "tfdata_made_for_each_epoch": lambda: {"model": network(), "data": pipeline},
    "tfdata_without_an_end": lambda: {
        "model": network(),
        "data": seeded(lambda: pipeline().repeat()),
        "steps_per_epoch": 7,
    },
    "class_weights_of_a_pipeline": lambda: {
        "model": network(),
        "data": seeded(pipeline),
        "class_weight": {0: 0.5, 1: 1.0, 2: 3.0},
    },
    "eight_steps_per_execution": lambda: {
        "model": network(steps_per_execution=8),
        "data": arrays(),
        "batch_size": 2,
    },
    "gan_with_its_own_step": gan,
}
