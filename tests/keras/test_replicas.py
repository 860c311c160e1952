"""Models of several replicas: what cannot be trained is said, and nothing else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError
from tests.keras.lives import needs_keras
from tests.keras.plain_fit import Case, arrays, check_as_plain_fit

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


def first(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = arrays()
    return x[:count], y[:count]


def normalized(*, learns: bool = True) -> Any:
    """A model of two replicas that learns statistics, or had them learned before."""
    import keras

    from tests.keras.tf_cases import two_replicas

    with two_replicas().scope():
        norm = keras.layers.BatchNormalization(name="norm", trainable=learns)
        layers = [keras.layers.Dense(4), norm, keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((6,)), *layers])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def piped(count: int) -> Any:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(first(count)).shuffle(9).batch(8)
    return data.map(lambda x, y: (x * 2, y), num_parallel_calls=2).prefetch(2)


def gan(*, has_call: bool = True) -> Case:
    import keras

    from tests.keras.tf_cases import TinyGan, two_replicas

    class Called(TinyGan):
        def call(self, real: Any) -> Any:
            return self.discriminator(real)

    with two_replicas().scope():
        keras.utils.set_random_seed(11)
        model = Called() if has_call else TinyGan()
        model.compile()
    return {"model": model, "data": arrays()[0]}


REFUSED: dict[str, tuple[Callable[[], Case], str, str]] = {
    "arrays of which one gets no sample": (
        lambda: {"model": normalized(), "data": first(41)},
        "1 sample, up to 1 for each of 2 replicas: the last gets none, of which layer norm",
        "drop_remainder=True",
    ),
    "a pipeline of which one gets no sample": (
        lambda: {"model": normalized(), "data": piped(41)},
        "1 sample, up to 1 for each of 2 replicas",
        "another batch_size",
    ),
    "a pipeline that goes on where a pass has ended": (
        lambda: {"model": normalized(), "data": piped(41).repeat(), "steps_per_epoch": 3},
        "1 sample, up to 1 for each of 2 replicas",
        "synchronized=True",
    ),
    "a GAN without a call": (lambda: gan(has_call=False), "no call()", "self.built = True"),
    "a GAN whose step builds its optimizers": (
        gan,
        "would have to build d_optimizer, g_optimizer.",
        "optimizer.build(",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_replicas_cannot_train_is_said_before_the_first_step(name, tmp_path):
    make, said, hint = REFUSED[name]
    given = {"batch_size": 8, "epochs": 2, "progress": False, **make()}
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(given.pop("model"), given.pop("data"), tmp_path / "run", **given)
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists()


TRAINED: dict[str, Callable[[], Case]] = {
    "statistics that are not learned": lambda: {
        "model": normalized(learns=False),
        "data": first(41),
    },
    "steps that end before the last batch": lambda: {
        "model": normalized(),
        "data": first(41),
        "steps_per_epoch": 5,
        "epochs": 1,
    },
    "arrays as validation data": lambda: {
        "model": normalized(),
        "data": first(40),
        "validation_data": first(41),
    },
}


@pytest.mark.parametrize("name", TRAINED)
def test_what_leaves_a_replica_without_a_sample_and_does_no_harm_is_trained(name, tmp_path):
    check_as_plain_fit(TRAINED[name], tmp_path)


def test_who_gets_no_sample_is_known_as_tensorflow_shares_batches_out(tmp_path):
    import tensorflow as tf

    from colabkit.frameworks.keras.empty_parts import leaves_one_out

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{place}" for place in range(4)])
    for samples in range(1, 10):
        data = tf.data.Dataset.range(samples).batch(samples)
        shared = next(iter(strategy.experimental_distribute_dataset(data)))
        parts = [len(part) for part in strategy.experimental_local_results(shared)]
        assert leaves_one_out(samples, 4) == (0 in parts)
