"""Notebooks that call ``fit`` several times on one run folder, run from their first cell on."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import colabkit
from tests.keras.cases import arrays, network

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Notebook:
    """Dies after a step, or at a place between two calls, when it is told to."""

    def __init__(self, folder: Path, *, kill_at: int | str | None) -> None:
        self.folder = folder
        self.kill_at = kill_at
        self.seen: list[Any] = []

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if isinstance(self.kill_at, int) and self.kill_at % 2:
            run.flush()
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def fit(self, model: keras.Model, epochs: int, **more: Any) -> colabkit.History:
        data = more.pop("data", None) or arrays()
        given = {"batch_size": 8, "progress": False, "save_every": 1, **more}
        given["callbacks"] = [*given.pop("callbacks", []), self]
        history = colabkit.fit(model, data, self.folder, epochs=epochs, **given)
        weights = [np.asarray(w, "float64").sum().hex() for w in model.get_weights()]
        rows = [{k: float(v).hex() for k, v in row.items()} for row in history.numbers()["epochs"]]
        drawn = [float(keras.random.normal(())), random.random(), float(np.random.rand())]
        self.seen.append([weights, rows, drawn])
        return history

    def at(self, place: str) -> None:
        if place == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def images() -> tuple[np.ndarray, np.ndarray]:
    chooser = np.random.default_rng(3)
    x = chooser.normal(size=(44, 8, 8, 3)).astype("float32")
    return x, (x.mean((1, 2, 3)) > 0).astype("int64") + (x[:, 0, 0, 0] > 1)


def small_mobile_net() -> keras.Model:
    layers = keras.layers
    block = [layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
    stem = [layers.Conv2D(4, 3, strides=2), layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([keras.Input((8, 8, 3)), *stem, *block, layers.Conv2D(6, 1)])


def transfer_learning(book: Notebook) -> keras.Model:
    """A frozen base under a new head; then the upper half of the base as well, at a lower rate."""
    keras.utils.set_random_seed(11)
    base = small_mobile_net()
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.RandomFlip(seed=4)(inputs)
    hidden = keras.layers.GlobalAveragePooling2D()(base(hidden, training=False))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dropout(0.2)(hidden)))
    model.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"])
    given = {"data": images(), "validation_data": images()}
    first = book.fit(model, 2, **given)
    book.at("between")
    base.trainable = True
    for layer in base.layers[:4]:
        layer.trainable = False
    model.compile(keras.optimizers.RMSprop(0.001), LOSS, metrics=["accuracy"])
    book.fit(model, len(first.epochs) + 2, **given)
    return model


def all_but_the_last_then_all(book: Notebook) -> keras.Model:
    """As detectors are trained: generators, callbacks that are passed again, an early end."""

    def batches() -> Any:
        x, y = arrays()
        for first in range(0, len(x), 8):
            yield x[first : first + 8] + np.random.rand(6).astype("float32"), y[first : first + 8]

    model = network(optimizer=keras.optimizers.Adam(0.01))
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, min_delta=9.0)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=9.0)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    book.fit(model, 5, data=batches, callbacks=[plateau, stopping])
    book.at("between")
    for layer in model.layers:
        layer.trainable = True
    model.compile(keras.optimizers.Adam(0.001), LOSS)
    book.fit(model, 8, data=batches, callbacks=[plateau, stopping])
    return model


def as_a_detector_is_trained(book: Notebook) -> keras.Model:
    """Generators without end that shuffle their own list, and epochs counted over both calls."""
    x, y = arrays()

    def batches(rows: list[int]) -> Any:
        place = 0
        while True:
            taken = []
            for _ in range(8):
                if place == 0:
                    np.random.shuffle(rows)
                taken.append(rows[place])
                place = (place + 1) % len(rows)
            yield x[taken] + np.random.normal(size=(8, 6)).astype("float32"), y[taken]

    model = network(optimizer=keras.optimizers.Adam(0.01))
    for layer in model.layers[:-1]:
        layer.trainable = False
    for until, rate in ((3, 0.01), (6, 0.001)):
        model.compile(keras.optimizers.Adam(rate), LOSS)
        book.fit(
            model,
            until,
            initial_epoch=until - 3,
            data=batches(list(range(36))),
            steps_per_epoch=4,
            validation_data=batches(list(range(36, 44))),
            validation_steps=1,
            callbacks=[keras.callbacks.ReduceLROnPlateau("val_loss", patience=1)],
        )
        book.at(f"after {until}")
        for layer in model.layers:
            layer.trainable = True
    return model


def the_same_sources_in_every_phase(book: Notebook) -> keras.Model:
    """What a call reads of a pipeline or a generator, the next call goes on from."""
    import tensorflow as tf

    class Counting(keras.utils.PyDataset):
        epochs = 0

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            rows = slice(8 * index, 8 * index + 8)
            return x[rows] * np.float32(1 + self.epochs), y[rows]

        def on_epoch_end(self) -> None:
            self.epochs += 1

    def walk() -> Any:
        place = np.zeros(6, "float32")
        while True:
            place = place + np.random.normal(size=6).astype("float32")
            yield x[:8] + place, y[:8]

    keras.utils.set_random_seed(5)
    x, y = arrays()
    pipeline = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(44).batch(11)
    sources = [pipeline, Counting(), walk()]
    model = network()
    for number, source in enumerate([*sources, *sources[::-1]]):
        model.compile(keras.optimizers.SGD(0.1 / (1 + number)), LOSS)
        more = {"steps_per_epoch": 4} if source is sources[-1] else {}
        book.fit(model, number + 1, data=source, **more)
        book.at(f"after {number}")
    return model


def shown_in_the_first_phase(book: Notebook) -> keras.Model:
    """A callback of the first call alone draws orders of the pipeline that both train on."""
    import tensorflow as tf

    keras.utils.set_random_seed(5)
    pipeline = tf.data.Dataset.from_tensor_slices(arrays()).shuffle(44).batch(11)

    class Showing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            next(iter(pipeline.take(1)))

    model = network()
    book.fit(model, 2, data=pipeline, callbacks=[Showing()])
    model.compile(keras.optimizers.SGD(0.01), LOSS)
    book.fit(model, 4, data=pipeline)
    return model


def averages_the_best_and_three_rates(book: Notebook) -> keras.Model:
    model = network(norm=True)
    for number, rate in enumerate((0.1, 0.01, 0.1)):
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.5)
        model.compile(optimizer, LOSS)
        book.fit(model, 2 * number + 2, validation_data=arrays())
        book.at(f"between {number}")
        colabkit.load(model, book.folder, "best")
    return model


def one_epoch_a_call(book: Notebook) -> keras.Model:
    model = network()
    for epoch in range(3):
        book.fit(model, epoch + 1)
        book.at(f"between {epoch}")
    book.seen = book.seen[-1:]  # a call finds the newest state, which may be a later one
    return model


def one_epoch_a_call_and_lower_rates(book: Notebook) -> keras.Model:
    model = network()
    for epoch in range(5):
        if epoch in {2, 4}:
            model.optimizer.learning_rate = model.optimizer.learning_rate * 0.5
        book.fit(model, epoch + 1)
        book.at(f"between {epoch}")
    book.seen = book.seen[-1:]
    return model


NOTEBOOKS: dict[str, Callable[[Notebook], keras.Model]] = {
    "transfer_learning": transfer_learning,
    "all_but_the_last_then_all": all_but_the_last_then_all,
    "as_a_detector_is_trained": as_a_detector_is_trained,
    "the_same_sources_in_every_phase": the_same_sources_in_every_phase,
    "shown_in_the_first_phase": shown_in_the_first_phase,
    "averages_the_best_and_three_rates": averages_the_best_and_three_rates,
    "one_epoch_a_call": one_epoch_a_call,
    "one_epoch_a_call_and_lower_rates": one_epoch_a_call_and_lower_rates,
}


def run(folder: Path, part: dict[str, Any]) -> None:
    """Runs a notebook, and writes what it ended with in a form that compares bitwise."""
    book = Notebook(folder / part["run"], kill_at=part.get("kill_at"))
    model = NOTEBOOKS[part["notebook"]](book)
    newest = colabkit.checkpoints(book.folder)[0]
    ended = {
        "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
        "weights": [np.asarray(w, "float64").sum().hex() for w in model.get_weights()],
        "rate": float(model.optimizer.learning_rate).hex(),
        "step": newest.step,
        "seen": book.seen,
    }
    (folder / f"{part['run']}.json").write_text(json.dumps(ended))
