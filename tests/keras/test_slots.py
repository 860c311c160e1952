"""What an optimizer keeps comes back to the variable that it was kept for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]

HEADS = ("left", "middle", "right")


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).normal(size=(32, 4)).astype("float32")
    return x, x[:, :1]


def many_headed(order: tuple[str, ...], optimizer: Any) -> Any:
    """A model whose heads are made in an order of their own, as those of a set are."""
    import keras

    class ManyHeaded(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.heads = {name: keras.layers.Dense(1, name=name) for name in order}

        def call(self, x: Any) -> Any:
            return self.heads["left"](x) - self.heads["middle"](x) * self.heads["right"](x)

    keras.utils.set_random_seed(3)
    model = ManyHeaded()
    model.compile(optimizer, "mse")
    model(data()[0])
    for number, name in enumerate(HEADS):  # the same weights, in whatever order they were drawn
        drawn = np.random.default_rng(number).normal(size=(4, 1)).astype("float32")
        model.heads[name].kernel.assign(drawn)
    return model


def adam() -> Any:
    import keras

    return keras.optimizers.Adam(0.05, use_ema=True)


def scaled() -> Any:
    import keras

    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05, momentum=0.9))


def adafactor() -> Any:
    import keras

    return keras.optimizers.Adafactor(0.05)


@pytest.mark.parametrize("make", [adam, scaled, adafactor])
def test_layers_made_in_another_order_keep_their_own_moments(make: Any, tmp_path: Path) -> None:
    def fit(order: tuple[str, ...], run: str, **more: Any) -> Any:
        model = many_headed(order, make())
        colabkit.fit(model, data(), tmp_path / run, epochs=2, batch_size=8, progress=False, **more)
        return model

    alone = fit(HEADS, "alone")
    fit(HEADS, "ended", max_steps=3)
    resumed = fit(HEADS[::-1], "ended")
    for name in HEADS:
        for one, other in zip(
            alone.heads[name].get_weights(), resumed.heads[name].get_weights(), strict=True
        ):
            assert np.array_equal(one, other)


def test_a_setting_that_adds_moments_leaves_the_count_of_steps(tmp_path: Path) -> None:
    import keras

    def fit(**more: Any) -> Any:
        optimizer = keras.optimizers.SGD(0.05, momentum=more.pop("momentum"))
        model = many_headed(HEADS, optimizer)
        colabkit.fit(model, data(), tmp_path, epochs=2, batch_size=8, progress=False, **more)
        return model

    fit(momentum=0.0, max_steps=3)
    assert int(fit(momentum=0.9).optimizer.iterations) == 8


def test_keys_follow_from_stable_names(tmp_path: Path) -> None:
    del tmp_path  # every test in the warm process is given one
    import keras

    from colabkit.frameworks.keras.names import stable_names
    from colabkit.frameworks.keras.slots import keys_of

    made = []
    for _ in range(2):  # the layers of the second are dense_2 and dense_3
        layers = [keras.layers.Dense(3), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((3,)), *layers])
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        names = dict(zip(map(id, model.weights), stable_names(model, model.weights), strict=True))
        made.append(keys_of(optimizer, names))
    assert made[0] == made[1]
    assert len(set(made[0])) == len(made[0])
    assert {"dense/kernel momentums", "dense_1/bias velocities", "variable"} < set(made[0])


def test_a_cell_that_runs_again_knows_the_weights_that_have_no_names(tmp_path: Path) -> None:
    """Keras counts them over all that a session has made: a dead end for layers of one's own."""
    import keras

    class Linear(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.w = self.add_weight(shape=(shape[-1], 2), initializer="random_normal")
            self.b = self.add_weight(shape=(2,), initializer="random_normal")

        def call(self, x: Any) -> Any:
            return keras.ops.matmul(x, self.w) + self.b

    def fresh() -> Any:
        keras.utils.set_random_seed(4)
        model = keras.Sequential([keras.Input((4,)), Linear(), Linear(), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    given: dict[str, Any] = {"epochs": 2, "batch_size": 8, "shuffle": False}
    plain = fresh()
    plain.fit(*data(), verbose=0, **given)
    for stops in ({"max_steps": 3}, {}):
        model = fresh()
        history = colabkit.fit(model, data(), tmp_path, progress=False, **given, **stops)
    for found, expected in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert np.array_equal(found, expected)
    assert str(history.verdict).startswith("Resume is exact"), history.verdict
    taken = fresh()
    colabkit.fit(taken, data(), tmp_path, progress=False, **given | {"epochs": 1}, resume="weights")


def test_averages_of_a_wrapped_optimizer_are_the_weights_of_a_run_that_is_done(
    tmp_path: Path,
) -> None:
    """Mixed precision has each optimizer wrapped."""
    import keras

    def fresh() -> Any:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        inner = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5)
        model.compile(keras.optimizers.LossScaleOptimizer(inner), "mse")
        return model

    plain = fresh()
    given: dict[str, Any] = {"epochs": 2, "batch_size": 8, "shuffle": False}
    plain.fit(*data(), verbose=0, **given)
    for stops in ({"max_steps": 3}, {}, {}):
        model = fresh()
        colabkit.fit(model, data(), tmp_path / "run", progress=False, **given, **stops)
    for found, expected in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert np.array_equal(found, expected)
