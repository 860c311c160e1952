"""A tf.data pipeline entered in any pass gives what it gives when it is read from the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]
ELEMENTS = 24


def source() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.range(ELEMENTS)


def files_of(number: Any) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.range(number * 10, number * 10 + 6)


def interleaved() -> Any:
    import tensorflow as tf

    files = tf.data.Dataset.range(4).shuffle(4)
    data = files.interleave(files_of, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE)
    return data.shuffle(16).batch(5).prefetch(tf.data.AUTOTUNE)


def joined(way: str) -> Any:
    import tensorflow as tf

    one, other = source().shuffle(9), source().shuffle(ELEMENTS)
    if way == "sampled":
        return tf.data.Dataset.sample_from_datasets([one, other], [0.3, 0.7], seed=4).batch(5)
    if way == "zipped":
        pairs = tf.data.Dataset.zip((one, other))
        return pairs.map(lambda a, b: a * 100 + b).shuffle(5).batch(5)
    return one.concatenate(other).batch(5)


def noisy(number: Any) -> Any:
    import tensorflow as tf

    return tf.cast(number, tf.float32) + tf.random.uniform([])


def generated() -> Any:
    import tensorflow as tf

    def drawn() -> Any:
        for number in np.random.permutation(ELEMENTS):
            yield number + np.random.rand()

    return tf.data.Dataset.from_generator(drawn, output_signature=tf.TensorSpec((), tf.float64))


PIPELINES: dict[str, Callable[[], Any]] = {
    "shuffled once": lambda: source().shuffle(9).batch(5),
    "shuffled twice": lambda: source().shuffle(9).batch(5).shuffle(3).prefetch(2),
    "shuffled three times": lambda: source().shuffle(9).shuffle(4).batch(5).shuffle(3),
    "shuffled, cached, shuffled": lambda: source().shuffle(9).cache().shuffle(5).batch(5),
    "shuffled files, interleaved, shuffled": interleaved,
    "shuffled and repeated": lambda: source().shuffle(9).repeat(2).batch(5),
    "shuffled, repeated, taken": lambda: source().shuffle(9).repeat().batch(5).take(4),
    "shuffled parts, concatenated": lambda: joined("concatenated"),
    "shuffled parts, concatenated, shuffled": lambda: joined("concatenated").shuffle(4),
    "shuffled parts, zipped, shuffled": lambda: joined("zipped"),
    "shuffled parts, sampled from": lambda: joined("sampled"),
    "shuffled, augmented, shuffled": lambda: source().shuffle(9).map(noisy).shuffle(4).batch(5),
    "shuffled alike in each pass": lambda: (
        source().shuffle(9, reshuffle_each_iteration=False).shuffle(4).batch(5)
    ),
}


def passes(data: Any, count: int, *, in_fit: bool = False) -> list[list[bytes]]:
    """Reads passes; Keras' own fit makes an iterator more behind each, and reads nothing of it."""
    read = []
    for _ in range(count):
        read.append([batch.numpy().tobytes() for batch in data])
        if in_fit:
            iter(data)
    return read


def made(name: str) -> Any:
    import keras

    keras.utils.set_random_seed(7)
    return PIPELINES[name]()


def entered(feed: Any, turn: int, skip: int) -> list[bytes]:
    from colabkit.frameworks.base import Start

    start = Start(key=0, epoch=turn, skip=skip)
    return [batch.numpy().tobytes() for batch in feed.batches(start)]


@pytest.mark.parametrize("in_fit", [False, True])
@pytest.mark.parametrize("name", PIPELINES)
def test_a_pass_entered_anywhere_is_that_of_the_plain_pipeline(name, in_fit, tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    plain = passes(made(name), 3, in_fit=in_fit and int(made(name).cardinality()) >= 0)
    assert len({tuple(each) for each in plain}) > 1
    for turn, skip in [(0, 2), (1, 1), (2, 3)]:
        feed = TfDataFeed(made(name), seed=5, as_keras_fit=in_fit)
        assert entered(feed, turn, skip) == plain[turn][skip:]
        if turn == 1:
            assert entered(feed, 2, 0) == plain[2]
        assert feed.reasons() == ()


@pytest.mark.parametrize("name", ["shuffled twice", "shuffled and repeated"])
def test_a_pass_that_is_over_has_drawn_for_the_next(name, tmp_path):
    from colabkit.frameworks.base import Start
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    plain = passes(made(name), 3)
    feed = TfDataFeed(made(name), seed=5)
    feed.iterator(Start(key=0, epoch=1, skip=len(plain[1])))
    assert entered(feed, 2, 0) == plain[2]


def looked_at(feed: Any, turn: int, skip: int, *, goes_on: bool = True) -> bytes:
    from colabkit.frameworks.base import Start

    return next(feed.again(Start(key=0, epoch=turn, skip=skip), goes_on=goes_on)).numpy().tobytes()


@pytest.mark.parametrize(("look", "skip"), [(0, 1), (0, 3), (2, 3)])
def test_a_pass_that_was_looked_into_is_gone_on_with(look, skip, tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    plain = passes(made("shuffled once"), 3)
    feed = TfDataFeed(made("shuffled once"), seed=5)
    assert looked_at(feed, 1, look) == plain[1][look]
    assert entered(feed, 1, skip) == plain[1][skip:]
    assert entered(feed, 2, 0) == plain[2]
    assert feed.reasons() == ()


def test_a_look_into_another_pass_is_not_gone_on_with(tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    plain = passes(made("shuffled once"), 2)
    feed = TfDataFeed(made("shuffled once"), seed=5)
    assert looked_at(feed, 0, 0, goes_on=False) == plain[0][0]
    assert entered(feed, 1, 1) == plain[1][1:]
    assert feed.reasons() == ()


def test_an_order_that_was_looked_into_further_on_cannot_come_again(tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    for name, data in [("shuffled once", made("shuffled once")), ("", source().batch(5))]:
        feed = TfDataFeed(data, seed=5)
        first = looked_at(feed, 0, 2)
        assert len(again := entered(feed, 0, 0)) == 5
        assert ("cannot come again" in str(feed.reasons())) is bool(name)
        assert name or again[2] == first
        assert feed.drawn == (2 if name else 0)


def test_what_a_function_makes_draws_by_the_pass(tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    def feed() -> Any:
        return TfDataFeed(lambda: generated().batch(5), seed=5)

    alone, resumed = feed(), feed()
    whole = [entered(alone, turn, 0) for turn in range(2)]
    assert whole[0] != whole[1]
    np.random.rand(3)
    alone.close()
    assert entered(resumed, 1, 2) == whole[1][2:]
    assert resumed.reasons() == ()
    resumed.close()


def test_what_a_generator_draws_follows_from_the_pass_and_the_element(tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    def feed() -> Any:
        return TfDataFeed(generated().repeat(2).batch(5).prefetch(2), seed=5)

    alone = feed()
    whole = [entered(alone, turn, 0) for turn in range(3)]
    alone.close()
    assert len({batch for each in whole for batch in each}) == sum(map(len, whole))
    for turn in (1, 2):
        resumed = feed()
        assert entered(resumed, turn, 2) == whole[turn][2:]
        assert resumed.reasons() == ()
        resumed.close()


def test_a_callback_may_read_a_pipeline_that_is_trained_on(tmp_path):
    import keras

    import colabkit
    from tests.keras.cases import BATCH, network
    from tests.keras.tf_cases import of_a_generator

    data, shown = of_a_generator(), []

    class Showing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            shown.extend(x for x, _ in data.take(2))

    options = {"epochs": 2, "batch_size": BATCH, "progress": False}
    colabkit.fit(network(), data, tmp_path, callbacks=[Showing()], **options)
    assert len(shown) == 4


def test_what_is_read_in_mid_pass_has_keras_own_order_and_later_sessions_draw_it(tmp_path):
    import keras

    from colabkit.frameworks.base import Start
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    def shuffled() -> Any:
        keras.utils.set_random_seed(7)
        return source().shuffle(ELEMENTS).batch(5)

    def read(data: Any, batches: Any, turn: int) -> list[bytes]:
        order = [next(batches)]
        if turn == 2:
            order.append(next(iter(data)))  # a callback's
        return [batch.numpy().tobytes() for batch in (*order, *batches)]

    data, plain = shuffled(), []
    for turn in range(4):
        plain.append(read(data, iter(data), turn))
        iter(data)
    data = shuffled()
    feed = TfDataFeed(data, seed=5, as_keras_fit=True)
    with feed.noting_readers():
        for turn in range(3):
            start = Start(key=0, epoch=turn)
            feed.expect(start)
            assert read(data, iter(feed.batches(start)), turn) == plain[turn]
            feed.end_pass()
    later = TfDataFeed(shuffled(), seed=5, as_keras_fit=True)
    later.readers.restore(feed.readers.state())
    assert entered(later, 3, 1) == plain[3][1:]


def test_a_users_pipeline_and_streams_are_as_they_were_afterwards(tmp_path):
    from colabkit.frameworks.keras.tfdata_feed import TfDataFeed

    data = generated().batch(5)
    np.random.seed(3)
    plain = passes(data, 1)
    np.random.seed(3)
    feed = TfDataFeed(data, seed=5)
    feed.close()
    assert passes(data, 1) == plain
    entered(feed, 0, 0)
    feed.close()
    np.random.seed(3)
    assert passes(data, 1) == plain


def test_a_callback_whose_reading_no_resume_can_repeat_is_named(tmp_path):
    import keras
    import tensorflow as tf

    import colabkit
    from tests.keras.cases import BATCH, arrays, network

    one = tf.data.Dataset.from_tensor_slices(arrays()).shuffle(44)
    whole = one.batch(BATCH).shuffle(3)
    fixed = tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH)
    read = {
        "as training begins": (whole, whole, "on_train_begin", True),
        "of one shuffle": (whole, one, "on_epoch_end", True),
        "twice over": (one.batch(BATCH), one.repeat(2), "on_epoch_end", True),
        "of nothing drawn": (fixed, fixed, "on_train_begin", False),
        "of all": (whole, whole.take(1), "on_epoch_end", False),
    }
    for name, (data, shown, hook, is_named) in read.items():
        callback = keras.callbacks.Callback()
        setattr(callback, hook, lambda *_, shown=shown, **__: next(iter(shown)))
        options = {"batch_size": BATCH, "progress": False, "callbacks": [callback]}
        history = colabkit.fit(network(), data, tmp_path / name, **options)
        assert ("a callback reads" in str(history.verdict)) is is_named, name
    assert "__iter__" in vars(tf.data.Dataset)
    assert vars(tf.data.Dataset)["__iter__"].__module__.startswith("tensorflow")


def test_batches_of_arrays_say_their_size_where_all_have_the_same(tmp_path):
    from colabkit.fitting.keras.tf_epoch_dataset import epoch_dataset
    from colabkit.frameworks.keras.array_feed import KerasArrayFeed

    sizes = {}
    for samples in (24, 26):
        feed = KerasArrayFeed(np.zeros((samples, 3)), batch_size=8, shuffle=False, seed=0)
        sizes[samples] = tuple(epoch_dataset(feed, ahead=True).element_spec.shape)
    assert sizes == {24: (8, 3), 26: (None, 3)}


@pytest.mark.parametrize("steps", [6, 8])
def test_parts_of_unknown_length_go_on_within_a_later_pass(steps, tmp_path):
    import keras

    from tests.keras.tf_cases import TENSORFLOW_CASES

    def trained(folder: str, **given: Any) -> tuple[list[bytes], Any]:
        keras.utils.clear_session()
        case = TENSORFLOW_CASES["steps_of_a_pipeline_of_unknown_length"]()
        model, data = case.pop("model"), case.pop("data")
        given = {"epochs": 4, "progress": False, **case, **given}
        history = colabkit.fit(model, data, tmp_path / folder, **given)
        return [weight.tobytes() for weight in model.get_weights()], history.epochs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the data runs out in each second epoch
        alone, rows = trained("alone")
        trained("run", max_steps=steps)
        weights, rows_after = trained("run")
    assert weights == alone
    assert [row["step"] for row in rows_after] == [row["step"] for row in rows] == [4, 6, 10, 12]
