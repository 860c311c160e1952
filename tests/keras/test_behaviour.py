"""What fit does for a Keras user beyond the contract: Keras' words, and honest ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError, DivergedError
from tests.keras.lives import ROOT, environment, needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]
SAMPLES = 44


def arrays() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(5).normal(size=(SAMPLES, 6)).astype("float32")
    return x, (x.sum(1) > 0).astype("int64") + (x[:, 0] > 1)


def network(**compiled: Any) -> Any:
    import keras

    keras.utils.set_random_seed(11)
    layers = [keras.layers.Dense(12, "relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"loss": loss, "optimizer": "adam", "metrics": ["accuracy"], **compiled})
    return model


def fit(model: Any, data: Any, folder: Any, **more: Any) -> colabkit.History:
    return colabkit.fit(model, data, folder, **{"batch_size": 8, "progress": False, **more})


COMPILED = {
    "as it is": ({}, {}),
    "four steps an execution": ({"steps_per_execution": 4}, {}),
    "compiled by XLA": ({"jit_compile": True}, {}),
    "run eagerly": ({"run_eagerly": True}, {}),
    "class weights": ({}, {"class_weight": {0: 0.5, 1: 1.0, 2: 3.0}}),
    "sample weights": ({}, {"sample_weight": np.linspace(0.1, 2, SAMPLES).astype("float32")}),
    "a split": ({}, {"validation_split": 0.25}),
    "steps in an epoch": ({}, {"steps_per_epoch": 4}),
    "validation at times": ({}, {"validation_split": 0.25, "validation_freq": 2}),
}


@pytest.mark.parametrize("name", COMPILED)
def test_nothing_is_added_to_the_arithmetic_of_keras_own_fit(name, tmp_path):
    compiled, given = COMPILED[name]
    plain, ours = network(**compiled), network(**compiled)
    given = {"epochs": 2, "batch_size": 8, "shuffle": False, **given}
    if "steps_per_epoch" in given:
        given["epochs"] = 1
    expected = plain.fit(*arrays(), verbose=0, **given)
    if "validation_freq" in given:
        given["eval_every"] = given.pop("validation_freq")
        given["callbacks"] = [colabkit.EarlyStopping("val_loss")]
    history = fit(ours, arrays(), tmp_path, **given)
    for a, b in zip(plain.get_weights(), ours.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    for metric, values in expected.history.items():
        found = [value for value in history.history[metric] if not np.isnan(value)]
        assert found == values, metric


def test_the_users_callbacks_see_one_training(tmp_path):
    import keras

    class Recording(keras.callbacks.Callback):
        def __init__(self, session: list[Any], stop_after: int | None = None) -> None:
            super().__init__()
            self.seen: list[Any] = []
            self.session = {"not plain, and so not kept": session}.values()
            self.stop_after = stop_after

        def note(self, event: Any) -> None:
            self.seen.append(event)
            for session in self.session:
                session.append(event)

        def on_train_begin(self, logs: Any = None) -> None:
            self.note("train")

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.note(f"epoch {epoch}")

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.note(batch)
            if len(self.seen) == self.stop_after:
                os.kill(os.getpid(), signal.SIGINT)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note(f"epoch {epoch} ends")

        def on_train_end(self, logs: Any = None) -> None:
            self.note("end")

    before: list[Any] = []
    after: list[Any] = []
    interrupted, resumed = Recording(before, stop_after=11), Recording(after)
    fit(network(), arrays(), tmp_path, epochs=2, callbacks=[interrupted])
    fit(network(), arrays(), tmp_path, epochs=2, callbacks=[resumed])
    assert before == ["train", "epoch 0", *range(6), "epoch 0 ends", "epoch 1", 0]
    rest = [1, 2, 3, 4, 5, "epoch 1 ends", "end"]
    assert after == ["train", *rest]
    # What the callback itself knew goes on: to it, there was no interruption.
    assert resumed.seen == before + rest


def test_the_loaded_weights_are_those_that_keras_saves(tmp_path):
    trained, loaded, opened = network(), network(), network()
    fit(trained, arrays(), tmp_path / "run", epochs=2)
    colabkit.load(loaded, tmp_path / "run")
    loaded.save_weights(tmp_path / "my.weights.h5")
    opened.load_weights(tmp_path / "my.weights.h5")
    for a, b in zip(trained.get_weights(), opened.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_diverged_loss_names_its_step_and_leaves_the_checkpoint(tmp_path):
    import keras

    model = network(optimizer=keras.optimizers.SGD(1e30))
    with pytest.raises(DivergedError) as caught:
        fit(model, arrays(), tmp_path, epochs=3, save_every=1)
    assert colabkit.load(network(), tmp_path).step <= caught.value.step


def test_event_files_and_loggers_are_told_for_keras_too(tmp_path):
    told: list[int] = []

    class Own:
        def log(self, values, step):
            assert values["step/loss"] > 0
            told.append(step)

    history = fit(network(), arrays(), tmp_path, tensorboard=True, logger=Own(), notify=print)
    assert list((tmp_path / "tensorboard").iterdir())
    assert told == list(range(len(history.steps["loss"])))


def not_compiled() -> dict[str, Any]:
    import keras

    return {"model": keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])}


def backup() -> dict[str, Any]:
    import keras

    return {"callbacks": [keras.callbacks.BackupAndRestore("there")]}


def callback_class() -> dict[str, Any]:
    import keras

    return {"callbacks": [keras.callbacks.EarlyStopping]}


def distributed() -> dict[str, Any]:
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        return {"model": network()}


def replicas_at_once() -> dict[str, Any]:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = network()
        model.compile("adam", model.loss, steps_per_execution=4)
        return {"model": model}


def replicas_to_an_end() -> dict[str, Any]:
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = network()
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8).filter(lambda x, y: True)
    return {"model": model, "data": data}


def of_keras_2() -> dict[str, Any]:
    # Stands for the package, which is not needed to tell its models by.
    package = type(sys)("tf_keras")
    package.Model = type("Model", (), {"__module__": "tf_keras.src.engine.training"})
    sys.modules["tf_keras"] = package
    return {"model": package.Model()}


def endless() -> dict[str, Any]:
    import tensorflow as tf

    return {"data": tf.data.Dataset.from_tensor_slices(arrays()).batch(8).repeat()}


def split_pipeline() -> dict[str, Any]:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8)
    return {"data": data, "validation_split": 0.5}


WRONG = {
    "not compiled": (not_compiled, "model", "compile"),
    "a second backup": (backup, "callbacks", "Leave it out"),
    "a callback class": (callback_class, "callbacks", "EarlyStopping()"),
    "a strategy": (distributed, "model", "MirroredStrategy"),
    "replicas with steps at once": (replicas_at_once, "model", "Leave steps_per_execution out"),
    "replicas of data without a length": (replicas_to_an_end, "data", "known cardinality"),
    "a model of Keras 2": (of_keras_2, "model", "import keras"),
    "a pipeline without an end": (endless, "steps_per_epoch", "repeat"),
    "a split of a pipeline": (split_pipeline, "validation_split", "validation_data"),
    "a loss": (lambda: {"loss": "mse"}, "loss", "compile"),
    "a device": (lambda: {"device": "cpu"}, "device", "built"),
    "a rate": (lambda: {"lr": 0.1}, "lr", "keras.optimizers"),
    "a rate by another name": (lambda: {"learning_rate": 1}, "learning_rate", "keras.optimizers"),
    "fp16": (lambda: {"fp16": True}, "fp16", "mixed_float16"),
    "groups": (
        lambda: {"accumulate_grad_batches": 4},
        "accumulate_grad_batches",
        "gradient_accumulation_steps",
    ),
    "a folder by another name": (lambda: {"output_dir": "x"}, "output_dir", "ckpt_dir='x'"),
    "parts of batches": (lambda: {"microbatch": "auto"}, "microbatch", "batch_size"),
    "a word too much": (lambda: {"sample_wieght": 1}, "sample_wieght", "sample_weight"),
    "an epoch to begin at": (lambda: {"initial_epoch": 3}, "initial_epoch", "epochs"),
    "workers": (lambda: {"workers": 4}, "workers", "PyDataset"),
    "processes": (lambda: {"use_multiprocessing": True}, "use_multiprocessing", "PyDataset"),
    "inputs by name": (lambda: {"x": arrays()[0]}, "x", "data=(x, y)"),
    "a generator for two validations": (
        lambda: {"validation_data": iter([arrays()]), "epochs": 2},
        "validation_data",
        "validation_steps",
    ),
    "steps by themselves": (
        lambda: {"model": network(steps_per_execution="auto")},
        "model",
        "whole number",
    ),
    "an odd verbose": (lambda: {"verbose": 3}, "verbose", "auto"),
    "an odd split": (lambda: {"validation_split": 1.5}, "validation_split", "between"),
    "both weights": (
        lambda: {"sample_weight": np.ones(SAMPLES), "class_weight": {0: 1.0}},
        "class_weight",
        "sample weights",
    ),
    "a generator for two epochs": (
        lambda: {"data": iter([arrays()]), "epochs": 2},
        "data",
        "function",
    ),
    "uneven arrays": (lambda: {"data": (arrays()[0], arrays()[1][:5])}, "data", "same"),
    "no samples": (lambda: {"data": (np.empty((0, 6)), np.empty(0))}, "data", "read from"),
    "batches of no known shape": (lambda: shapeless(), "data", "ensure_shape"),
    "arrays in a list": (lambda: {"data": [*arrays()]}, "data", "a tuple"),
    "four parts": (lambda: {"data": (*arrays(), *arrays())}, "data", "sample_weight"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_trained_is_said_with_the_way_on(name, tmp_path):
    make, argument, hint = WRONG[name]
    given = {"data": arrays(), **make()}
    model = given.pop("model", None) or network()
    with pytest.raises(ArgumentError) as caught:
        fit(model, given.pop("data"), tmp_path / "run", **given)
    assert caught.value.argument == argument
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists() or not colabkit.checkpoints(tmp_path / "run")


@pytest.mark.parametrize("label", [3, -2])
@pytest.mark.parametrize("is_eager", [False, True])
def test_a_class_without_an_output_is_said_in_a_sentence(is_eager, label, tmp_path):
    import tensorflow as tf

    x, y = arrays()
    y[20] = label
    plain = {"batch_size": 8, "shuffle": False, "verbose": 0}
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {label} "):
        network(run_eagerly=is_eager).fit(x, y, **plain)
    with pytest.raises(ArgumentError) as caught:
        fit(network(run_eagerly=is_eager), (x, y), tmp_path, shuffle=False)
    assert f"the class {label}, and 3 outputs, for 0 to 2" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def of_tensors(*, parallel: int | None = None, seeded: bool = True) -> Any:
    import keras
    import tensorflow as tf

    if seeded:
        keras.utils.set_random_seed(3)
    data = tf.data.Dataset.from_tensor_slices(arrays()).shuffle(20)
    noisy = data.map(lambda x, y: (x + tf.random.normal([6]) * 0.1, y), num_parallel_calls=parallel)
    return noisy.batch(8)


def unseeded() -> Any:
    import tensorflow as tf

    tf.random.set_seed(None)
    return tf.data.Dataset.from_tensor_slices(arrays()).shuffle(20).batch(8)


def python_within() -> Any:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(arrays())
    drawn = lambda: np.random.rand(6).astype("float32")  # noqa: E731
    noise = lambda: tf.ensure_shape(tf.numpy_function(drawn, [], tf.float32), [6])  # noqa: E731
    return data.map(lambda x, y: (x + noise(), y)).batch(8)


def shapeless() -> dict[str, Any]:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(arrays())
    same = lambda x, y: (tf.numpy_function(lambda a: a, [x], tf.float32), y)  # noqa: E731
    return {"data": data.map(same).batch(8)}


def unsteady() -> Any:
    x, y = arrays()
    for _ in range(4):
        yield x[:8] + np.float32(time.perf_counter_ns() % 10**9 / 1e6), y[:8]


def restless() -> Any:
    import keras

    class Restless(keras.utils.PyDataset):
        calls = 0

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            self.calls += 1
            return arrays()[0][:8] + np.float32(self.calls), arrays()[1][:8]

    return Restless()


def layered() -> Any:
    import keras
    import tensorflow as tf

    noise = keras.layers.GaussianNoise(0.1, seed=3)
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8)
    return data.map(lambda x, y: (noise(x, training=True), y))


def drawing_on() -> Any:
    import tensorflow as tf

    own = tf.random.Generator.from_seed(1)
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8)
    return data.map(lambda x, y: (x + own.normal([6]), y))


def normalised() -> Any:
    import keras
    import tensorflow as tf

    scaled = keras.layers.Normalization()
    scaled.adapt(arrays()[0])
    data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8)
    return data.map(lambda x, y: (scaled(x), y))


def test_a_layer_that_only_reads_is_exact_in_a_pipeline(tmp_path):
    assert fit(network(), normalised(), tmp_path).verdict.grade.value == "exact"


INEXACT = {
    "a random layer in a pipeline": (layered, "changes a variable"),
    "a generator in a pipeline": (drawing_on, "changes a variable"),
    "a parallel map that draws": (lambda: of_tensors(parallel=2), "no fixed order"),
    "a pipeline without a seed": (lambda: unseeded(), "no fixed seed"),
    "a generator in a pipeline that shuffles in place": (
        lambda: changing(in_pipeline=True),
        "changes rows",
    ),
    "a generator that shuffles in place": (lambda: changing(in_pipeline=False), "changes rows"),
    "Python in a pipeline": (python_within, "calls Python"),
    "an unsteady generator": (lambda: unsteady, "another first batch"),
    "a PyDataset that counts": (restless, "another batch"),
}


@pytest.mark.parametrize("name", INEXACT)
def test_what_cannot_be_exact_is_said_with_its_reason(name, tmp_path):
    make, reason = INEXACT[name]
    said = []

    def note(event: Any) -> None:
        if event.name == "batch_end" and event.step == 1:
            said.append(event.run.history.verdict)

    fit(network(), make(), tmp_path, callbacks=[note])
    assert said[0].grade.value == "approximate"
    assert any(reason in words for words in said[0].reasons), said[0].reasons


@pytest.mark.parametrize("reshuffles", [True, False])
def test_training_and_validation_out_of_one_shuffle_are_named_and_go_on(reshuffles, tmp_path):
    import keras
    import tensorflow as tf

    for given in ({"max_steps": 6}, {}):
        keras.utils.set_random_seed(1)
        mixed = tf.data.Dataset.from_tensor_slices(arrays())
        mixed = mixed.shuffle(SAMPLES, reshuffle_each_iteration=reshuffles)
        given = {"epochs": 2, "validation_data": mixed.take(8).batch(8), **given}
        history = fit(network(), mixed.skip(8).batch(8), tmp_path, **given)
        assert ("parts of one pipeline" in str(history.verdict)) is reshuffles
    assert history.epochs[-1]["epoch"] == 1


@pytest.mark.parametrize("kind", ["a PyDataset that shuffles itself", "a generator"])
def test_one_object_for_training_and_validation_is_named_and_goes_on(kind, tmp_path):
    from tests.keras.cases import Augmented, endless

    steps = {"steps_per_epoch": 5, "validation_steps": 2} if kind == "a generator" else {}
    for given in ({"max_steps": 8}, {}):
        data = endless() if steps else Augmented()
        given = {"epochs": 3, "validation_data": data, **steps, **given}
        history = fit(network(), data, tmp_path, **given)
        assert "the training and the validation data are one object" in str(history.verdict)
    assert history.epochs[-1]["epoch"] == 2


def test_one_object_that_reading_leaves_as_it_is_may_be_both(tmp_path):
    data = arrays()
    history = fit(network(), data, tmp_path, validation_data=data)
    assert history.verdict.grade.value == "exact"


def test_validation_data_that_cannot_be_exact_is_said_too(tmp_path):
    history = fit(network(), arrays(), tmp_path, validation_data=python_within())
    assert "calls Python" in str(history.verdict)


def cross_entropy(true: Any, given: Any) -> Any:
    import keras

    return keras.losses.sparse_categorical_crossentropy(true, given, from_logits=True)


def with_layer(layer: Any, **compiled: Any) -> Any:
    import keras

    layers = [keras.layers.Dense(4), layer, keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile("sgd", **{"loss": cross_entropy, **compiled})
    return model


def drawn(x: Any) -> Any:
    import tensorflow as tf

    return x + tf.random.normal(tf.shape(x))


def drawing_lambda() -> Any:
    import keras

    return with_layer(keras.layers.Lambda(drawn))


def drawing_activation() -> Any:
    import keras

    return with_layer(keras.layers.Dense(4, activation=drawn))


def drawing_in_a_branch() -> Any:
    import tensorflow as tf

    @tf.function
    def sometimes(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: drawn(x), lambda: x)

    return network(loss=lambda true, given: cross_entropy(true, sometimes(given)))


def drawing_in_a_loop() -> Any:
    import tensorflow as tf

    def often(x: Any) -> Any:
        return tf.while_loop(lambda n, _: n < 2, lambda n, v: (n + 1, drawn(v)), [0, x])[1]

    return network(loss=lambda true, given: cross_entropy(true, often(given)))


def drawing_subclass() -> Any:
    import keras

    class Noisy(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(drawn(x))

    model = Noisy()
    model.compile("sgd", cross_entropy)
    return model


def compiled_in() -> Any:
    return network(
        loss=lambda true, given: cross_entropy(true, given * np.float32(np.random.rand()))
    )


def counted() -> Any:
    import tensorflow as tf

    seen = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)

    def counting(true: Any, given: Any) -> Any:
        keys = tf.cast(tf.reshape(true, [-1]), tf.int64)
        seen.insert(keys, seen.lookup(keys) + 1)
        return cross_entropy(true, given)

    return network(loss=counting)


UNSEEN = {
    "a layer of one's own": (drawing_subclass, "SeedGenerator"),
    "a Lambda": (drawing_lambda, "tf.random"),
    "an activation": (drawing_activation, "tf.random"),
    "a branch of a loss": (drawing_in_a_branch, "tf.random"),
    "a loop of a loss": (drawing_in_a_loop, "tf.random"),
    "NumPy, once for all steps": (compiled_in, "while it is compiled"),
    "a lookup table": (counted, "lookup table"),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_step_that_draws_or_keeps_unseen_is_said_before_it_is_taken(name, tmp_path):
    make, reason = UNSEEN[name]
    said = []

    def note(event: Any) -> None:
        if event.name == "batch_end" and event.step == 1:
            said.append(str(event.run.history.verdict))

    fit(make(), arrays(), tmp_path, callbacks=[note])
    assert reason in said[0]


def test_code_of_ones_own_that_keeps_nothing_is_exact_and_adds_nothing(tmp_path):
    import keras

    class Counting(keras.layers.Layer):
        calls = 0

        def call(self, x: Any) -> Any:
            self.calls += 1
            return x

    def make() -> tuple[Any, Any]:
        keras.utils.set_random_seed(11)
        layer = Counting()
        return layer, with_layer(layer)

    (counter, plain), (ours, model) = make(), make()
    plain.fit(*arrays(), epochs=2, batch_size=8, shuffle=False, verbose=0)
    history = fit(model, arrays(), tmp_path, epochs=2, shuffle=False)
    assert history.verdict.grade.value == "exact"
    assert ours.calls <= counter.calls + 1
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_number_that_a_compiled_step_has_built_in_is_said_once_it_changes(tmp_path):
    import keras

    class Scaled(keras.layers.Layer):
        ratio = 0.9

        def call(self, x: Any) -> Any:
            return x * self.ratio

    layer = Scaled()

    class Lower(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            layer.ratio *= 0.8

    verdict = fit(with_layer(layer), arrays(), tmp_path, epochs=2, callbacks=[Lower()]).verdict
    assert "ratio changes, which the compiled step has built in" in str(verdict)


def test_a_callback_that_gathers_what_cannot_be_saved_is_named(tmp_path):
    import keras

    class Gathering(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.table: dict[int, Any] = {}

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.table[epoch] = {"loss": logs["loss"], "then": lambda: epoch}

    verdict = fit(network(), arrays(), tmp_path, epochs=2, callbacks=[Gathering()]).verdict
    assert "table changes and holds a function" in str(verdict)


def changing(*, in_pipeline: bool) -> Any:
    import tensorflow as tf

    rows = list(range(SAMPLES))

    def shuffled() -> Any:
        np.random.shuffle(rows)
        for row in rows:
            x, y = (each[row] for each in arrays())
            yield (x, y) if in_pipeline else (x[None], y[None])

    if not in_pipeline:
        return shuffled
    signature = (tf.TensorSpec((6,)), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(shuffled, output_signature=signature).batch(8)


BLOCKED = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name.partition(".")[0] in {blocked!r} else super().find_spec(name, *rest)
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
import numpy as np, tempfile, colabkit
x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
y = (x.sum(1) > 0).astype("int64")
folder = tempfile.mkdtemp(dir={folder!r})
{make}
for epochs in (1, 2):
    colabkit.fit(model, data, folder, epochs=epochs, progress=False)
assert colabkit.load(model, folder).step == 4
assert colabkit.checkpoints(folder, verify=True)[0].problem == ""
assert not set({blocked!r}) & set(sys.modules)
"""
KERAS = """
import keras
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
data = (x, y)
"""
TORCH = """
import torch
model = torch.nn.Linear(6, 2)
data = (torch.from_numpy(x), torch.from_numpy(y))
"""


class TestAlone:
    """Runs in a process of its own, where the other framework cannot be imported."""

    pytestmark = pytest.mark.in_nursery("")

    @pytest.mark.parametrize(
        ("blocked", "make", "backend"),
        [
            (["torch"], KERAS, "tensorflow"),
            (["tensorflow"], KERAS, "torch"),
            (["tensorflow", "keras"], TORCH, "torch"),
        ],
    )
    def test_neither_framework_needs_the_other(self, blocked, make, backend, tmp_path):
        code = BLOCKED.format(blocked=blocked, make=make, folder=str(tmp_path))
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment(backend),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("size", [4, 16])
def test_batches_of_another_size_go_on_at_the_same_sample(size, tmp_path):
    import keras

    seen: list[np.ndarray] = []

    class Seeing(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            seen.append(np.array(data[0]))
            return super().train_step(data)

    def train(size: int, *, until: int | None) -> None:
        def stop(event: Any) -> None:
            event.run.flush()
            if event.name == "batch_end" and event.step == until:
                raise ZeroDivisionError

        model = Seeing([keras.Input((6,)), keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, run_eagerly=True)
        data, given = tuple(part[:40] for part in arrays()), {"callbacks": [stop]}
        fit(model, data, tmp_path, batch_size=size, save_every=1, **given)

    with pytest.raises(ZeroDivisionError):
        train(8, until=4)
    assert colabkit.checkpoints(tmp_path)[0].step == 3
    train(size, until=None)  # what the model has seen comes back with it
    first, rest = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    # Where the place is within a larger batch, all of that is trained once more.
    assert 40 - len(rest) == {4: 24, 16: 16}[size]
    whole = [*first[: 40 - len(rest)], *rest]
    assert {row.tobytes() for row in whole} == {row.tobytes() for row in arrays()[0][:40]}


def test_an_epoch_that_a_resume_finds_complete_reports_what_its_last_step_said(tmp_path):
    import keras

    class Raw(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            found = super().train_step(data)
            return {"raw": 2.0 * found["loss"]}

    def trained(folder: str, **given: Any) -> Any:
        keras.utils.set_random_seed(11)
        model = Raw([keras.Input((6,)), keras.layers.Dense(3)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return fit(model, arrays(), tmp_path / folder, epochs=2, **given)

    alone = trained("alone")
    trained("run", max_steps=6)
    assert trained("run").history["raw"] == alone.history["raw"]


def test_a_callback_draws_other_numbers_at_each_step(tmp_path):
    import keras

    class Drawing(keras.callbacks.Callback):
        drawn: list[float] = []  # noqa: RUF012  # of one life

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.drawn.append(float(np.random.rand()))

    fit(network(), arrays(), tmp_path, callbacks=[Drawing()])
    assert len(set(Drawing.drawn)) == len(Drawing.drawn) > 1
