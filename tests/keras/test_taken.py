"""What a person passes otherwise at a resume of Keras' fit is taken, and said."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]

X = np.random.default_rng(5).normal(size=(32, 6)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")


def error(truth: Any, output: Any) -> Any:
    return output[:, 0] ** 2


def fitted(
    folder: Path, *, epochs: int, metrics: Any = None, rate: float = 0.1, **more: Any
) -> tuple[str, int, list[bytes]]:
    import keras

    keras.utils.set_random_seed(11)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=metrics)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        history = colabkit.fit(model, (X, Y), folder, epochs=epochs, batch_size=8, **more)
    return said.getvalue(), len(history.epochs), [each.tobytes() for each in model.get_weights()]


def stopping(patience: int) -> Any:
    import keras

    return keras.callbacks.EarlyStopping("loss", patience=patience)


def idle() -> Any:
    import keras

    return keras.callbacks.Callback()


SETTINGS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "metrics": (
        lambda: {"metrics": ["accuracy", error]},
        "metrics of model none → accuracy, error; the model's code",
    ),
    "weights of classes": (lambda: {"class_weight": {0: 1.0, 1: 2.0}}, "class_weight"),
    "validation": (
        lambda: {"validation_data": (X, Y), "validation_freq": 2},
        "validation_data none → passed; validation_freq 1 → 2; monitor none → val_loss",
    ),
    "callbacks": (
        lambda: {"callbacks": [colabkit.EarlyStopping("loss"), stopping(9)]},
        "callbacks none → EarlyStopping, EarlyStopping",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_no_variable_shows_is_said(name, tmp_path):
    make, phrase = SETTINGS[name]
    fitted(tmp_path, epochs=1)
    assert f"Taken as passed now: {phrase}." in fitted(tmp_path, epochs=2, **make())[0]
    assert "Taken as passed now" not in fitted(tmp_path, epochs=3, **make())[0]


def test_more_patience_or_none_trains_on_after_an_early_stop(tmp_path):
    def train(name: str, *callbacks: Any) -> tuple[str, int, list[bytes]]:
        return fitted(tmp_path / name, epochs=8, rate=0.0, callbacks=callbacks)

    assert train("run", stopping(2))[1] == 3
    said, *found = train("run", idle(), stopping(4))
    assert found == [*train("alone", stopping(4))[1:]]
    assert found[0] == 5
    assert "callbacks EarlyStopping → Callback, EarlyStopping" in said
    assert "patience of EarlyStopping 2 → 4" in said
    assert "patience is 4 epochs now" in said
    said, epochs, _ = train("run")
    assert epochs == 8
    assert "EarlyStopping is none of the callbacks now" in said
