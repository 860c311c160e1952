"""One training session of the demo: a small Keras CNN on scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import keras

import colabkit
from colabkit.demo_session import Digits, Reporter


def network() -> keras.Model:
    """Returns the CNN with its first weights, the same in every session."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.RandomRotation(0.04, fill_mode="constant"),
            layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(2e-3), loss, metrics=["accuracy"])
    return model


def train(folder: Path, *, epochs: int) -> None:
    """Trains, or goes on training, and writes the outcome into ``folder``."""
    trained, held_out = Digits.trained(), Digits.held_out()
    reporter, model = Reporter(folder), network()
    validation = (held_out.images[..., None], held_out.labels)
    colabkit.fit(
        model,
        (trained.images[..., None], trained.labels),
        folder / "run",
        epochs=epochs,
        validation_data=validation,
        callbacks=[reporter],
        save_every=10,
        progress=False,
    )
    _, accuracy = model.evaluate(*validation, verbose=0)
    reporter.write_result(float(accuracy))
