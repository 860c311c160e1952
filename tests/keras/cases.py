"""One run per way of training Keras that a resume must repeat bit for bit, on any backend."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tests.keras.keeping import Keeping

SAMPLES, EPOCHS, BATCH = 44, 3, 8


def arrays() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).normal(size=(SAMPLES, 6)).astype("float32")
    return x, (x.sum(1) > 0).astype("int64") + (x[:, 0] > 1)


def network(*, norm: bool = False, **compiled: Any) -> keras.Model:
    """Returns the compiled network with its first weights, the same in every session."""
    keras.utils.set_random_seed(11)
    middle = [keras.layers.BatchNormalization()] if norm else []
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(12),
            *middle,
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": "adam", "loss": loss, "metrics": ["accuracy"], **compiled})
    return model


class Augmented(keras.utils.PyDataset):
    """Draws from NumPy's global stream and from a generator of its own; shuffles itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.x, self.y = arrays()
        self.own = np.random.default_rng(7)
        self.order = np.arange(SAMPLES)

    def __len__(self) -> int:
        return -(-SAMPLES // BATCH)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        taken = self.order[index * BATCH : (index + 1) * BATCH]
        noise = np.random.rand(len(taken), 6) * 0.1 + self.own.normal() * 0.1
        return (self.x[taken] + noise).astype("float32"), self.y[taken]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


def generated() -> Any:
    x, y = arrays()
    for first in range(0, SAMPLES, BATCH):
        noise = np.random.rand(6) * 0.1
        yield (x[first : first + BATCH] + noise).astype("float32"), y[first : first + BATCH]


def endless() -> Any:
    while True:
        yield from generated()


def two_of_each() -> dict[str, Any]:
    keras.utils.set_random_seed(11)
    wide, deep = keras.Input((6,), name="wide"), keras.Input((3,), name="deep")
    joined = keras.layers.concatenate([keras.layers.Dense(6)(wide), deep])
    hidden = keras.layers.Dropout(0.2)(keras.layers.Dense(8, activation="relu")(joined))
    outputs = {
        "kind": keras.layers.Dense(3, name="kind")(hidden),
        "size": keras.layers.Dense(1, name="size")(hidden),
    }
    model = keras.Model({"wide": wide, "deep": deep}, outputs)
    model.compile(
        "adam",
        {
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": "mse",
        },
        metrics={"kind": ["accuracy"], "size": ["mae"]},
    )
    x, y = arrays()
    inputs = {"wide": x, "deep": x[:, :3]}
    return {"model": model, "data": (inputs, {"kind": y, "size": x.sum(1, keepdims=True)})}


def decaying() -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9)
    return keras.optimizers.SGD(schedule, momentum=0.9)


def mixed(policy: str) -> dict[str, Any]:
    keras.mixed_precision.set_global_policy(policy)
    try:
        return {"model": network(), "data": arrays()}
    finally:
        keras.mixed_precision.set_global_policy("float32")


def watched() -> dict[str, Any]:
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=0.5, factor=0.5)
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", patience=2, min_delta=0.5, restore_best_weights=True
    )
    return {
        "model": network(),
        "data": arrays(),
        "callbacks": [plateau, stopping],
        "validation_data": arrays(),
        "epochs": 6,
    }


class Drawing(keras.callbacks.Callback):
    """Draws from the global stream between the steps, as a callback that shows samples does."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        np.random.rand(3 + batch % 2)


def eager() -> dict[str, Any]:
    return {"model": network(run_eagerly=True), "data": arrays(), "callbacks": [Drawing()]}


class Resetting(keras.callbacks.Callback):
    """Has metrics say what they measure of each step alone, as plots of single steps need."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()


class Wandering(keras.callbacks.Callback):
    """Draws from a generator of its own, and disturbs the weights by it."""

    def __init__(self) -> None:
        super().__init__()
        self.source = np.random.default_rng(3)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        weight = self.model.trainable_weights[0]
        weight.assign(weight + 0.01 * self.source.random())


class WanderingToo:
    """The same in colabkit's own form, and from Python's generator."""

    def __init__(self, model: keras.Model) -> None:
        self.weight = model.trainable_weights[0]
        self.source = random.Random(4)

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.weight.assign(self.weight + 0.01 * self.source.random())


def wandering() -> dict[str, Any]:
    model = network()
    return {"model": model, "data": arrays(), "callbacks": [Wandering(), WanderingToo(model)]}


class Fading(keras.losses.Loss):
    """Weighs less at each step, by a variable of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.share = keras.Variable(1.0, trainable=False)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        self.share.assign(self.share * 0.9)
        return self.share * keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )


def remembering() -> dict[str, Any]:
    """A stateful recurrent layer, and a loss with a variable."""
    keras.utils.set_random_seed(11)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input(batch_shape=(4, 3, 2)), layers.SimpleRNN(5, stateful=True), layers.Dense(3)]
    )
    model.compile("adam", loss=Fading())
    x, y = arrays()
    return {"model": model, "data": (x[:24].reshape(24, 3, 2), y[:24]), "batch_size": 4}


def balanced() -> dict[str, Any]:
    """Two losses weighed by variables; one draws from a seed of the notebook's, and has another."""
    keras.utils.set_random_seed(11)
    seeds, more_seeds = keras.random.SeedGenerator(4), keras.random.SeedGenerator(5)
    weights = [keras.Variable(1.0), keras.Variable(1.0)]
    annealed = keras.Variable(0.0, trainable=False)

    def noisy(true: Any, given: Any) -> Any:
        given = given + 0.1 * keras.random.normal(keras.ops.shape(given), seed=seeds)
        loss = keras.losses.sparse_categorical_crossentropy(true, given, from_logits=True)
        return loss + annealed * keras.ops.mean(keras.ops.square(given))

    class Balance(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.pace = keras.Variable(0.05, trainable=False)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            annealed.assign(keras.ops.minimum(annealed + self.pace, 1.0))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.pace.assign(self.pace * 0.5)
            weights[1].assign(weights[1] * 0.5)

    seen = keras.Input((6,))
    hidden = keras.layers.Dense(8, activation="relu")(seen)
    moved = keras.layers.Lambda(
        lambda t: t + 0.1 * keras.random.normal(keras.ops.shape(t), seed=more_seeds),
        output_shape=(8,),
    )(hidden)
    kind, size = (
        keras.layers.Dense(3, name="kind")(moved),
        keras.layers.Dense(1, name="size")(moved),
    )
    model = keras.Model(seen, [kind, size])
    model.compile("adam", loss=[noisy, "mse"], loss_weights=weights)
    x, y = arrays()
    return {"model": model, "data": (x, [y, x.sum(1, keepdims=True)]), "callbacks": [Balance()]}


class Scaled(keras.layers.Layer):
    """Multiplies by a plain number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ratio = 0.9
        self.seen: list[float] = []

    def call(self, x: Any) -> Any:
        return x * self.ratio


def scaled() -> dict[str, Any]:
    """Numbers and lists in layers, closures and what a callback keeps of its own objects."""
    keras.utils.set_random_seed(11)
    layer, share, source = Scaled(), [1.0], np.random.default_rng(3)
    rows: dict[int, Any] = {}

    def fading(true: Any, given: Any) -> Any:
        share[0] *= 0.99
        given = given + np.float32(0.01 * source.normal())
        return share[0] * keras.losses.sparse_categorical_crossentropy(
            true, given, from_logits=True
        )

    class Lower(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.table: dict[int, dict[str, Any]] = {}

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            layer.ratio *= 0.8
            layer.seen.append(layer.ratio)
            rows[epoch] = len(rows)
            self.table[epoch] = {"loss": logs["loss"], "by": [math.fsum, np.arange(epoch)]}
            weight = self.model.trainable_weights[0]
            weight.assign(weight * (1 + 0.01 * len(rows) + 0.01 * len(self.table)))

    layers = [keras.layers.Dense(8), layer, keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("adam", fading, run_eagerly=True)
    return {"model": model, "data": arrays(), "callbacks": [Lower()]}


def loaded() -> dict[str, Any]:
    import torch
    from torch.utils import data as torch_data

    x, y = (torch.from_numpy(a) for a in arrays())
    loader = torch_data.DataLoader(torch_data.TensorDataset(x, y), batch_size=8, shuffle=True)
    return {"model": network(), "data": loader}


def weights_of_samples() -> np.ndarray:
    return np.linspace(0.1, 2.0, SAMPLES).astype("float32")


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "arrays_shuffled_with_dropout": lambda: {"model": network(), "data": arrays()},
    "pydataset_with_two_workers": lambda: {
        "model": network(),
        "data": Augmented(workers=2),
        "validation_data": Augmented(),
    },
    "generator_function": lambda: {"model": network(), "data": generated},
    "endless_generator": lambda: {"model": network(), "data": endless(), "steps_per_epoch": 5},
    "endless_generators_with_validation": lambda: {
        "model": network(),
        "data": endless(),
        "steps_per_epoch": 5,
        "validation_data": endless(),
        "validation_steps": 2,
        "validation_freq": 2,
    },
    "steps_that_do_not_divide_arrays": lambda: {
        "model": network(),
        "data": arrays(),
        "steps_per_epoch": 4,
    },
    "pydataset_with_eight_workers": lambda: {"model": network(), "data": Augmented(workers=8)},
    "torch_dataloader": loaded,
    "sample_weights": lambda: {
        "model": network(weighted_metrics=["accuracy"]),
        "data": arrays(),
        "sample_weight": weights_of_samples(),
    },
    "class_weights": lambda: {
        "model": network(),
        "data": arrays(),
        "class_weight": {0: 0.5, 2: 3.0},
    },
    "learning_rate_schedule": lambda: {"model": network(optimizer=decaying()), "data": arrays()},
    "plateau_and_early_stopping": watched,
    "two_inputs_and_two_outputs": two_of_each,
    "mixed_bfloat16": lambda: mixed("mixed_bfloat16"),
    "mixed_float16_with_loss_scale": lambda: mixed("mixed_float16"),
    "averages_and_batch_norm": lambda: {
        "model": network(
            norm=True, optimizer=keras.optimizers.Adam(use_ema=True, ema_momentum=0.9)
        ),
        "data": arrays(),
        "validation_data": arrays(),
    },
    "eager_with_a_callback_that_draws": eager,
    "metrics_that_a_callback_resets": lambda: {
        "model": network(),
        "data": arrays(),
        "callbacks": [Resetting()],
        "validation_data": arrays(),
    },
    "callbacks_with_generators_of_their_own": wandering,
    "states_and_variables_beside_the_weights": remembering,
    "variables_and_seeds_of_losses_lambdas_and_callbacks": balanced,
    "plain_numbers_of_layers_closures_and_callbacks": scaled,
    "counts_that_a_callback_keeps_in_objects": lambda: {
        "model": network(),
        "data": arrays(),
        "callbacks": [Keeping()],
    },
}
