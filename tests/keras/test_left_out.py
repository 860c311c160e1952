"""What a loop over Keras trains or changes and ``Run`` was not given is named, and nothing else."""

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
from tests.keras.test_loops import loss_of, tiny, trained_with

pytestmark = needs_keras
in_life = pytest.mark.in_nursery("on_tensorflow")
Step = Callable[..., Any]
X, Y = np.random.default_rng(5).normal(size=(24, 6)).astype("float32"), np.arange(24) % 3


class Teacher:
    """An average of a model, in an object of the user's own."""

    def __init__(self, model: Any) -> None:
        import keras

        self.average = keras.models.clone_model(model)
        self.average.set_weights(model.get_weights())

    def follow(self, model: Any) -> None:
        for own, other in zip(self.average.weights, model.weights, strict=True):
            own.assign(0.9 * own + 0.1 * other)


class Saved(Teacher):
    def state_dict(self) -> dict[str, Any]:
        return {"weights": list(self.average.get_weights())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.set_weights(state["weights"])


def with_two_optimizers(turn: Callable[[Any], bool], *, compiled: bool = False) -> Any:
    import keras
    import tensorflow as tf

    model, often, seldom = tiny(), keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1)
    wrapped = tf.function if compiled else lambda step: step
    often_step = wrapped(trained_with(model, often))
    seldom_step = wrapped(trained_with(model, seldom))

    def step(run: Any, x: Any, y: Any) -> None:
        (seldom_step if turn(run) else often_step)(x, y)

    return {"model": model, "optimizer": often}, step


def now_and_then() -> Any:
    return with_two_optimizers(lambda run: run.step % 5 == 4)


def in_the_second_pass() -> Any:
    return with_two_optimizers(lambda run: run.step % 6 > 2, compiled=True)


def of_another_model() -> Any:
    import keras

    made, judge = tiny(), tiny()
    own, other = keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1)
    first, second = trained_with(made, own), trained_with(judge, other)

    def step(run: Any, x: Any, y: Any) -> None:
        first(x, y)
        second(x, y)

    return {"made": made, "judge": judge, "own": own}, step


def a_model() -> Any:
    import keras

    model, optimizer = tiny(), keras.optimizers.Adam(0.1)
    inner = trained_with(model, optimizer)
    return {"optimizer": optimizer}, lambda run, x, y: inner(x, y)


def an_average() -> Any:
    import keras

    model, optimizer = tiny(), keras.optimizers.SGD(0.1)
    teacher, inner = Teacher(model), trained_with(model, optimizer)

    def step(run: Any, x: Any, y: Any) -> None:
        inner(x, y)
        teacher.follow(model)

    return {"model": model, "optimizer": optimizer}, step


def draws() -> Any:
    import keras

    model, optimizer = tiny(), keras.optimizers.SGD(0.1)
    seeds, inner = keras.random.SeedGenerator(3), trained_with(model, optimizer)

    def step(run: Any, x: Any, y: Any) -> None:
        inner(x + keras.random.normal(x.shape, seed=seeds), y)

    return {"model": model, "optimizer": optimizer}, step


def trained(folder: Path, made: Callable[[], Any], **more: Any) -> Any:
    objects, step = made()
    run = colabkit.Run(folder, save_every=1, **{"progress": False, **more}, **objects)
    for _ in run.epochs(2):
        for x, y in run.batches((X, Y), batch_size=8):
            step(run, x, y)
        for x, y in run.batches((X, Y), batch_size=8):
            step(run, x, y)
    return run


@in_life
@pytest.mark.parametrize(
    ("made", "named"),
    [
        (now_and_then, "the optimizer Adam is none of the run's objects"),
        (in_the_second_pass, "the optimizer Adam is none of the run's objects"),
        (of_another_model, "the optimizer Adam is none of the run's objects"),
        (a_model, "the loop changes model, which"),
        (an_average, "the loop changes teacher.average, which"),
        (draws, "the loop changes seeds, which"),
    ],
)
def test_what_is_left_out_is_named_once_it_changes_and_ever_after(
    made: Any, named: str, tmp_path: Path
) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run = trained(tmp_path, made, progress=True)
    first, *_ = [line for line in said.getvalue().splitlines() if line.startswith("Resume is")]
    assert first.startswith("Resume is exact")
    (reason,) = run.verdict.reasons
    assert named in reason
    assert f"Resume is approximate: {reason}." in said.getvalue()
    objects, _ = made()
    assert colabkit.Run(tmp_path, progress=False, **objects).verdict.reasons == (reason,)


def nothing_but_what_is_passed() -> Any:
    """Beside it what an earlier cell has trained, and is asked, evaluated and printed."""
    import keras

    old, model = tiny(), tiny()
    old.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    old.train_on_batch(X, Y)
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    own, average = Saved(model), Teacher(model)
    mean, checked = keras.metrics.Mean(), keras.metrics.Mean()

    def step(run: Any, x: Any, y: Any) -> None:
        old.evaluate(x, np.argmax(old(x), axis=-1), verbose=0)
        mean.update_state(model.train_on_batch(x, y))
        own.follow(model)
        average.follow(model)
        if run.batch == 3:
            print(float(mean.result()))
            mean.reset_state()
            checked.update_state(loss_of(model, x, y))
            run.log(checked=float(checked.result()))
            checked.reset_state()

    return {"model": model, "own": own, "state": average.average}, step


@in_life
def test_what_is_passed_or_not_trained_is_not_named(tmp_path: Path) -> None:
    run = trained(tmp_path, nothing_but_what_is_passed)
    assert str(run.verdict).startswith("Resume is exact"), run.verdict


@in_life
def test_a_probe_that_each_epoch_makes_again_is_not_named(tmp_path: Path) -> None:
    model = tiny()
    model.compile("sgd", "mse")
    run = colabkit.Run(tmp_path, progress=False, save_every=1, model=model)
    for _ in run.epochs(3):
        for x, y in run.batches((X, Y), batch_size=8):
            model.train_on_batch(x, np.eye(3)[y])
        probe = tiny()
        probe.compile("adam", "mse")
        print(probe.train_on_batch(X, model.predict(X, verbose=0)))
    assert run.verdict.reasons == ()


@in_life
@pytest.mark.parametrize("kind", ["a metric", "one of a dict", "in a compiled step", "a plateau"])
def test_what_sets_the_rate_is_named_before_the_first_step(kind: str, tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    model, optimizer = tiny(), keras.optimizers.SGD(0.1)
    model.compile(optimizer)
    mean, means = keras.metrics.Mean(), {"loss": keras.metrics.Mean()}
    plateau, inner = keras.callbacks.ReduceLROnPlateau("loss"), trained_with(model, optimizer)
    plateau.set_model(model)

    @tf.function
    def compiled(x: Any, y: Any) -> None:
        mean.update_state(inner(x, y))

    run = colabkit.Run(tmp_path, progress=False, model=model, optimizer=optimizer)
    for epoch in run.epochs(2):
        loss = 0.0
        if kind == "a metric":
            for x, y in run.batches((X, Y), batch_size=8):
                mean.update_state(inner(x, y))
                optimizer.learning_rate = 0.1 * float(mean.result())
        elif kind == "one of a dict":
            for x, y in run.batches((X, Y), batch_size=8):
                means["loss"].update_state(inner(x, y))
                optimizer.learning_rate = 0.1 * float(means["loss"].result())
        elif kind == "in a compiled step":
            for x, y in run.batches((X, Y), batch_size=8):
                compiled(x, y)
            optimizer.learning_rate = 0.1 * float(mean.result())
        else:
            for x, y in run.batches((X, Y), batch_size=8):
                loss = float(inner(x, y))
        plateau.on_epoch_end(epoch, {"loss": loss})
    names = {"one of a dict": "means", "a plateau": "plateau.wait"}
    assert run.history.verdict is not None
    assert any(names.get(kind, "mean") in each for each in run.history.verdict.reasons)


@pytest.mark.in_nursery("on_torch")
def test_another_model_trained_on_batches_on_pytorch_is_named(tmp_path: Path) -> None:
    def made() -> Any:
        model, other = tiny(), tiny()
        model.compile("sgd", "mse")
        other.compile("adam", "mse")

        def step(run: Any, x: Any, y: Any) -> None:
            other.train_on_batch(x, model.train_on_batch(x, np.eye(3)[y]) * np.eye(3)[y])

        return {"model": model}, step

    reasons = trained(tmp_path, made).verdict.reasons
    assert any("the optimizer Adam is none of the run's objects" in each for each in reasons)
    assert any("the loop changes other, which" in each for each in reasons)
