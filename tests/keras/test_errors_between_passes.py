"""What stops Keras' fit behind the last step of an epoch, or before the first, loses no step."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_jax, needs_keras

EPOCHS, BATCH, FAILS, PER_EPOCH = 3, 8, 1, 6
PLACES = ["data", "on_test_begin", "on_test_batch_end", "on_epoch_end", "on_epoch_begin"]
ON_TENSORFLOW = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]
ON_ALL = [
    pytest.param("tensorflow", marks=ON_TENSORFLOW),
    pytest.param("torch", marks=[needs_keras, pytest.mark.in_nursery("on_torch")]),
    pytest.param("jax", marks=[needs_keras, needs_jax, pytest.mark.in_nursery("on_jax")]),
]


def fails() -> None:
    raise OSError


def is_interrupted() -> None:
    signal.raise_signal(signal.SIGINT)


class Trouble:
    """Of the machine's, at one place of one epoch, as no checkpoint holds it.

    Args:
        place: Where.
        meets: What happens there.
    """

    def __init__(self, place: str, meets: Callable[[], None] = fails) -> None:
        self.place, self._meets = place, meets
        self.epoch = self.read = 0

    def pass_by(self, place: str, epoch: int) -> None:
        if place == self.place and epoch == self.epoch == FAILS + (place == "on_epoch_begin"):
            self.place = ""
            self._meets()


def train(folder: Path, trouble: Trouble, **compiled: Any) -> Any:
    import keras

    class Watching(keras.callbacks.Callback):
        """Counts by itself, and meets trouble in any hook."""

        def __init__(self) -> None:
            super().__init__()
            self.ends: list[Any] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            trouble.epoch = epoch
            trouble.pass_by("on_epoch_begin", epoch)

        def on_test_begin(self, logs: Any = None) -> None:
            trouble.pass_by("on_test_begin", trouble.epoch)

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            trouble.read += 1
            trouble.pass_by("on_test_batch_end", trouble.epoch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.ends.append((epoch, {name: float(value) for name, value in logs.items()}))
            trouble.pass_by("on_epoch_end", epoch)

    class Validation(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 11

        def __getitem__(self, number: int) -> Any:
            if number == 3:
                trouble.pass_by("data", trouble.epoch)
            return x[number * 4 :][:4], y[number * 4 :][:4]

    x = np.random.default_rng(5).normal(size=(44, 6)).astype("float32")
    y = (x.sum(1) > 0).astype("int64")
    keras.utils.set_random_seed(11)
    layers = [
        keras.layers.Dense(12, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(1e-2, use_ema="averages" in compiled)
    model.compile(optimizer, loss, metrics=["accuracy"])
    watching = Watching()
    callbacks = [watching, keras.callbacks.ReduceLROnPlateau("loss", patience=1)]
    callbacks += [keras.callbacks.SwapEMAWeights()] if "averages" in compiled else []
    history = colabkit.fit(
        model,
        (x, y),
        folder,
        epochs=EPOCHS,
        batch_size=BATCH,
        validation_data=Validation(),
        callbacks=callbacks,
        save_every="300s",
        progress=False,
    )
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
    values = [*model.weights, *model.optimizer.variables]
    arrays = [keras.ops.convert_to_numpy(value).tobytes() for value in values]
    return arrays, rows, watching.ends


def goes_on_behind(folder: Path, place: str, **compiled: Any) -> None:
    alone = train(folder / "alone", Trouble(""), **compiled)
    with pytest.raises(Exception):  # noqa: B017, PT011  # TensorFlow's own for what data raises
        train(folder / "run", Trouble(place), **compiled)
    newest = colabkit.checkpoints(folder / "run")[0]
    assert (newest.step, newest.epoch) == (PER_EPOCH * 2, FAILS + (place == "on_epoch_begin"))
    assert train(folder / "run", Trouble(""), **compiled) == alone


@pytest.mark.parametrize("backend", ON_ALL)
@pytest.mark.parametrize("place", ["data", "on_epoch_end"])
def test_all_steps_are_kept_and_it_goes_on_behind_them(place, backend, tmp_path):
    goes_on_behind(tmp_path, place)


@needs_keras
@pytest.mark.in_nursery("on_tensorflow")
@pytest.mark.parametrize("place", ["on_test_begin", "on_test_batch_end", "on_epoch_begin"])
def test_so_it_is_in_every_hook(place, tmp_path):
    goes_on_behind(tmp_path, place)


@needs_keras
@pytest.mark.in_nursery("on_tensorflow")
def test_averages_that_stand_in_for_the_weights_are_not_taken_for_them(tmp_path):
    goes_on_behind(tmp_path, "on_test_batch_end", averages=True)


@pytest.mark.parametrize("backend", ON_ALL)
def test_one_interrupt_ends_a_validation_at_its_next_batch(backend, tmp_path):
    alone = train(tmp_path / "alone", Trouble(""))
    trouble = Trouble("on_test_batch_end", is_interrupted)
    train(tmp_path / "run", trouble)
    assert trouble.read == 11 + 1
    newest = colabkit.checkpoints(tmp_path / "run")[0]
    assert (newest.step, newest.epoch) == (PER_EPOCH * 2, FAILS)
    assert train(tmp_path / "run", Trouble("")) == alone
