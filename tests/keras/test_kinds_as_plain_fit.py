"""An uninterrupted fit of a model of any kind has the bits of Keras' own fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_keras
from tests.keras.plain_fit import SAMPLES, Case, arrays, bits_of, check_as_plain_fit, rising

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


def stacked(*middle: Any, outputs: int = 3, **compiled: Any) -> Any:
    """A model over 6 features with layers of many states, compiled for three kinds."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras.Sequential([keras.Input((6,)), *middle, keras.layers.Dense(outputs)])
    model.compile(**{"optimizer": "adam", "loss": loss, "metrics": ["accuracy"], **compiled})
    return model


def with_draws_and_norm(**compiled: Any) -> Any:
    from keras import layers

    return stacked(
        layers.GaussianNoise(0.1),
        layers.Dense(8, kernel_regularizer="l2", kernel_constraint="max_norm"),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dropout(0.3),
        layers.AlphaDropout(0.1, seed=4),
        **compiled,
    )


def optimized(name: str, **given: Any) -> Callable[[], Case]:
    def make() -> Case:
        import keras

        optimizer = getattr(keras.optimizers, name)(0.01, **given)
        return {"model": with_draws_and_norm(optimizer=optimizer), "data": arrays()}

    return make


def scaled_losses() -> Case:
    import keras

    inner = keras.optimizers.AdamW(0.01, gradient_accumulation_steps=4, clipnorm=0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=3)
    return {"model": with_draws_and_norm(optimizer=optimizer), "data": arrays()}


def averaged() -> Case:
    import keras

    rate = keras.optimizers.schedules.CosineDecay(0.1, 10, warmup_target=0.2, warmup_steps=3)
    optimizer = keras.optimizers.Nadam(rate, use_ema=True, ema_momentum=0.9)
    return {"model": with_draws_and_norm(optimizer=optimizer), "data": arrays()}


def with_lora() -> Case:
    import keras
    from keras import layers

    model = stacked(layers.Dense(8, name="adapted"), layers.LayerNormalization())
    model.get_layer("adapted").enable_lora(2)
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), model.loss)
    return {"model": model, "data": arrays()}


def in_mixed_precision() -> Case:
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return {"model": with_draws_and_norm(), "data": arrays()}
    finally:
        keras.mixed_precision.set_global_policy("float32")


def measured() -> Case:
    import keras

    class Share(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="share")
            self.seen = self.add_weight(name="seen", initializer="zeros")
            self.right = self.add_weight(name="right", initializer="zeros")

        def update_state(self, true: Any, given: Any, sample_weight: Any = None) -> None:
            self.seen.assign_add(1.0)
            self.right.assign_add(keras.ops.mean(keras.ops.cast(given, "float32") ** 2))

        def result(self) -> Any:
            return self.right / self.seen

    model = with_draws_and_norm(
        loss="binary_crossentropy",
        metrics=[keras.metrics.AUC(from_logits=True), keras.metrics.F1Score("macro"), Share()],
        weighted_metrics=["mae"],
        outputs=3,
    )
    x, y = arrays()
    data = x, np.eye(3, dtype="float32")[y], rising()
    return {"model": model, "data": data, "validation_data": data}


def of_several_parts() -> Case:
    from tests.keras.cases import two_of_each

    case = two_of_each()
    kept = {"kind": rising(), "size": rising(down=True)}
    return {**case, "data": (*case["data"], kept), "validation_split": 0.25}


def own(name: str) -> Callable[[], Case]:
    def make() -> Case:
        from tests.keras.tf_cases import TENSORFLOW_CASES

        return TENSORFLOW_CASES[name]()

    return make


def diffusing() -> Case:
    import keras

    from tests.keras.tf_cases import TinyDiffusion, unbuilt

    model = unbuilt(TinyDiffusion, loss=keras.losses.mean_absolute_error)
    return {"model": model, "data": arrays()[0], "validation_data": arrays()[0]}


def subclassed() -> Case:
    """Built by its first batch, with a loss tracker and a loss of its own."""
    import keras

    class Classifier(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = keras.layers.Dense(8, activation="relu")
            self.norm = keras.layers.BatchNormalization()
            self.dropout = keras.layers.Dropout(0.3)
            self.head = keras.layers.Dense(3)
            self.tracker = keras.metrics.Mean(name="own")

        def call(self, x: Any, training: Any = False) -> Any:
            hidden = self.dropout(self.norm(self.hidden(x), training=training), training=training)
            self.add_loss(0.01 * keras.ops.mean(hidden**2))
            return self.head(hidden)

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *more: Any, **named: Any) -> Any:
            loss = super().compute_loss(x, y, y_pred, *more, **named)
            self.tracker.update_state(loss)
            return loss

    model = Classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return {"model": model, "data": arrays(), "validation_data": arrays()}


def training_its_parts() -> Case:
    """A step that never calls the model, which has a call for those who use it afterwards."""
    import keras
    import tensorflow as tf

    class Encoding(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            inner = [keras.layers.Dense(4, activation="relu"), keras.layers.BatchNormalization()]
            self.encoder = keras.Sequential(inner)
            self.decoder = keras.Sequential([keras.layers.Dense(6)])

        def call(self, x: Any) -> Any:
            return self.decoder(self.encoder(x))

        def train_step(self, data: Any) -> Any:
            with tf.GradientTape() as tape:
                encoded = self.encoder(data[0], training=True)
                loss = tf.reduce_mean((self.decoder(encoded, training=True) - data[0]) ** 2)
            weights = self.trainable_weights
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return {"loss": loss}

    model = Encoding()
    model.compile("adam")
    return {"model": model, "data": arrays()}


def recurrent() -> Case:
    import keras
    from keras import layers

    steps = layers.LSTM(5, dropout=0.2, recurrent_dropout=0.2, return_sequences=True)
    attended = layers.GRU(4, stateful=True)
    inner = [keras.Input(batch_shape=(4, 3, 2)), layers.Bidirectional(steps), attended]
    model = keras.Sequential([*inner, layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    x, y = arrays()
    return {"model": model, "data": (x[:24].reshape(24, 3, 2), y[:24]), "batch_size": 4}


def attending() -> Case:
    import keras
    from keras import layers

    tokens = np.random.default_rng(2).integers(0, 9, (SAMPLES, 5))
    seen = keras.Input((5,), dtype="int32")
    known = layers.Embedding(9, 4, mask_zero=True)(seen)
    mixed = layers.MultiHeadAttention(2, 2, dropout=0.2)(known, known)
    pooled = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(mixed + known))
    model = keras.Model(seen, layers.Dense(3)(pooled))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return {"model": model, "data": (tokens, arrays()[1])}


def of_images() -> Case:
    import keras
    from keras import layers

    x = np.random.default_rng(3).normal(size=(SAMPLES, 8, 8, 3)).astype("float32")
    augmented = [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomContrast(0.2)]
    inner = [layers.SpectralNormalization(layers.Conv2D(4, 3)), layers.GroupNormalization(2)]
    pooled = [layers.SpatialDropout2D(0.2), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *augmented, *inner, *pooled])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return {"model": model, "data": (x, arrays()[1])}


def drawing_without_a_seed() -> Case:
    import keras
    from keras import layers

    def noisy(x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x))

    return {
        "model": stacked(layers.Lambda(noisy, output_shape=(6,)), layers.Dropout(0.2)),
        "data": arrays(),
    }


def piped(change: Callable[[Any], Any], **more: Any) -> Callable[[], Case]:
    def make() -> Case:
        import tensorflow as tf

        data = change(tf.data.Dataset.from_tensor_slices(arrays()))
        return {"model": with_draws_and_norm(), "data": data, **more}

    return make


def once_shuffled(data: Any) -> Any:
    return data.shuffle(SAMPLES, seed=3, reshuffle_each_iteration=False).batch(8).prefetch(2)


def weighted_pipeline() -> Case:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((*arrays(), rising())).filter(lambda x, y, w: w > 0)
    data = data.batch(8).apply(tf.data.experimental.assert_cardinality(6))
    return {"model": with_draws_and_norm(), "data": data, "validation_data": data}


KINDS: dict[str, Callable[[], Case]] = {
    "draws, norm, a last batch of one sample": lambda: {
        "model": with_draws_and_norm(),
        "data": tuple(part[:33] for part in arrays()),
    },
    "averages of weights on a schedule": averaged,
    "averages written over the weights": optimized(
        "SGD", momentum=0.9, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=4
    ),
    "gathered gradients of a scaled loss": scaled_losses,
    "LoRA": with_lora,
    "mixed_float16": in_mixed_precision,
    "metrics with states": measured,
    "several inputs, outputs and weights": of_several_parts,
    "a GAN": own("gan_with_its_own_step"),
    "two replicas": own("two_replicas"),
    "two replicas of a pipeline without an end": own("two_replicas_of_a_pipeline_without_an_end"),
    "own layers and step of two replicas": own("own_layers_and_step_of_two_replicas"),
    "a VAE": own("vae_with_its_own_step"),
    "a diffusion model": diffusing,
    "a model that prepares text": own("model_that_prepares_text_itself"),
    "a subclass": subclassed,
    "a step that trains its parts": training_its_parts,
    "recurrent states": recurrent,
    "attention and masks": attending,
    "augmentation": of_images,
    "draws without a seed": drawing_without_a_seed,
    "a pipeline shuffled once": piped(once_shuffled, class_weight={0: 0.5, 1: 1.0, 2: 3.0}),
    "a pipeline without an end": piped(lambda data: data.batch(8).repeat(), steps_per_epoch=4),
    "a pipeline with weights and a length that is said": weighted_pipeline,
    # What comes of it after a fit hangs on how far TensorFlow has read ahead.
    "a shuffled pipeline without an end": piped(
        lambda data: data.shuffle(SAMPLES).batch(8).repeat(), steps_per_epoch=4
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_an_uninterrupted_fit_has_the_bits_of_keras_own(name, tmp_path):
    check_as_plain_fit(KINDS[name], tmp_path, epochs=2)


def frozen() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    model = with_draws_and_norm()
    model.layers[1].trainable = False
    model.compile("adam", model.loss, metrics=["accuracy"])
    return model


def unfrozen(model: Any) -> Any:
    import keras

    model.layers[1].trainable = True
    model.compile(keras.optimizers.RMSprop(0.001), model.loss, metrics=["accuracy"])
    return model


def test_two_phases_have_the_bits_of_two_calls_of_keras_own(tmp_path):
    given = {"batch_size": 8, "shuffle": False, "validation_data": arrays()}
    plain, ours = frozen(), frozen()
    plain.fit(*arrays(), epochs=1, verbose=0, **given)
    expected = unfrozen(plain).fit(*arrays(), initial_epoch=1, epochs=2, verbose=0, **given)
    colabkit.fit(ours, arrays(), tmp_path, epochs=1, progress=False, **given)
    history = colabkit.fit(unfrozen(ours), arrays(), tmp_path, epochs=2, progress=False, **given)
    assert bits_of(ours) == bits_of(plain)
    for name, values in expected.history.items():
        assert history.history[name][-1:] == values


def test_an_epoch_counted_by_a_backup_of_keras_own_counts_no_epoch_of_ours(tmp_path):
    model = with_draws_and_norm()
    model._initial_epoch = 2  # as BackupAndRestore leaves it behind for good
    history = colabkit.fit(model, arrays(), tmp_path, epochs=3, batch_size=8, progress=False)
    assert [row["step"] for row in history.epochs] == [6, 12, 18]


def numbers(count: int = 12) -> Any:
    import tensorflow as tf

    x = np.arange(count, dtype="float32")[:, None]
    return tf.data.Dataset.from_tensor_slices((x, (x[:, 0] > 3).astype("float32")))


def drawn_anew(count: int = 12) -> Any:
    return numbers(count).shuffle(12).batch(4)


def drawn_twice(count: int = 12) -> Any:
    return numbers(count).shuffle(5).batch(2).shuffle(3)


SHUFFLED: dict[str, Callable[[], Case]] = {
    "anew": lambda: {"data": drawn_anew(), "validation_data": drawn_anew(8)},
    "anew, with some of the validation": lambda: {
        "data": drawn_anew(),
        "validation_data": drawn_anew(8),
        "validation_steps": 1,
    },
    "anew, with as many validation steps as batches": lambda: {
        "data": drawn_anew(),
        "validation_data": drawn_anew(8),
        "validation_steps": 2,
        "class_weight": {0: 1.0, 1: 3.0},
    },
    "twice, validated each second epoch": lambda: {
        "data": drawn_twice(),
        "validation_data": drawn_twice(8),
        "validation_freq": 2,
    },
    "in parts of which the last ends a pass": lambda: {"data": drawn_twice(), "steps_per_epoch": 2},
    "in parts that end within a pass": lambda: {"data": drawn_anew(), "steps_per_epoch": 2},
    "without a known length": lambda: {"data": drawn_anew().filter(lambda x, y: True)},
    "joined, and shuffled": lambda: {"data": drawn_anew().concatenate(drawn_anew(8)).shuffle(3)},
    "cached, and shuffled": lambda: {"data": drawn_anew().cache().shuffle(3)},
    "ended early": lambda: {"data": drawn_anew(), "callbacks": [ending()]},
}


def ending() -> Any:
    import keras

    return keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9)


def fit_of_keras_own(model: Any, data: Any, epochs: int, **options: Any) -> None:
    model.fit(data, epochs=epochs, verbose=0, **options)


def fit_by_hand(model: Any, data: Any, epochs: int) -> None:
    """As ``model.fit``, but reads each pass to its end instead of to the last batch it expects."""
    for _ in range(epochs):
        for x, y in data:
            model.train_on_batch(x, y)
        iter(data)  # which fit makes behind each pass, and reads nothing of


def check_two_fits(
    make: Callable[[], Case],
    folder: Any,
    *,
    builds: bool = False,
    plain: Callable[..., None] = fit_of_keras_own,
) -> None:
    """Fits twice, both ways; weights, and what the data gives afterwards, must be the same."""
    import keras

    given: list[tuple[list[bytes], list[bytes]]] = []
    for fit in (None, colabkit.fit):
        keras.utils.clear_session()
        keras.utils.set_random_seed(3)
        model, case = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), make()
        model.compile("sgd", "mse", metrics=["mae"])
        kept: list[Any] = []
        for number in range(2):
            if builds:
                model.compile("sgd", "mse", metrics=["mae"])
            options = {key: value for key, value in case.items() if key != "data"}
            if fit is None:
                plain(model, case["data"], epochs=3, **options)
            else:
                where = folder / str(number)
                fit(model, case["data"], where, epochs=3, progress=False, **options)
            kept += [weight.tobytes() for weight in model.get_weights()]
        read = case["data"], case.get("validation_data", [])
        given.append((kept, [x.numpy().tobytes() for data in read for x, _ in data]))
    assert given[0] == given[1]


@pytest.mark.parametrize("name", SHUFFLED)
def test_fits_draw_the_orders_that_those_of_keras_own_draw(name, tmp_path):
    check_two_fits(SHUFFLED[name], tmp_path)


def test_fits_on_a_repeated_pipeline_draw_the_orders_of_passes_read_to_their_ends(tmp_path):
    # Keras' own fit leaves it to a race here: TensorFlow makes a repetition more, and so draws
    # an order more, once it meets the end, which only a thread that reads ahead may reach.
    check_two_fits(lambda: {"data": drawn_anew().repeat(2)}, tmp_path, plain=fit_by_hand)


@pytest.mark.parametrize("builds", [False, True])
@pytest.mark.in_nursery("on_torch")
def test_fits_on_pytorch_draw_the_orders_that_those_of_keras_own_draw(builds, tmp_path):
    check_two_fits(SHUFFLED["anew"], tmp_path, builds=builds)
