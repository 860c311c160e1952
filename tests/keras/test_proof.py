"""verify_resume says of a Keras training that it is bitwise, and finds what no verdict can see."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import colabkit
from colabkit.errors import ArgumentError, MissingPackageError
from tests.keras.lives import needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


def made_as_cells_are() -> dict[str, Any]:
    from tests.keras.cases import Augmented, Wandering, network
    from tests.keras.tf_cases import pipeline, seeded

    return {
        "model": network(norm=True),
        "data": seeded(pipeline),
        "validation_data": Augmented(),
        "callbacks": [Wandering()],
    }


def counting_in_python() -> Any:
    """A model whose compiled step calls a function that weighs less each time."""
    import keras
    import numpy as np
    import tensorflow as tf

    calls = [0]

    def fading(rows: Any) -> Any:
        calls[0] += 1
        return rows * np.float32(0.99 ** calls[0])

    class Fading(keras.layers.Layer):
        def call(self, rows: Any) -> Any:
            return tf.ensure_shape(tf.numpy_function(fading, [rows], tf.float32), [None, 6])

    model = keras.Sequential([keras.Input((6,)), Fading(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_a_model_and_arrays_are_handed_to_other_processes_and_stay_as_they_are(tmp_path):
    from tests.keras.cases import arrays, network

    model = network()
    model.fit(*arrays(), verbose=0)  # from here on no fork of this process would survive
    before = model.get_weights()
    proof = colabkit.verify_resume(model, arrays(), epochs=1, kills=1, batch_size=8)
    assert (proof.exact, proof.steps, proof.differences) == (True, 6, ())
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_what_a_function_makes_is_made_anew_in_each_process(tmp_path):
    proof = colabkit.verify_resume(made_as_cells_are, kills=2)
    assert (proof.exact, proof.kills, proof.steps) == (True, 2, 12)


def test_what_the_python_within_a_compiled_step_keeps_is_found(tmp_path):
    from tests.keras.cases import arrays

    data = arrays()[0], arrays()[0][:, :1]
    history = colabkit.fit(counting_in_python(), data, tmp_path, batch_size=8, progress=False)
    assert str(history.verdict).startswith("Resume is exact ("), str(history.verdict)
    proof = colabkit.verify_resume(counting_in_python, data, epochs=1, kills=1, batch_size=8)
    assert "model.dense/kernel" in proof.differences


def test_what_cannot_be_handed_over_is_named_with_the_way_on(tmp_path):
    from tests.keras.cases import arrays, network
    from tests.keras.tf_cases import pipeline

    with pytest.raises(ArgumentError, match=r"Pass a function .* verify_resume\(make\)"):
        colabkit.verify_resume(network(), pipeline())
    sys.modules["cloudpickle"] = None
    with pytest.raises(MissingPackageError, match="pip install cloudpickle"):
        colabkit.verify_resume(network(), arrays())
