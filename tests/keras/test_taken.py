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


def compiled(metrics: Any = None, *, rate: float = 0.1) -> Any:
    import keras

    keras.utils.set_random_seed(11)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=metrics)
    return model


def fitted(
    folder: Path, *, epochs: int, metrics: Any = None, rate: float = 0.1, **more: Any
) -> tuple[str, int, list[bytes]]:
    model = compiled(metrics, rate=rate)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        history = colabkit.fit(model, (X, Y), folder, epochs=epochs, batch_size=8, **more)
    return said.getvalue(), len(history.epochs), [each.tobytes() for each in model.get_weights()]


def by_plain_fit(*calls: tuple[int, int, list[Any]]) -> list[bytes]:
    model = compiled(["accuracy"])
    for first, epochs, callbacks in calls:
        given = {"initial_epoch": first, "callbacks": callbacks, "shuffle": False, "verbose": 0}
        model.fit(X, Y, epochs=epochs, batch_size=8, **given)
    return [each.tobytes() for each in model.get_weights()]


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


def watching(folder: Path, monitor: str) -> list[Any]:
    """Callbacks of Keras that reduce the rate, stop, and take the best weights, by one value."""
    import keras

    return [
        keras.callbacks.ReduceLROnPlateau(monitor, factor=0.5, patience=1, min_delta=0.01),
        keras.callbacks.EarlyStopping(monitor, patience=4, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(
            str(folder / "best.weights.h5"), monitor, save_best_only=True, save_weights_only=True
        ),
    ]


def test_the_best_of_another_value_is_none_to_beat(tmp_path):
    import keras

    given = {"metrics": ["accuracy"], "shuffle": False}
    for name in ("ours", "plain"):
        (tmp_path / name).mkdir()
    first, then = (watching(tmp_path / "plain", each) for each in ("loss", "accuracy"))
    weights = by_plain_fit((0, 3, first), (3, 9, then))
    run = tmp_path / "run"
    fitted(run, epochs=3, callbacks=watching(tmp_path / "ours", "loss"), **given)
    ours = watching(tmp_path / "ours", "accuracy")
    said, _, found = fitted(run, epochs=9, callbacks=ours, **given)
    assert "monitor of EarlyStopping loss → accuracy" in said
    assert found == weights
    for mine, plains in zip(ours, then, strict=True):
        assert (mine.best, mine.monitor_op) == (plains.best, plains.monitor_op)
    best = [keras.models.clone_model(compiled()) for _ in range(2)]
    for model, name in zip(best, ("ours", "plain"), strict=True):
        model.load_weights(tmp_path / name / "best.weights.h5")
    assert [w.tobytes() for w in best[0].weights[0].numpy()] == [
        w.tobytes() for w in best[1].weights[0].numpy()
    ]


def test_a_run_that_one_value_has_stopped_goes_on_by_another(tmp_path):
    import keras

    def train(monitor: str, mode: str) -> tuple[str, int, list[bytes]]:
        stops = keras.callbacks.EarlyStopping(monitor, mode=mode, patience=2)
        given = {"metrics": ["accuracy"], "shuffle": False, "callbacks": [stops]}
        return fitted(tmp_path / "run", epochs=6, **given)

    assert train("loss", "max")[1] == 3
    said, epochs, weights = train("loss", "min")
    assert "loss is watched now" in said
    assert (epochs, weights) == (6, by_plain_fit((0, 6, [])))


def test_another_margin_counts_from_the_next_epoch_on(tmp_path):
    import keras

    def train(epochs: int, margin: float) -> int:
        stops = keras.callbacks.EarlyStopping("loss", patience=2, min_delta=margin)
        return fitted(tmp_path, epochs=epochs, callbacks=[stops])[1]

    assert train(3, 0.0001) == 3
    assert train(9, 5.0) == 5
