"""A Keras training that goes on reads the data that it was trained on, or says that it does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.keras.lives import needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]
STEPS_AN_EPOCH = 5

Samples = tuple[np.ndarray, np.ndarray]


def samples(seed: int = 1) -> Samples:
    x = np.random.default_rng(seed).normal(size=(40, 6)).astype("float32")
    return x, (x.sum(1) > 0).astype("int64")


def renumbered(data: Samples) -> Samples:
    return data[0], 1 - data[1]


def in_another_order(data: Samples) -> Samples:
    return data[0][::-1], data[1][::-1]


def of_another_split(data: Samples) -> Samples:
    del data
    return samples(seed=2)


def dataset(data: Samples) -> Any:
    import keras

    class Dataset(keras.utils.PyDataset):
        def __len__(self) -> int:
            return STEPS_AN_EPOCH

        def __getitem__(self, index: int) -> Samples:
            rows = slice(8 * index, 8 * index + 8)
            return data[0][rows], data[1][rows]

    return Dataset(workers=2)


def generator(data: Samples) -> Any:
    def batches() -> Any:
        for first in range(0, 40, 8):
            yield data[0][first : first + 8], data[1][first : first + 8]

    return batches


def pipeline(data: Samples) -> Any:
    import tensorflow as tf

    tf.random.set_seed(4)
    return tf.data.Dataset.from_tensor_slices(data).cache().batch(8).prefetch(2)


def shuffled(data: Samples) -> Any:
    import tensorflow as tf

    tf.random.set_seed(4)
    made = tf.data.Dataset.from_tensor_slices({"x": data[0], "y": data[1]}).shuffle(40)
    return made.map(lambda row: (row["x"], row["y"])).batch(8)


def made_anew(data: Samples) -> Any:
    return lambda: shuffled(data)


CHANGES: dict[Callable[[Samples], Samples], str] = {
    renumbered: r"another batch\[1\], and the same batch\[0\]",
    in_another_order: "other samples|another order",
    of_another_split: "other samples",
}


def network() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(folder: Path, data: Any, **more: Any) -> colabkit.History:
    more = {"epochs": 2, "progress": False, "batch_size": 8, **more}
    return colabkit.fit(more.pop("model", None) or network(), data, folder, **more)


@pytest.mark.parametrize("kind", [tuple, dataset, generator, pipeline, shuffled, made_anew])
@pytest.mark.parametrize("place", ["middle", "edge"])
def test_data_that_has_changed_ends_a_resume(kind: Any, place: str, tmp_path: Path) -> None:
    trained = {"middle": 3, "edge": STEPS_AN_EPOCH}[place]
    validation = {"validation_data": samples(seed=5)}
    fit(tmp_path, kind(samples()), max_steps=trained, **validation)
    for change, words in CHANGES.items():
        with pytest.raises(CheckpointMismatchError, match=words) as caught:
            fit(tmp_path, kind(change(samples())), **validation)
        assert "resume=False" in str(caught.value)
        assert caught.value.differences
    history = fit(tmp_path, kind(samples()), **validation)
    assert str(history.verdict).startswith("Resume is exact")
    assert len(history.epochs) == 2


@pytest.mark.parametrize("kind", [tuple, dataset, pipeline])
def test_another_validation_set_ends_a_resume(kind: Any, tmp_path: Path) -> None:
    fit(tmp_path, samples(), validation_data=kind(samples(seed=5)), max_steps=7)
    with pytest.raises(CheckpointMismatchError, match="first validation batch"):
        fit(tmp_path, samples(), validation_data=kind(samples(seed=6)))


def test_the_ways_on_that_are_named_work(tmp_path: Path) -> None:
    fit(tmp_path, samples(), max_steps=3)
    history = fit(tmp_path, samples(seed=2), data_changed="accept", max_steps=7)
    assert "not what it was" in str(history.verdict)
    assert len(fit(tmp_path, samples(seed=3), resume="weights").epochs) == 2
    assert len(fit(tmp_path, samples(seed=4), resume=False).epochs) == 2


def test_another_fold_is_not_taken_for_trained_and_goes_on_as_a_phase(tmp_path: Path) -> None:
    model = network()
    fit(tmp_path, dataset(samples()), model=model)
    for fold in (network(), model):
        with pytest.raises(CheckpointMismatchError, match="a fold, needs another folder"):
            fit(tmp_path, dataset(samples(seed=2)), model=fold)
    history = fit(tmp_path, dataset(samples(seed=2)), model=model, epochs=3)
    assert [each.epoch for each in history.phases] == [0, 2]


def test_batches_of_another_size_are_no_other_data(tmp_path: Path) -> None:
    more = {"validation_data": samples(seed=5)}
    fit(tmp_path, samples(), max_steps=3, **more)
    fit(tmp_path, samples(), batch_size=4, max_steps=8, **more)
    assert len(fit(tmp_path, samples(), batch_size=4, **more).epochs) == 2


def test_data_that_cannot_be_repeated_is_no_error(tmp_path: Path) -> None:
    import keras

    class Guessed(keras.utils.PyDataset):
        def __len__(self) -> int:
            return STEPS_AN_EPOCH

        def __getitem__(self, index: int) -> Samples:
            x, y = samples()
            return x[:8] + np.float32(os.urandom(1)[0]), y[:8]

    fit(tmp_path, Guessed(), max_steps=3)
    assert len(fit(tmp_path, Guessed()).epochs) == 2


def test_a_pipeline_that_is_read_on_in_the_same_session_is_no_error(tmp_path: Path) -> None:
    data = shuffled(samples())
    fit(tmp_path, data, max_steps=3)
    history = fit(tmp_path, data)
    assert "was read before in this session" in str(history.verdict)
    assert len(history.epochs) == 2


def test_a_loop_of_ones_own_is_told_of_other_data(tmp_path: Path) -> None:
    def loop(data: Any, stop_at: int | None = None) -> colabkit.Run:
        model = network()
        run = colabkit.Run(tmp_path, model=model, save_every=1, progress=False, max_steps=stop_at)
        for _ in run.epochs(2):
            for x, y in run.batches(data):
                run.log(**model.train_on_batch(x, y, return_dict=True))
        return run

    loop(shuffled(samples()), stop_at=3)
    with pytest.raises(CheckpointMismatchError, match="epoch 1"):
        loop(shuffled(samples(seed=2)))
    assert loop(shuffled(samples())).step == 2 * STEPS_AN_EPOCH


def test_what_a_pipeline_gives_is_taken_down_on_its_way(tmp_path: Path) -> None:
    del tmp_path  # every test in the warm process is given one
    import tensorflow as tf

    from colabkit.frameworks.batch_watches import SampledWatch
    from colabkit.frameworks.keras.tfdata_tap import may_be_read, record, tapped

    def text(number: Any) -> Any:
        sparse = tf.SparseTensor([[0, 0]], [number], [1, 1])
        return {"b": tf.as_string(number), "a": (number, sparse)}

    plain = tf.data.Dataset.range(40).map(text)
    watch = SampledWatch(record, first=3)
    assert tapped(plain, watch, first=0).element_spec == plain.element_spec
    assert len(list(tapped(plain.skip(3), watch, first=3))) == 37
    for number, done in ((16, 17), (32, 40)):
        kept = watch.kept(0, done, ())
        assert kept is not None
        assert kept.number == number
        assert kept.record == record(next(iter(plain.skip(number))))
    assert watch.first is None

    once = tf.data.Dataset.range(9).shuffle(9)
    assert may_be_read(once.map(text))
    assert not may_be_read(once.shuffle(3))
    assert not may_be_read(once.cache())
