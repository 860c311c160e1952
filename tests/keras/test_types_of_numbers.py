"""Variables of every type of number that a backend has go on, those without any element too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit import errors
from tests.keras.lives import needs_jax, needs_keras

X = np.random.default_rng(5).normal(size=(16, 4)).astype("float32")
FORMS = [
    *(("complex128", shape) for shape in [(2,), (), (0, 3)]),
    *(("complex64", (2,)), ("float64", ()), ("float16", (0, 3)), ("bfloat16", (2,))),
    *(("int8", (2,)), ("bool", ())),
]


def model() -> Any:
    import keras

    class Counting(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.kept = [
                self.add_weight(shape, "ones", dtype, trainable=False, name=f"{dtype}_{len(shape)}")
                for dtype, shape in FORMS
            ]

        def call(self, x: Any) -> Any:
            for each in self.kept:
                if each.dtype == "bool":
                    each.assign(keras.ops.logical_not(each))
                elif each.dtype.startswith("complex"):
                    each.assign(each * keras.ops.cast(1.1 + 0.3j, each.dtype))
                else:
                    each.assign(each + keras.ops.cast(3, each.dtype))
            return x

    keras.utils.set_random_seed(11)
    made = keras.Sequential([keras.Input((4,)), Counting(), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def check_as_plain_fit(folder: Any) -> None:
    import keras

    given = {"batch_size": 4, "shuffle": False}
    plain = model()
    plain.fit(X, X[:, :1], epochs=3, verbose=0, **given)
    for epochs in (1, 2, 3):
        ours = model()
        told = {"epochs": epochs, "progress": False, **given}
        assert not colabkit.fit(ours, (X, X[:, :1]), folder, **told).verdict.reasons
    assert [np.asarray(keras.ops.convert_to_numpy(v)).tobytes() for v in ours.variables] == [
        np.asarray(keras.ops.convert_to_numpy(v)).tobytes() for v in plain.variables
    ]


@needs_keras
@pytest.mark.in_nursery("on_tensorflow")
def test_variables_of_tensorflow_go_on(tmp_path):
    check_as_plain_fit(tmp_path)


@needs_jax
@pytest.mark.in_nursery("on_jax")
def test_variables_of_jax_go_on(tmp_path):
    import jax

    jax.config.update("jax_enable_x64", True)
    check_as_plain_fit(tmp_path)


@needs_keras
@pytest.mark.in_nursery("on_tensorflow")
def test_a_variable_of_float8_of_tensorflows_own_goes_on_and_words_are_an_error(tmp_path):
    import keras
    import tensorflow as tf

    def made(value: Any) -> Any:
        trained = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        trained.compile("sgd", "mse")
        trained.layers[0].kept = tf.Variable(value, trainable=False)
        return trained

    def train(trained: Any, name: str) -> Any:
        colabkit.fit(trained, (X, X[:, :1]), tmp_path / name, progress=False)
        return trained.layers[0].kept.numpy()

    given = tf.cast([1.5, -2.0], "float8_e4m3fn")
    train(made(given), "numbers")
    assert (
        train(made(tf.cast([0.0, 0.0], given.dtype)), "numbers").tobytes()
        == given.numpy().tobytes()
    )
    worded = made(["a"])
    with pytest.raises(errors.StateError, match="A variable of string cannot be stored"):
        train(worded, "words")
    assert int(worded.optimizer.iterations) == 0
