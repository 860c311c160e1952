"""Whatever Keras' own fit takes, ours takes, and ends with the same bits."""

from __future__ import annotations

import contextlib
import io
import random
import threading
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from numpy.random import normal

import colabkit
from colabkit.errors import ArgumentError
from tests.abilities import package
from tests.keras.lives import needs_keras
from tests.keras.plain_fit import SAMPLES, Case, arrays, check_as_plain_fit, network, rising

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


def batches(size: int = 8) -> list[Any]:
    x, y = arrays()
    return [(x[n : n + size], y[n : n + size]) for n in range(0, SAMPLES, size)]


def pipeline(*, unknown: bool = False) -> Any:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(arrays())
    return (data.filter(lambda x, y: True) if unknown else data).batch(8)


def counting(*, hooks: bool = True) -> Any:
    """A PyDataset whose batches tell how often its hooks were called before."""
    import keras

    class Counting(keras.utils.PyDataset):
        begun = ended = 0

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            x, y = batches()[index]
            return x * np.float32(1 + self.begun + 0.1 * self.ended), y

        def on_epoch_begin(self) -> None:
            self.begun += hooks

        def on_epoch_end(self) -> None:
            self.ended += hooks

    return Counting()


def forever(size: int = 8) -> Any:
    while True:
        yield from batches(size)


def the_same_forever() -> Any:
    while True:
        yield batches()[1]


def weighted() -> Any:
    for x, y in batches():
        yield x, y, np.linspace(0.1, 2, len(x)).astype("float32")


DATA: dict[str, Callable[[], Case]] = {
    "generators without an end": lambda: {
        "data": forever(),
        "steps_per_epoch": 4,
        "validation_data": the_same_forever(),
        "validation_steps": 2,
    },
    "a generator of weights": lambda: {"data": weighted(), "steps_per_epoch": 3, "epochs": 2},
    "steps that do not divide arrays": lambda: {"data": arrays(), "steps_per_epoch": 4},
    "more steps than arrays have": lambda: {"data": arrays(), "steps_per_epoch": 9},
    "steps that do not divide a pipeline": lambda: {"data": pipeline(), "steps_per_epoch": 4},
    "steps of a pipeline of unknown length": lambda: {
        # At an end that Keras does not foresee, its own optimizer counts a step that never was.
        "model": network(optimizer="sgd"),
        "compares_weights_alone": True,
        "data": pipeline(unknown=True),
        "steps_per_epoch": 4,
        "epochs": 4,
    },
    "steps of a pipeline without an end": lambda: {
        "data": pipeline().repeat(),
        "steps_per_epoch": 4,
    },
    "a PyDataset with hooks": lambda: {"data": counting(), "validation_data": counting()},
    "steps of PyDatasets": lambda: {
        # Keras reads the training data ahead of its hooks.
        "data": counting(hooks=False),
        "steps_per_epoch": 4,
        "validation_data": counting(),
        "validation_steps": 2,
        "validation_freq": 2,
        "epochs": 4,
    },
    "PyDatasets counted from an epoch": lambda: {
        "data": counting(),
        "validation_data": counting(),
        "validation_freq": 2,
        "initial_epoch": 3,
        "epochs": 6,
    },
    "generators counted from an epoch": lambda: {
        "data": forever(),
        "steps_per_epoch": 4,
        "validation_data": the_same_forever(),
        "validation_steps": 2,
        "initial_epoch": 2,
        "epochs": 4,
    },
    "validation arrays in a list": lambda: {"data": arrays(), "validation_data": [*arrays()]},
    "some of the validation arrays": lambda: {
        "data": arrays(),
        "validation_data": arrays(),
        "validation_steps": 3,
        "validation_batch_size": 5,
    },
    "more validation steps than there are": lambda: {
        "data": arrays(),
        "validation_data": pipeline(unknown=True),
        "validation_steps": 9,
    },
    "some of an endless validation pipeline": lambda: {
        "data": arrays(),
        "validation_data": pipeline().repeat(),
        "validation_steps": 3,
        "validation_freq": [1, 3],
    },
    "four steps an execution of unknown length": lambda: {
        "data": pipeline(unknown=True),
        "model": network(steps_per_execution=4),
        "validation_data": pipeline(unknown=True),
    },
}


def dense(size: int, name: str) -> Any:
    import keras

    return keras.layers.Dense(size, name=name)


def of_two_inputs() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    wide, deep = keras.Input((6,)), keras.Input((3,))
    model = keras.Model([wide, deep], dense(1, "out")(keras.layers.concatenate([wide, deep])))
    model.compile("sgd", "mse")
    return model


def of_two_outputs() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    seen = keras.Input((6,))
    model = keras.Model(seen, [dense(3, "kind")(seen), dense(1, "size")(seen)])
    model.compile("sgd", ["mse", "mae"], metrics=[["mae"], ["mse"]])
    return model


def of_sparse() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    seen = keras.Input((6,), sparse=True)
    model = keras.Model(seen, dense(3, "kind")(seen))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def of_text() -> Any:
    import keras

    keras.utils.set_random_seed(11)
    words = keras.layers.TextVectorization(vocabulary=[f"word{n}" for n in range(7)])
    inner = [keras.layers.Embedding(9, 4), keras.layers.GlobalAveragePooling1D()]
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, *inner, dense(3, "kind")])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def rebuilding() -> Any:
    import keras

    class Rebuilding(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(6)

        def call(self, x: Any) -> Any:
            rebuilt = self.dense(x)
            self.add_loss(keras.ops.mean((rebuilt - x) ** 2))
            return rebuilt

    keras.utils.set_random_seed(11)
    model = Rebuilding()
    model.compile("adam")
    return model


def mostly_zero() -> np.ndarray:
    return np.maximum(arrays()[0], 0)


def of_scipy() -> Any:
    from scipy import sparse

    return sparse.coo_array(mostly_zero().astype("float64"))


def sparse_tensor() -> Any:
    import tensorflow as tf

    return tf.sparse.from_dense(mostly_zero())


def strings() -> Any:
    import tensorflow as tf

    return tf.constant([[f"word{n % 7} word{n % 5}"] for n in range(SAMPLES)])


def frames() -> Any:
    import pandas

    return pandas.DataFrame(arrays()[0], columns=list("abcdef")), pandas.Series(arrays()[1])


def loader() -> Any:
    import torch
    from torch.utils import data as torch_data

    tensors = map(torch.from_numpy, arrays())
    return torch_data.DataLoader(torch_data.TensorDataset(*tensors), batch_size=8)


def listed_callbacks() -> list[Any]:
    import keras

    kinds = keras.callbacks
    return [
        kinds.LearningRateScheduler(lambda epoch, rate: rate * 0.7),
        kinds.ReduceLROnPlateau("val_loss", patience=0, min_delta=1, factor=0.5),
        kinds.TerminateOnNaN(),
        kinds.EarlyStopping("val_loss", patience=2, min_delta=1, restore_best_weights=True),
    ]


def resetting() -> Any:
    from tests.keras.cases import Resetting  # only in the process that the test runs in

    return Resetting()


def parts() -> dict[str, np.ndarray]:
    x, _ = arrays()
    return {"x": x, "deep": x[:, :3], "size": x[:, :1]}


SHAPES: dict[str, Callable[[], Case]] = {
    "a list of inputs": lambda: {
        "model": of_two_inputs(),
        "data": ([parts()["x"], parts()["deep"]], parts()["size"]),
        "validation_split": 0.25,
    },
    "a list of targets": lambda: {
        "model": of_two_outputs(),
        "data": (parts()["x"], [parts()["deep"], parts()["size"]]),
        "validation_data": (parts()["x"], [parts()["deep"], parts()["size"]]),
    },
    "a list of weights": lambda: {
        "model": of_two_outputs(),
        "data": (
            parts()["x"],
            [parts()["deep"], parts()["size"]],
            [rising(), rising(down=True)],
        ),
    },
    "weights for validation too": lambda: {
        "data": (*arrays(), rising()),
        "validation_data": (*arrays(), rising(down=True)),
    },
    "SciPy's sparse arrays": lambda: {"model": of_sparse(), "data": (of_scipy(), arrays()[1])},
    "sparse tensors": lambda: {"model": of_sparse(), "data": (sparse_tensor(), arrays()[1])},
    "strings": lambda: {"model": of_text(), "data": (strings(), arrays()[1])},
    "no targets": lambda: {
        "model": rebuilding(),
        "data": (parts()["x"], None),
        "validation_data": (parts()["x"], None),
    },
    "inputs alone": lambda: {"model": rebuilding(), "data": parts()["x"]},
    "tables": lambda: {"data": frames(), "validation_split": 0.2, "class_weight": {0: 0.5, 2: 3}},
    "some batches of a DataLoader": lambda: {
        "data": loader(),
        "steps_per_epoch": 4,
        "validation_data": loader(),
        "validation_steps": 2,
    },
    "batches of no given size": lambda: {"data": arrays(), "batch_size": None},
    "callbacks of many kinds": lambda: {
        "data": arrays(),
        "validation_data": arrays(),
        "epochs": 5,
        "callbacks": listed_callbacks(),
    },
    "metrics that a callback resets": lambda: {"data": arrays(), "callbacks": [resetting()]},
    "class weights of a PyDataset": lambda: {
        "data": counting(hooks=False),
        "class_weight": {0: 0.5, 1: 1.0, 2: 3.0},
    },
}


# Keras came to end epochs and to begin validations as it does now.
OTHERWISE_BEFORE = {
    "PyDatasets counted from an epoch",
    "a PyDataset with hooks",
    "four steps an execution of unknown length",
    "more steps than arrays have",
    "some batches of a DataLoader",
    "some of an endless validation pipeline",
    "some of the validation arrays",
    "steps of PyDatasets",
    "steps that do not divide a pipeline",
    "steps that do not divide arrays",
}
NEEDED = {"tables": "pandas", "SciPy's sparse arrays": "scipy", "sparse tensors": "scipy"}


def is_older_keras() -> bool:
    try:
        major, minor, *_ = metadata.version("keras").split(".")
    except metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) < (3, 11)


def with_marks(name: str) -> Any:
    marks = [pytest.mark.needs(package(NEEDED[name]))] if name in NEEDED else []
    if name in OTHERWISE_BEFORE:
        marks.append(pytest.mark.skipif(is_older_keras(), reason="this Keras did otherwise"))
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [with_marks(name) for name in (*DATA, *SHAPES)])
def test_data_of_every_kind_gives_the_bits_of_keras_own_fit(name, tmp_path):
    check_as_plain_fit((DATA | SHAPES)[name], tmp_path)


def twice() -> Any:
    yield from batches()
    yield from batches()


RUNS_OUT: dict[str, tuple[Callable[[], Any], list[int], str]] = {
    "a generator": (twice, [6, 12], "epoch 3 got no batch"),
    "a generator in mid-epoch": (lambda: iter(batches()[:4] + batches()), [6, 10], "4 of 6 steps"),
    "a function": (lambda: batches, [6, 12, 18, 24], ""),
    "a pipeline of unknown length": (lambda: pipeline(unknown=True), [6, 12, 18, 24], ""),
    "a pipeline that is too short": (
        lambda: pipeline(unknown=True).take(4),
        [4, 8, 12, 16],
        "4 of 6 steps",
    ),
    "arrays that are too short": (
        lambda: tuple(a[:20] for a in arrays()),
        [3, 6, 9, 12],
        "3 of 6 steps",
    ),
}


@pytest.mark.parametrize("name", RUNS_OUT)
def test_no_epoch_is_made_of_no_batch_where_the_data_runs_out(name, tmp_path):
    make, steps, said = RUNS_OUT[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        given = {"epochs": 4, "steps_per_epoch": 6, "monitor": "loss", "keep": 9}
        history = colabkit.fit(network(), make(), tmp_path, batch_size=8, progress=False, **given)
    warned = [str(w.message) for w in caught if "ran out of data" in str(w.message)]
    assert [row["step"] for row in history.epochs] == steps
    assert [row["epoch"] for row in history.epochs] == list(range(len(steps)))
    assert all(row["loss"] > 0 for row in history.epochs)
    assert any(said in words for words in warned) if said else not warned
    assert colabkit.checkpoints(tmp_path)[0].step == steps[-1]


def test_a_training_whose_data_ran_out_goes_on_when_there_is_more(tmp_path):
    given = {"epochs": 4, "steps_per_epoch": 6, "progress": False}
    alone, resumed = network(), network()
    colabkit.fit(alone, forever(), tmp_path / "alone", **given)
    with pytest.warns(UserWarning, match="ran out of data"):
        colabkit.fit(network(), twice(), tmp_path / "run", **given)
    history = colabkit.fit(resumed, forever(), tmp_path / "run", **given)
    assert [row["step"] for row in history.epochs] == [6, 12, 18, 24]
    for a, b in zip(alone.get_weights(), resumed.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_validation_without_a_batch_reports_nothing(tmp_path):
    given = {"epochs": 3, "validation_steps": 6, "progress": False}
    with pytest.warns(UserWarning, match="validation data ran out after epoch 3: 0 of 6"):
        history = colabkit.fit(
            network(), arrays(), tmp_path, validation_data=twice(), monitor="val_loss", **given
        )
    values = history.history["val_loss"]
    assert values[0] > values[1] > 0
    assert np.isnan(values[2])
    assert next(c.epoch for c in colabkit.checkpoints(tmp_path) if c.is_best) == 2


def test_a_list_of_batches_is_no_list_of_inputs(tmp_path):
    history = colabkit.fit(network(), batches(), tmp_path, progress=False)
    assert [row["step"] for row in history.epochs] == [6]


def test_a_fit_that_trains_by_itself_is_told_apart(tmp_path):
    import keras

    class Alone(keras.Model):
        def fit(self, x: Any, y: Any = None, **options: Any) -> None:
            raise AssertionError

    model = Alone()
    model.compile("adam", "mse")
    with pytest.raises(ArgumentError, match="does not call Keras' fit") as caught:
        colabkit.fit(model, arrays(), tmp_path, progress=False)
    assert "colabkit.Run" in caught.value.hint


def test_rows_of_a_log_are_kept_over_a_resume(tmp_path):
    import keras

    log = tmp_path / "log.csv"
    colabkit.fit(
        network(),
        arrays(),
        tmp_path / "run",
        epochs=2,
        progress=False,
        callbacks=[keras.callbacks.CSVLogger(str(log))],
    )
    # As if killed between the row of an epoch and its checkpoint, and in the number of another.
    log.write_text(log.read_text() + "2,0.5,0.5\n1")
    colabkit.fit(
        network(),
        arrays(),
        tmp_path / "run",
        epochs=4,
        progress=False,
        callbacks=[keras.callbacks.CSVLogger(str(log))],
    )
    rows = [line.split(",") for line in log.read_text().splitlines()]
    assert [row[0] for row in rows] == ["epoch", "0", "1", "2", "3"]
    assert len({len(row) for row in rows}) == 1


def test_names_of_a_log_that_are_torn_are_written_anew(tmp_path):
    import keras

    log, given = tmp_path / "log.csv", {"epochs": 1, "progress": False}
    colabkit.fit(network(), arrays(), tmp_path / "run", max_steps=1, **given)
    log.write_text("epoch,acc")
    logger = keras.callbacks.CSVLogger(str(log))
    colabkit.fit(network(), arrays(), tmp_path / "run", callbacks=[logger], **given)
    rows = [line.split(",") for line in log.read_text().splitlines()]
    assert [row[0] for row in rows] == ["epoch", "0"]


def test_the_history_knows_what_that_of_keras_does(tmp_path):
    given = {"epochs": 2, "batch_size": 8}
    expected = network().fit(*arrays(), verbose=2, **given)
    history = colabkit.fit(network(), arrays(), tmp_path, verbose=2, progress=False, **given)
    assert history.epoch == expected.epoch
    assert history.params == expected.params


def test_an_epoch_goes_on_with_lines_of_its_own(tmp_path):
    given = {"epochs": 2, "batch_size": 8, "verbose": 2, "save_every": 1}
    colabkit.fit(network(), arrays(), tmp_path, max_steps=8, **given)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        colabkit.fit(network(), arrays(), tmp_path, **given)
    assert "Epoch 2/2" in said.getvalue()
    assert "6/6" in said.getvalue()


def meeting(*, workers: int) -> Any:
    """A PyDataset whose batches 2 and 3 wait for one another, and which draws everywhere."""
    import keras

    together, opened = threading.Barrier(2 if workers > 1 else 1), []

    class Meeting(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=workers)
            self.own = np.random.default_rng(3)
            self.opened: Any = None

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            x, y = batches()[index]
            if index == 3:  # as a file that is opened when it is needed
                self.opened = self.opened or opened.append(index) or opened
            shift = np.random.rand() + random.random()
            if index in (2, 3):
                together.wait(300)
            return (x * shift + shuffle_up(6) * self.own.random()).astype("float32"), y

    return Meeting()


def shuffle_up(size: int) -> np.ndarray:
    return normal(size=size) + np.random.mtrand._rand.uniform(size=size)


def test_threads_fetch_at_a_time_what_one_fetches_alone(tmp_path):
    models = network(), network()
    for workers, model in zip((1, 2), models, strict=True):
        data = meeting(workers=workers)
        given = {"epochs": 2, "shuffle": False, "progress": False}
        history = colabkit.fit(model, data, tmp_path / str(workers), **given)
        assert history.verdict.grade.value == "exact"
        assert len(data.opened) == 1
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        assert a.tobytes() == b.tobytes()
    assert np.random.rand.__self__ is np.random.mtrand._rand


@pytest.mark.parametrize("told", [{}, {"workers": 2}], ids=["alone", "threads"])
def test_generators_that_a_dataset_makes_are_seeded_by_the_batch_that_is_fetched(told, tmp_path):
    import keras

    from colabkit.frameworks.keras.dataset_fetch import DatasetFetch

    class Noise:
        def __call__(self) -> float:
            if not hasattr(self, "own"):
                self.own = np.random.default_rng(1)
            return float(self.own.normal())

    class MadeLate(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(**told)
            self.transforms = [[Noise()], [Noise()]]

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return np.array([self.transforms[1 - index // 2][0]()])

    requests = [(10 + number, number) for number in range(4)]
    whole = list(DatasetFetch(MadeLate()).all(requests))
    for first in (1, 3):
        rest = list(DatasetFetch(MadeLate()).all(requests[first:]))
        assert rest == whole[first:]


@pytest.mark.in_nursery("on_torch")
def test_a_pipeline_gives_pytorch_the_bits_of_keras_own_fit(tmp_path):
    def make() -> Case:
        # Keras on PyTorch reads one pass more, as it builds: the order must not be drawn anew.
        shuffled = pipeline().shuffle(3, reshuffle_each_iteration=False)
        return {"data": shuffled, "validation_data": pipeline()}

    check_as_plain_fit(make, tmp_path)
