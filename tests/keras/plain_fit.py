"""Trains once with Keras' own fit and once with ours, and compares all bits of both."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import colabkit

SAMPLES = 44
Case = dict[str, Any]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).normal(size=(SAMPLES, 6)).astype("float32")
    return x, (x.sum(1) > 0).astype("int64") + (x[:, 0] > 1)


def network(**compiled: Any) -> Any:
    import keras

    keras.utils.set_random_seed(11)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, **{"optimizer": "adam", "metrics": ["accuracy"], **compiled})
    return model


def rising(*, down: bool = False) -> np.ndarray:
    weights = np.linspace(0.1, 2, SAMPLES).astype("float32")
    return weights[::-1].copy() if down else weights


def bits_of(model: Any) -> dict[str, bytes]:
    """Returns the bits of all variables: weights, seeds, metrics, and what optimizers keep."""
    import keras

    # An optimizer that took no step is not built by Keras.
    optimizers = {
        name: value.variables
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and _has_stepped(value)
    }
    kinds = {"model": model.variables, "metrics": model.metrics_variables, **optimizers}
    return {
        f"{kind} {number}": np.asarray(keras.ops.convert_to_numpy(variable)).tobytes()
        for kind, variables in kinds.items()
        for number, variable in enumerate(variables)
    }


def _has_stepped(optimizer: Any) -> bool:
    import keras

    counted = optimizer.iterations  # of several replicas, or a lone tensor
    return bool(keras.ops.convert_to_numpy(getattr(counted, "value", counted)))


def weights_of(model: Any) -> list[bytes]:
    """Returns the bits of the weights."""
    return [weight.tobytes() for weight in model.get_weights()]


def check_as_plain_fit(make: Callable[[], Case], folder: Any, **given: Any) -> colabkit.History:
    """Trains both ways; all variables and all that is reported must have the same bits."""
    plain = _made(make, given)
    model, data = plain.pop("model"), plain.pop("data")
    bits = weights_of if plain.pop("compares_weights_alone", False) else bits_of
    x, y, sample_weight = (*data, None, None)[:3] if isinstance(data, tuple) else (data, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model.fit(x, y, sample_weight=sample_weight, verbose=0, **plain).history
        ours = _made(make, given)
        trained, same_data = ours.pop("model"), ours.pop("data")
        ours.pop("compares_weights_alone", None)
        history = colabkit.fit(trained, same_data, folder, progress=False, **ours)
    assert bits(trained) == bits(model)
    assert history.history.keys() == expected.keys()
    for name, values in expected.items():
        assert [value for value in history.history[name] if not np.isnan(value)] == values, name
    return history


def _made(make: Callable[[], Case], given: Case) -> Case:
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(11)
    case = {"batch_size": 8, "epochs": 3, "shuffle": False, **given, **make()}
    return case if "model" in case else {"model": network(), **case}
