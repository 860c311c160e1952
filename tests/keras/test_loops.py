"""``Run`` around loops over Keras and TensorFlow: killed, they end with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError
from tests.keras.lives import WarmProcess, needs_jax, needs_keras, outcome

pytestmark = needs_keras
in_life = pytest.mark.in_nursery("on_tensorflow")
LOOPS = (
    "guide",
    "gan",
    "eager_module",
    "on_batch",
    "compiled_metrics",
    "scaled",
    "two_phases",
)
STEPS = 18


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_killed_twice_ends_with_the_same_bits(
    name: str, on_tensorflow: WarmProcess, tmp_path: Path
) -> None:
    killed = {"loop": name, "run": "killed"}
    assert on_tensorflow.live(tmp_path, {"loop": name, "run": "alone"})
    for step in (2, 9):
        assert not on_tensorflow.live(tmp_path, {**killed, "kill_at_step": step})
    assert on_tensorflow.live(tmp_path, killed)
    assert outcome(tmp_path, "killed") == outcome(tmp_path, "alone")
    assert outcome(tmp_path, "alone")["step"] == STEPS
    assert outcome(tmp_path, "alone")["verdict"].startswith("Resume is exact")


def check_around(warm: WarmProcess, folder: Path) -> None:
    """Killed twice in one evaluation, in training and in an evaluation again."""
    plan = [{"around": "plain"}, {"around": "killed", "kill_at_step": 6}]
    assert not warm.live(folder, *plan)
    for step in (6, 9, 12):
        assert not warm.live(folder, {"around": "killed", "kill_at_step": step})
    assert warm.live(folder, {"around": "killed"})
    assert outcome(folder, "killed") == outcome(folder, "plain")


def test_what_stands_around_the_passes_counts_once_as_in_the_plain_loop(
    on_tensorflow: WarmProcess, tmp_path: Path
) -> None:
    check_around(on_tensorflow, tmp_path)


def test_it_counts_once_on_pytorch_too(on_torch: WarmProcess, tmp_path: Path) -> None:
    check_around(on_torch, tmp_path)


@needs_jax
def test_it_counts_once_on_jax_too(on_jax: WarmProcess, tmp_path: Path) -> None:
    check_around(on_jax, tmp_path)


@in_life
@pytest.mark.parametrize("kind", ["in a checkpoint", "by itself", "what steps hand on"])
def test_what_begins_anew_beside_the_data_is_named(kind: str, tmp_path: Path) -> None:
    import tensorflow as tf

    data = tf.data.Dataset.range(9)
    iterator, state, variable = iter(data), np.zeros(3), tf.Variable(1.0)
    checkpoint = tf.train.Checkpoint(variable=variable)
    if kind == "in a checkpoint":
        checkpoint.iterator = iterator
    run = colabkit.Run(tmp_path, progress=False, checkpoint=checkpoint)
    for _ in run.items(range(2)) if kind == "by itself" else ():
        variable.assign_add(tf.cast(next(iterator), "float32"))
    for _ in run.items(range(2)) if kind == "what steps hand on" else ():
        state = state + float(variable)
    for _ in run.items(range(2)) if kind == "in a checkpoint" else ():
        variable.assign_add(1.0)
    (reason,) = run.verdict.reasons
    said = {
        "in a checkpoint": "where checkpoint.iterator stands is in no checkpoint",
        "by itself": "the loop reads iterator on by itself",
        "what steps hand on": "the loop's state begins anew at a resume: keep it as an array",
    }
    assert reason.startswith(said[kind])


@in_life
def test_what_steps_go_by_is_named_and_what_is_shown_is_not(tmp_path: Path) -> None:
    class Trainer:
        def __init__(self, run: Any, variable: Any) -> None:
            self.run, self.variable = run, variable
            self.memory: list[Any] = []
            self.best, self.shown = 9.0, 0

        def train(self) -> None:
            for row in self.run.items(range(3)):
                self.memory.append((row, row))
                self.variable.assign_add(float(self.memory[0][0]))
                self.shown += 1
                print(self.shown)
                if float(self.variable) < self.best:
                    self.best = float(self.variable)
                    self.variable.assign(0.0)

    import tensorflow as tf

    variable = tf.Variable(1.0)
    run = colabkit.Run(tmp_path, progress=False, checkpoint=tf.train.Checkpoint(variable=variable))
    Trainer(run, variable).train()
    told = {each.split(" begins anew")[0].split()[-1] for each in run.verdict.reasons}
    assert told == {"self.memory", "self.best"}


@pytest.mark.in_nursery("on_torch")
def test_a_loop_on_pytorch_reads_what_its_loader_gives(tmp_path: Path) -> None:
    import torch

    x, y = torch.arange(12.0).reshape(6, 2), torch.arange(6) % 3
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=2)
    run = colabkit.Run(tmp_path, progress=False, model=tiny())
    read = [(type(batch), *batch) for batch in run.batches(data)]
    for (kind, a, b), other in zip(read, data, strict=True):
        assert kind is type(other)
        assert torch.equal(a, other[0])
        assert torch.equal(b, other[1])


@in_life
def test_an_optimizer_under_a_strategy_is_counted(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        model, optimizer = tiny(), keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
    step = trained_with(model, optimizer)
    run = run_over(
        tmp_path, lambda x, y: strategy.run(step, args=(x, y)), model=model, optimizer=optimizer
    )
    assert str(run.verdict).startswith("Resume is exact")


@in_life
def test_a_second_pass_that_trains_holds_nothing_of_the_first_for_long(tmp_path: Path) -> None:
    import gc

    import keras

    from colabkit.frameworks.keras.backend import Held

    model, optimizer = tiny(), keras.optimizers.Adam()
    step = trained_with(model, optimizer)
    x = np.random.default_rng(5).normal(size=(24, 6)).astype("float32")
    run = colabkit.Run(tmp_path, progress=False, save_every=None, model=model, optimizer=optimizer)
    held = []
    for _ in range(2):
        for a, b in run.batches((x, np.arange(24) % 3), batch_size=8):
            run.flush()
            gc.collect()
            held.append(any(isinstance(each, Held) for each in gc.get_objects()))
            step(a, b)
    assert held == [False, False, False, True, False, False]


@in_life
def test_a_rate_set_behind_run_is_the_checkpoints_again_and_that_is_said(tmp_path: Path) -> None:
    import contextlib
    import io

    import keras

    def rates(behind: float | None = None) -> list[float]:
        model, optimizer = tiny(), keras.optimizers.SGD(0.5)
        run = colabkit.Run(tmp_path / "run", save_every=1, model=model, optimizer=optimizer)
        if behind is not None:
            optimizer.learning_rate = behind
        found = []
        for _ in run.epochs(2):
            for _ in run.batches(np.ones((24, 6), "float32"), batch_size=8):
                found.append(float(optimizer.learning_rate))
                if behind is None and run.step == 1:
                    raise ConnectionError
        return found

    with pytest.raises(ConnectionError):
        rates()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert set(rates(0.25)) == {0.5}
    assert "comes back to what the checkpoint has: learning_rate of optimizer 0.25" in (
        said.getvalue()
    )


def tiny() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


def run_over(folder: Path, step: Any, **objects: Any) -> colabkit.Run:
    x = np.random.default_rng(5).normal(size=(24, 6)).astype("float32")
    y = np.arange(24) % 3
    run = colabkit.Run(folder, progress=False, **objects)
    for _ in run.epochs(1):
        for a, b in run.batches((x, y), batch_size=8):
            run.log(loss=step(a, b))
    return run


def loss_of(model: Any, x: Any, y: Any) -> Any:
    import keras

    found = keras.losses.sparse_categorical_crossentropy(y, model(x), from_logits=True)
    return keras.ops.mean(found)


def trained_with(model: Any, optimizer: Any, *, noise: Any = None) -> Any:
    import tensorflow as tf

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(model, x if noise is None else x + noise(tf.shape(x)), y)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    return step


@in_life
def test_an_optimizer_that_nobody_passed_is_named(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    for number, compiled in enumerate((True, False)):
        model, optimizer = tiny(), keras.optimizers.Adam()
        step = trained_with(model, optimizer)
        run = run_over(tmp_path / str(number), tf.function(step) if compiled else step, model=model)
        assert "the optimizer Adam is none of the run's objects" in str(run.verdict)


@in_life
def test_draws_of_a_compiled_step_are_named_though_it_was_traced_before(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    model, optimizer = tiny(), keras.optimizers.SGD()
    step = tf.function(trained_with(model, optimizer, noise=tf.random.normal))
    for name in ("first", "second"):
        run = run_over(tmp_path / name, step, model=model, optimizer=optimizer)
        assert "a compiled step draws from tf.random" in str(run.verdict)


@in_life
def test_a_variable_that_a_compiled_step_changes_and_nobody_passed_is_named(
    tmp_path: Path,
) -> None:
    import keras
    import tensorflow as tf

    model, optimizer = tiny(), keras.optimizers.SGD()
    count, constant = tf.Variable(0.0, name="count"), tf.Variable(2.0, name="constant")
    inner = trained_with(model, optimizer)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        count.assign_add(constant)
        return inner(x, y)

    run = run_over(tmp_path, step, model=model, optimizer=optimizer)
    assert "the loop changes count, which" in str(run.verdict)


def measured() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    seen = keras.Input((6,))
    outputs = [keras.layers.Dense(3, name=name)(seen) for name in ("kind", "other")]
    model = keras.Model(seen, outputs)
    model.compile("sgd", ["mse", "mse"], metrics=[["mae"], ["mae"]])
    return model


def measured_on(model: Any) -> list[np.ndarray]:
    """Has Keras make the metrics, as a step of one's own does; returns what they hold then."""
    x = np.random.default_rng(5).normal(size=(8, 6)).astype("float32")
    y, found = [x[:, :3], x[:, 3:]], model(x)
    model.compute_loss(x, y, found)
    model.compute_metrics(x, y, found)
    return [variable.numpy() for variable in model.metrics_variables]


def set_back_at_once(model: Any) -> None:
    model.reset_metrics()


def set_back_one_by_one(model: Any) -> None:
    for metric in model.metrics:
        metric.reset_state()


@in_life
@pytest.mark.parametrize("set_back", [set_back_at_once, set_back_one_by_one, None])
def test_metrics_that_are_yet_to_be_made_can_be_set_back(set_back: Any, tmp_path: Path) -> None:
    del tmp_path
    from colabkit.frameworks.keras.late_metrics import LateMetrics

    model, fresh = measured(), measured()
    expected = measured_on(fresh)
    kept = [value + 7 for value in expected]
    LateMetrics(model).restore(kept, LateMetrics(fresh).spans())
    if set_back is not None:
        set_back(model)
    found = measured_on(model)
    went_on = [before + more for before, more in zip(kept, expected, strict=True)]
    assert np.array_equal(found, went_on if set_back is None else expected)
    for each in (model, *model.metrics):
        assert not {"reset_metrics", "reset_state"} & set(vars(each))


@in_life
def test_metrics_are_made_for_a_resume_that_reads_them_before_its_first_step(
    tmp_path: Path,
) -> None:
    import json

    from colabkit.frameworks.keras.late_metrics import LateMetrics

    del tmp_path
    model, then = measured(), measured()
    kept = LateMetrics(then)
    values = measured_on(then)
    late = LateMetrics(model)
    late.make(json.loads(json.dumps(kept.made_for())))
    late.restore(values, kept.spans())
    assert late.made_for() == kept.made_for()
    assert len(values) == len(model.metrics_variables) > 2
    found, expected = (
        {name: float(value) for name, value in each.get_metrics_result().items()}
        for each in (model, then)
    )
    assert found == expected


@in_life
def test_what_has_no_state_is_still_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    for wrong in (tf.data.Dataset.range(3), object(), [object()], tf.constant(1.0)):
        with pytest.raises(ArgumentError) as caught:
            colabkit.Run(tmp_path / "run", model=tiny(), wrong=wrong)
        assert caught.value.argument == "wrong"
    import keras

    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    for each in (unbuilt, keras.layers.Dense(3)):
        with pytest.raises(ArgumentError, match="no weights yet"):
            colabkit.Run(tmp_path / "other", model=each)
    colabkit.Run(tmp_path / "other", model=tiny(), layer=keras.layers.Dropout(0.1), progress=False)


@in_life
def test_loaded_preprocessing_is_as_keras_own_loading_makes_it(tmp_path: Path) -> None:
    import keras

    x = np.random.default_rng(5).normal(size=(64, 4)).astype("float32") * 100 + 500

    def build(adapted_to: np.ndarray) -> Any:
        keras.utils.set_random_seed(1)
        norm = keras.layers.Normalization()
        norm.adapt(adapted_to)
        model = keras.Sequential([keras.Input((4,)), norm, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    trained = build(x)
    colabkit.fit(trained, (x, x[:, :1]), tmp_path / "run", progress=False)
    trained.save_weights(tmp_path / "own.weights.h5")
    other, ours = build(x * 2), build(x * 2)
    ours.predict(x, verbose=0)  # what was traced has the other mean built in
    other.load_weights(tmp_path / "own.weights.h5")
    colabkit.load(ours, tmp_path / "run")
    assert np.array_equal(ours.predict(x, verbose=0), other.predict(x, verbose=0))
    assert np.array_equal(ours.predict(x, verbose=0), trained.predict(x, verbose=0))
    with pytest.raises(ArgumentError, match="no weights yet"):
        colabkit.load(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "run")
    resumed = build(x * 2)
    colabkit.fit(resumed, (x, x[:, :1]), tmp_path / "run", progress=False)
    assert np.array_equal(resumed.predict(x, verbose=0), trained.predict(x, verbose=0))


@in_life
def test_vocabularies_and_bins_come_back_with_the_weights(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    texts = np.array(["a b c", "b c d", "c d e f"])

    def build(words: list[str], edges: list[float]) -> Any:
        keras.utils.set_random_seed(1)
        vectors = keras.layers.TextVectorization(output_sequence_length=4)
        vectors.adapt(words)
        bins = keras.layers.Discretization(num_bins=3)
        bins.adapt(np.array(edges))
        text = keras.Input((1,), dtype="string")
        number = keras.Input((1,))
        embedded = keras.layers.Embedding(20, 2)(vectors(text))
        reshape = keras.layers.Reshape  # Keras 3.8 flattens nothing of unknown length
        both = [reshape((8,))(embedded), reshape((1,))(bins(number))]
        model = keras.Model([text, number], keras.layers.Dense(1)(keras.layers.concatenate(both)))
        model.compile("sgd", "mse")
        return model

    numbers, y = np.array([[1.0], [5.0], [9.0]]), np.ones((3, 1), "float32")
    data = tf.data.Dataset.from_tensor_slices(((texts[:, None], numbers), y)).batch(3)
    trained = build(list(texts), [1.0, 2.0, 5.0, 7.0, 9.0, 12.0])
    colabkit.fit(trained, data, tmp_path, progress=False)
    fresh = build(["z y x w", "v u"], [100.0, 200.0, 300.0])
    colabkit.load(fresh, tmp_path)
    assert np.array_equal(fresh.predict(data, verbose=0), trained.predict(data, verbose=0))
