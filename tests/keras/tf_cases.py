"""Ways of training that only the TensorFlow backend has."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.keras.cases import BATCH, SAMPLES, Augmented, arrays, network


def pipeline() -> tf.data.Dataset:
    """Shuffles, draws for each sample, keeps what was read, and reads ahead."""
    x, y = arrays()
    noisy = lambda a, b: (a + tf.random.uniform([6]) * 0.1, b)  # noqa: E731
    data = tf.data.Dataset.from_tensor_slices((x, y)).cache()
    return data.shuffle(20).map(noisy).batch(BATCH).prefetch(2)


def shuffled_twice() -> tf.data.Dataset:
    return pipeline().shuffle(3)


ORDER = random.Random(3)  # as a notebook has one for all its cells


def drawing() -> Any:
    """Yields samples in an order of its own, with noise from NumPy's global stream."""
    x, y = arrays()
    order = list(range(SAMPLES))
    ORDER.shuffle(order)
    for place in order:
        yield x[place] + np.random.normal(size=6).astype("float32") * 0.1, y[place]


def of_a_generator() -> tf.data.Dataset:
    signature = (tf.TensorSpec((6,)), tf.TensorSpec((), tf.int64))
    data = tf.data.Dataset.from_generator(drawing, output_signature=signature)
    return data.shuffle(10).batch(BATCH).prefetch(2)


def of_unknown_length() -> tf.data.Dataset:
    return pipeline().filter(lambda x, y: True)


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


class Encoding(keras.layers.Layer):
    """Draws a code from the distribution that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, given: Any) -> Any:
        mean, spread = given
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
        return mean + keras.ops.exp(0.5 * spread) * noise


class TinyVae(keras.Model):
    """An encoder and a decoder, trained by a step that calls them, and not the model."""

    def __init__(self) -> None:
        super().__init__()
        seen = keras.Input((6,))
        hidden = keras.layers.Dense(8, activation="relu")(seen)
        mean, spread = keras.layers.Dense(2)(hidden), keras.layers.Dense(2)(hidden)
        self.encoder = keras.Model(seen, [mean, spread, Encoding()([mean, spread])])
        self.decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
        self.tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.tracker]

    def train_step(self, seen: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            mean, spread, code = self.encoder(seen)
            loss = tf.reduce_mean((seen - self.decoder(code)) ** 2)
            loss -= 0.1 * tf.reduce_mean(1 + spread - mean**2 - tf.exp(spread))
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


class TinyDiffusion(keras.Model):
    """Normalizes, adds noise from no seed of its own, and keeps an average of its network."""

    def __init__(self) -> None:
        super().__init__()
        self.normalizer = keras.layers.Normalization()
        self.normalizer.adapt(arrays()[0])
        self.network = keras.Sequential([keras.Input((7,)), keras.layers.Dense(6)])
        self.average = keras.models.clone_model(self.network)
        self.tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.tracker]

    def error(self, clean: tf.Tensor, network: keras.Model, *, training: bool) -> tf.Tensor:
        clean = self.normalizer(clean)
        noise = keras.random.normal(tf.shape(clean))
        share = keras.random.uniform((tf.shape(clean)[0], 1))
        given = tf.concat([share * clean + (1 - share) * noise, share], 1)
        return self.loss(noise, network(given, training=training))

    def train_step(self, clean: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = self.error(clean, self.network, training=True)
        weights = self.network.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.tracker.update_state(loss)
        for weight, average in zip(self.network.weights, self.average.weights, strict=True):
            average.assign(0.9 * average + 0.1 * weight)
        return {"loss": self.tracker.result()}

    def test_step(self, clean: tf.Tensor) -> dict[str, tf.Tensor]:
        self.tracker.update_state(self.error(clean, self.average, training=False))
        return {"loss": self.tracker.result()}


class Scaling(keras.Model):
    """Makes batches of what it is given before Keras' fit takes them, as tasks of KerasHub do."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.dense(x)

    def prepared(self, x: Any, y: Any, batch_size: int | None) -> tf.data.Dataset:
        if not isinstance(x, tf.data.Dataset):
            x = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size or 32)
        words = lambda a, b: (tf.strings.to_number(tf.strings.split(a).to_tensor()), b)  # noqa: E731
        return x.map(words).map(lambda a, b: (tf.ensure_shape(a, [None, 6]), b)).prefetch(2)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        validation_data: Any = None,
        **options: Any,
    ) -> Any:
        return self.fit_prepared(x, y, batch_size, validation_data, **options)

    def fit_prepared(
        self, x: Any, y: Any, batch_size: int | None, validation_data: Any, **options: Any
    ) -> Any:
        x = self.prepared(x, y, batch_size)
        if validation_data is not None:
            validation_data = self.prepared(*validation_data, batch_size)
        return super().fit(x, validation_data=validation_data, **options)


def texts() -> tuple[list[str], list[int]]:
    x, y = arrays()
    return [" ".join(map(str, row)) for row in x], y.tolist()


def unbuilt(model_class: type, **compiled: Any) -> keras.Model:
    keras.utils.set_random_seed(11)
    model = model_class()
    model.compile("adam", **compiled)
    return model


def from_text() -> keras.Model:
    return unbuilt(Scaling, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))


class Showing(keras.callbacks.Callback):
    """Reads a batch of what is trained on, as callbacks that show predictions do."""

    def __init__(self, data: Any, *, hooks: tuple[str, ...]) -> None:
        super().__init__()
        self.data = data
        for hook in hooks:
            setattr(self, hook, self.show)

    def show(self, *_: Any, **__: Any) -> None:
        for _x, _y in self.data.take(1):
            pass


def shown(*hooks: str) -> dict[str, Any]:
    data = seeded(pipeline)
    return {"model": network(), "data": data, "callbacks": [Showing(data, hooks=hooks)]}


def shuffled(*, copies: int | None = 1, keeps: bool = False) -> tf.data.Dataset:
    """Shuffled anew by each pass; where some are filtered, nothing says how many are left."""
    data = tf.data.Dataset.from_tensor_slices(arrays())
    if keeps:
        data = data.filter(lambda _, y: y >= 0)
    data = data.shuffle(SAMPLES)
    return (data if copies == 1 else data.repeat(copies)).batch(BATCH)


class Centered(keras.layers.Layer):
    """Takes away a moving mean, which each replica has of its own part of the batches."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, 0))
        return x - self.mean


class OwnLayersAndStep(keras.Model):
    """Built by its first batch, and trained by the step that Keras' guides write."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.centered, self.dropout = Centered(), keras.layers.Dropout(0.2)
        self.head = keras.layers.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        hidden = self.centered(self.hidden(x), training=training)
        return self.head(self.dropout(hidden, training=training))

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            given = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=given)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, given)
        return {metric.name: metric.result() for metric in self.metrics}


class Relative(keras.losses.Loss):
    """Weighs by a mean of its own that each replica moves by its part of the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = keras.Variable(1.0, trainable=False)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        loss = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(loss))
        return loss / (1 + self.mean)


def with_a_loss_of_its_own() -> dict[str, Any]:
    """Two replicas, and in each a loss and a function with variables of its own."""
    with two_replicas().scope():
        given = Relative()
        seen = keras.Variable(0.0, trainable=False)

        def loss(y_true: Any, y_pred: Any) -> Any:
            seen.assign(0.5 * seen + keras.ops.mean(y_pred))
            return given(y_true, y_pred) * (1 + 0.1 * keras.ops.tanh(seen))

        model = network(loss=loss)
    return {"model": model, "data": arrays()}


@functools.cache
def two_replicas() -> tf.distribute.Strategy:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def mirrored(data: Callable[[], Any] = arrays) -> dict[str, Any]:
    """Two replicas, each with statistics and counts of its own part of every batch."""
    with two_replicas().scope():
        mean = keras.metrics.MeanMetricWrapper(lambda _, y: keras.ops.mean(y, -1), name="mean")
        model = network(norm=True, metrics=["accuracy", mean])
    x, y = arrays()
    return {"model": model, "data": data(), "validation_data": (x[:9], y[:9])}


def own_layers_and_step() -> dict[str, Any]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with two_replicas().scope():
        model = unbuilt(OwnLayersAndStep, loss=loss, metrics=["accuracy"])
    x, y = arrays()
    return {"model": model, "data": (x, y), "validation_data": (x[:9], y[:9])}


TENSORFLOW_CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "two_replicas": mirrored,
    "two_replicas_of_a_pipeline": lambda: mirrored(lambda: seeded(pipeline)),
    "two_replicas_of_a_pipeline_without_an_end": lambda: {
        **mirrored(lambda: tf.data.Dataset.from_tensor_slices(arrays()).batch(8).repeat()),
        "steps_per_epoch": 4,
    },
    "two_replicas_of_a_pydataset": lambda: mirrored(Augmented),
    "own_layers_and_step_of_two_replicas": own_layers_and_step,
    "loss_of_two_replicas_with_states": with_a_loss_of_its_own,
    "tfdata_shuffled_augmented_cached": lambda: {"model": network(), "data": seeded(pipeline)},
    "tfdata_shuffled_and_validated": lambda: {
        "model": network(),
        "data": seeded(pipeline),
        "validation_data": seeded(pipeline),
    },
    "tfdata_that_keeps_its_draws": lambda: {"model": network(), "data": seeded(kept_draws)},
    "tfdata_made_for_each_epoch": lambda: {"model": network(), "data": pipeline},
    "tfdata_without_an_end": lambda: {
        "model": network(),
        "data": seeded(lambda: pipeline().repeat()),
        "steps_per_epoch": 7,
    },
    "tfdata_shuffled_without_an_end": lambda: {
        "model": network(),
        "data": seeded(lambda: shuffled(copies=None)),
        "steps_per_epoch": 6,
    },
    "tfdata_of_which_an_epoch_takes_a_part": lambda: {
        "model": network(),
        "data": seeded(lambda: shuffled(copies=3)),
        "steps_per_epoch": 5,
    },
    "tfdata_of_unknown_length_in_parts": lambda: {
        "model": network(),
        "data": seeded(lambda: shuffled(keeps=True)),
        "steps_per_epoch": 3,
    },
    "tfdata_shuffled_twice": lambda: {"model": network(), "data": seeded(shuffled_twice)},
    "tfdata_of_a_generator_that_draws": lambda: {
        "model": network(),
        "data": seeded(of_a_generator),
        "validation_data": seeded(of_a_generator),
    },
    "tfdata_shown_after_each_epoch": lambda: shown("on_epoch_begin", "on_epoch_end"),
    "tfdata_shown_after_each_step": lambda: shown("on_train_batch_end"),
    "class_weights_of_a_pipeline": lambda: {
        "model": network(),
        "data": seeded(pipeline),
        "class_weight": {0: 0.5, 1: 1.0, 2: 3.0},
    },
    "steps_of_a_pipeline_of_unknown_length": lambda: {
        "model": network(),
        "data": seeded(of_unknown_length),
        "steps_per_epoch": 4,
    },
    "four_steps_per_execution_of_unknown_length": lambda: {
        "model": network(steps_per_execution=4),
        "data": seeded(of_unknown_length),
    },
    "eight_steps_per_execution": lambda: {
        "model": network(steps_per_execution=8),
        "data": arrays(),
        "batch_size": 2,
    },
    "gan_with_its_own_step": gan,
    "vae_with_its_own_step": lambda: {"model": unbuilt(TinyVae), "data": arrays()[0]},
    "diffusion_with_its_own_steps": lambda: {
        "model": unbuilt(TinyDiffusion, loss=keras.losses.mean_absolute_error),
        "data": seeded(lambda: pipeline().map(lambda x, y: x)),
        "validation_data": arrays()[0],
    },
    "model_that_prepares_text_itself": lambda: {
        "model": from_text(),
        "data": texts(),
        "validation_data": texts(),
    },
}
