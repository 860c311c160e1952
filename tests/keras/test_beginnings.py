"""As a training begins, a callback finds and sets in each session what it did in the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_keras
from tests.keras.test_beside import model

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


def beginning(hook: str) -> Any:
    """Sets a rate and weights as a training begins, and lowers the rate behind each epoch."""
    import keras

    def begin(of: Any) -> None:
        of.optimizer.learning_rate.assign(0.05)
        of.set_weights([weight * 0.5 for weight in of.get_weights()])

    class Beginning(keras.callbacks.Callback):
        def set_model(self, model: Any) -> None:
            super().set_model(model)
            if hook == "set_model":
                begin(model)

        def on_train_begin(self, logs: Any = None) -> None:
            if hook == "on_train_begin":
                begin(self.model)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate.assign(0.05 / (2 + epoch))

    return Beginning()


@pytest.mark.parametrize("hook", ["set_model", "on_train_begin"])
def test_what_callbacks_set_as_a_training_begins_they_set_once(hook: str, tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    given = {"batch_size": 8, "shuffle": False}
    plain, ours = model(), model()
    plain.fit(x, x[:, :2], epochs=4, callbacks=[beginning(hook)], verbose=0, **given)
    for epochs in (2, 4):
        ours = model()
        training = {"epochs": epochs, "callbacks": [beginning(hook)], "progress": False, **given}
        colabkit.fit(ours, (x, x[:, :2]), tmp_path / "run", **training)
    assert [each.tolist() for each in ours.get_weights()] == [
        each.tolist() for each in plain.get_weights()
    ]


def warming(hook: str) -> Any:
    """Raises the rate to what it found as training begins, and shrinks weights to those then."""
    import keras

    class Warming(keras.callbacks.Callback):
        steps = 0

        def set_model(self, model: Any) -> None:
            super().set_model(model)
            if hook == "set_model":
                self.begin()

        def on_train_begin(self, logs: Any = None) -> None:
            if hook == "on_train_begin":
                self.begin()

        def begin(self) -> None:
            self.rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            self.first = self.model.get_weights()
            self.model.optimizer.learning_rate = 0.0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            self.model.optimizer.learning_rate = self.rate * min(1.0, self.steps / 9)
            weights = zip(self.model.get_weights(), self.first, strict=True)
            self.model.set_weights([0.9 * now + 0.1 * first for now, first in weights])

    return Warming()


@pytest.mark.parametrize("hook", ["set_model", "on_train_begin"])
def test_what_callbacks_find_as_a_training_begins_they_find_in_each_session(
    hook: str, tmp_path: Path
):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    given = {"epochs": 3, "batch_size": 8, "shuffle": False}
    plain, ours = model(), model()
    plain.fit(x, x[:, :2], callbacks=[warming(hook)], verbose=0, **given)
    for steps in (6, None):
        ours = model()
        training = {"callbacks": [warming(hook)], "max_steps": steps, "progress": False, **given}
        history = colabkit.fit(ours, (x, x[:, :2]), tmp_path / "run", **training)
    assert str(history.verdict) == "Resume is exact."
    assert [each.tolist() for each in ours.get_weights()] == [
        each.tolist() for each in plain.get_weights()
    ]


def counting_in_python() -> Any:
    """A model with a metric whose counts are no variables."""
    import keras

    class Counted(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="counted")
            self.reset_state()

        def update_state(self, true: Any, given: Any, sample_weight: Any = None) -> None:
            self.count += 1
            self.places.append(self.count)

        def result(self) -> Any:
            return keras.ops.convert_to_tensor(float(self.count + sum(self.places)))

        def reset_state(self) -> None:
            self.count, self.places = 0, []

    made = model()
    made.compile("adam", "mse", metrics=[Counted()], run_eagerly=True)
    return made


@pytest.mark.parametrize("ends_at", [5, 6, 7])
def test_what_a_metric_counts_in_python_goes_on_in_mid_epoch(ends_at: int, tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    given = {"epochs": 3, "batch_size": 8, "shuffle": False}
    plain = counting_in_python().fit(x, x[:, :2], verbose=0, **given).history
    for steps in (ends_at, None):
        training = {"max_steps": steps, "progress": False, **given}
        history = colabkit.fit(counting_in_python(), (x, x[:, :2]), tmp_path / "run", **training)
    assert history.history["counted"] == plain["counted"]


@pytest.mark.in_nursery("on_torch")
def test_a_layer_that_no_call_builds_needs_no_batch_of_the_data(tmp_path: Path):
    import keras

    class Moving(keras.Model):
        """Calls one of its parts in its loss alone, as contrastive learning does."""

        def __init__(self) -> None:
            super().__init__()
            self.moved = keras.Sequential([keras.layers.Rescaling(0.5)])
            self.network = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])

        def call(self, x: Any) -> Any:
            return self.network(x)

        def compute_loss(self, x: Any = None, *given: Any, **named: Any) -> Any:
            return keras.ops.mean(keras.ops.square(self.network(self.moved(x)) - 1.0))

    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    given = {"epochs": 2, "batch_size": 8, "shuffle": False}
    trained = []
    for ours in (False, True):
        keras.utils.set_random_seed(3)
        made = Moving()
        made.compile("adam")
        if ours:
            colabkit.fit(made, x, tmp_path, progress=False, **given)
        else:
            made.fit(x, verbose=0, **given)
        trained.append([each.tolist() for each in made.get_weights()])
    assert trained[0] == trained[1]
