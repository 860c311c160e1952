"""What callbacks know goes on in another session, whatever they keep it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from tests.keras.lives import needs_keras

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]
ON_TORCH = pytest.mark.in_nursery("on_torch")


def model() -> Any:
    import keras

    keras.utils.set_random_seed(3)
    made = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    made.compile("adam", "mse")
    return made


def knowing() -> Any:
    import keras

    class Knowing(keras.callbacks.Callback):
        """Sets up as each session begins what it goes on with."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = keras.Variable(5.0)
            self.table = np.zeros((512, 512))
            self.mean = np.zeros((512, 512))

        def on_train_begin(self, logs: Any = None) -> None:
            self._count, self.seen, self.pairs = 0, [], set()
            self.weight.assign(1.0)
            self.source = np.random.default_rng(3)

        def goes_on(self) -> None:
            self._count += 1
            self.seen.append([self._count, np.full(3, self._count)])
            self.pairs.add((self._count, "a"))
            self.weight.assign_add(1.0)
            self.source.random()
            self.table[300, self._count] = 0.5  # in its place
            self.table[:, 40] += 1.0
            self.mean = self.mean + 1.0  # another one

        def knows(self) -> str:
            known = [self._count, self.seen, sorted(self.pairs), float(self.weight)]
            digests = [float(self.table.sum()), float(self.mean.sum())]
            return repr([known, digests, self.source.bit_generator.state])

    return Knowing()


def kept_by(beside: Any) -> Any:
    """Returns what a checkpoint gives back of its state."""
    kept = beside.state_dict()
    return {**kept, "variables": {n: v.tensor.numpy() for n, v in kept["variables"].items()}}


def after(steps: int, kept: Any = None, *, of_a_library: bool = False) -> tuple[str, Any, Any]:
    from colabkit.frameworks.keras.beside import Beside

    callback = knowing()
    if of_a_library:
        type(callback).__module__ = "numpy"
    beside = Beside(model(), [callback], ())
    if kept is not None:
        beside.load_state_dict(kept)
    callback.on_train_begin()
    beside.begin()
    for _ in range(steps):
        callback.goes_on()
    return callback.knows(), kept_by(beside), beside


@pytest.mark.parametrize("of_a_library", [False, True])
def test_a_callback_goes_on_with_all_that_it_knew(of_a_library, tmp_path: Path):
    del tmp_path
    whole, _, beside = after(5, of_a_library=of_a_library)
    assert beside.unsaved() == ()
    _, kept, _ = after(2, of_a_library=of_a_library)
    _, again, _ = after(1, kept, of_a_library=of_a_library)
    assert after(2, again, of_a_library=of_a_library)[0] == whole


def test_what_a_list_holds_is_kept_once(tmp_path: Path):
    del tmp_path
    _, kept, _ = after(2)
    names = [path.rpartition(".")[2] for path in kept["plain"]]
    assert sorted(names) == ["_count", "mean", "pairs", "seen", "table"]


def test_counts_that_keras_callbacks_keep_to_themselves_go_on(tmp_path: Path):
    import keras

    from colabkit.frameworks.keras.beside import Beside

    path, kept, written = str(tmp_path / "{batch}.weights.h5"), None, []
    for _ in range(3):  # two batches in each session
        trained = model()
        saving = keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_freq=3)
        saving.set_model(trained)
        beside = Beside(trained, [saving], ())
        if kept is not None:
            beside.load_state_dict(kept)
        saving.on_train_begin()
        beside.begin()
        saving.on_epoch_begin(0)
        for batch in range(len(written), len(written) + 2):
            saving.on_train_batch_end(batch, {})
            written.append(batch + 1)
        kept = kept_by(beside)
    assert {file.name.partition(".")[0] for file in tmp_path.glob("*.h5")} == {"3", "6"}


def counting(*, lazily: bool = False, declared: bool = False) -> Any:
    """A callback that makes as an epoch begins, or later, what it then works with."""
    import keras

    class Bar:
        def __init__(self) -> None:
            self.count = 0
            self.lines = iter(())

    class Counting(keras.callbacks.Callback):
        begun = 0

        def __init__(self) -> None:
            super().__init__()
            if declared:
                self.losses = self.bar = None

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.begun += 1
            self.losses: list[int] = []
            if not lazily:
                self.bar = Bar()
            bias = self.model.layers[0].bias
            bias.assign(bias + 1.0)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.losses.append(batch)
            self.largest = max(batch, getattr(self, "largest", 0))
            if lazily and batch == 0:
                self.bar = Bar()
            self.bar.count += 1

    return Counting()


@pytest.mark.parametrize("declared", [False, True])
def test_what_a_callback_makes_as_an_epoch_begins_goes_on_in_its_middle(declared, tmp_path: Path):
    del tmp_path
    from colabkit.frameworks.keras.beside import Beside

    kept = bias = None
    for batches in ([5, 1], [2, 3], [4]):
        callback, trained = counting(declared=declared), model()
        callback.set_model(trained)
        beside = Beside(trained, [callback], ())
        if kept is None:
            callback.on_train_begin()
            beside.begin()
            callback.on_epoch_begin(0)
            beside.has_begun_epoch()
        else:
            beside.load_state_dict(kept)
            trained.layers[0].bias.assign(bias)
            callback.on_train_begin()
            beside.begin()
            beside.begin_epoch_again(0)
        for batch in batches:
            callback.on_train_batch_end(batch)
        kept, bias = kept_by(beside), np.array(trained.layers[0].bias)
        assert beside.unsaved() == ()
    assert callback.losses == [5, 1, 2, 3, 4]
    assert (callback.largest, callback.bar.count, callback.begun) == (5, 5, 1)
    assert bias.tolist() == [1.0, 1.0]


def test_an_object_that_a_callback_makes_between_two_batches_is_named(tmp_path: Path):
    del tmp_path
    from colabkit.frameworks.keras.beside import Beside

    callback, trained = counting(lazily=True), model()
    callback.set_model(trained)
    beside = Beside(trained, [callback], ())
    callback.on_train_begin()
    beside.begin()
    callback.on_epoch_begin(0)
    beside.has_begun_epoch()
    callback.on_train_batch_end(0)
    beside.state_dict()
    (said,) = beside.unsaved()
    assert "Counting.bar changes and holds a value that training made" in said


def test_a_callback_that_keeps_counts_in_objects_trains_as_in_plain_fit(tmp_path: Path):
    from tests.keras.keeping import Keeping
    from tests.keras.plain_fit import arrays, check_as_plain_fit

    history = check_as_plain_fit(lambda: {"data": arrays(), "callbacks": [Keeping()]}, tmp_path)
    assert str(history.verdict).startswith("Resume is exact")


def test_what_a_callback_changes_and_nothing_can_hold_is_named(tmp_path: Path):
    import decimal
    import functools
    import itertools
    import queue

    import keras

    import colabkit
    from tests.keras.cases import arrays, network

    class Watch:
        pass

    class Changing(keras.callbacks.Callback):
        """Of what it keeps, the second half stays as it is."""

        def __init__(self) -> None:
            super().__init__()
            self.numbers, self.drawn = itertools.count(), (n for n in range(1000))
            self.price, self.waiting = decimal.Decimal(0), queue.Queue()
            self.words, self.rule, self.watch = np.array(["a"]), max, None
            self.bytes = bytearray()
            self.done, self.rules = iter(()), {"rule": lambda n: n, "n": 1}
            self.rate, self.kind = decimal.Decimal(1), Watch
            self.part = functools.partial(sorted, [Watch()], key=lambda n: n)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            next(self.numbers), next(self.drawn)
            self.price += 1
            self.waiting.put(1)
            self.words[0], self.rule, self.watch = "b", min, Watch()
            self.bytes.append(epoch)

    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    given = {"callbacks": [Changing(), log], "epochs": 2, "progress": False}
    said = str(colabkit.fit(network(), arrays(), tmp_path / "run", save_every=1, **given).verdict)
    changed = ["numbers", "drawn", "price", "waiting", "words", "rule", "watch", "bytes"]
    assert [n for n in changed if f"Changing.{n} changes and holds a" not in said] == []
    assert said.count(" changes and holds ") == len(changed)


def test_a_loss_that_reads_a_callback_keeps_nobody_from_going_on(tmp_path: Path):
    del tmp_path
    from colabkit.frameworks.keras.beside import Beside

    def counted(callback: Any) -> Beside:
        trained = model()
        trained.compile("adam", lambda a, b: (a - b) * (1 + callback._count))
        return Beside(trained, [callback], ())

    first, second = knowing(), knowing()
    beside = counted(first)
    first.on_train_begin()
    beside.begin()
    first.goes_on()
    beside.begin_epoch_end()
    first.goes_on()
    beside.begin_epoch_end()
    assert any(
        "_count changes, which the compiled step has built in" in w for w in beside.unsaved()
    )
    resumed = counted(second)
    resumed.load_state_dict(kept_by(beside))
    second.on_train_begin()
    resumed.begin()
    assert second.knows() == first.knows()


def test_what_a_compiler_made_is_passed_over_where_a_loss_or_a_callback_reaches_it(tmp_path):
    import keras

    import colabkit
    from tests.keras.cases import arrays, network

    # As those of Cython's functions: the class has a descriptor for what its objects say.
    compiled = type("cython_function", (), {"__module__": property(lambda self: "cell")})()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    class Holding(keras.callbacks.Callback):
        held = compiled

        def __init__(self) -> None:
            super().__init__()
            self.also_held = [compiled]

    def scaled(true: Any, given: Any) -> Any:
        return loss(true, given) * (1.0 if compiled else 2.0)

    for eagerly in (False, True):
        given = {"callbacks": [Holding()], "progress": False}
        model = network(loss=scaled, run_eagerly=eagerly)
        history = colabkit.fit(model, arrays(), tmp_path / str(eagerly), **given)
        assert history.verdict.grade.value == "exact"


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("torch", marks=ON_TORCH)])
def test_what_keras_own_callbacks_make_of_their_own_is_no_news(backend: str, tmp_path: Path):
    import keras

    own = keras.callbacks
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    history = colabkit.fit(
        model(),
        (x, x[:, :2]),
        tmp_path / "run",
        epochs=2,
        validation_data=(x, x[:, :2]),
        progress=False,
        callbacks=[
            own.CSVLogger(str(tmp_path / "log.csv")),
            own.EarlyStopping("val_loss", patience=3, restore_best_weights=True),
            own.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs)),
            own.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True),
            own.ReduceLROnPlateau("val_loss", patience=1),
            *([own.TensorBoard(str(tmp_path / "tb"))] if backend == "tensorflow" else []),
        ],
    )
    assert keras.backend.backend() == backend
    assert str(history.verdict).startswith("Resume is exact"), history.verdict


def made_anew(given: Any) -> Any:
    """Keeps a function that is made as each epoch begins, as progress bars do."""
    import keras

    class Making(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.tell = self.telling([epoch, ["size"]], given(epoch))

        @staticmethod
        def telling(shown: Any, rate: Any, of: Any = (lambda logs: 1)) -> Any:
            return lambda logs, times=1: (rate, shown, of(logs) * times)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.tell(logs)

    return Making()


def by_the_same_code(epoch: int) -> Any:
    return lambda logs: logs["loss"]


def with_another_default(epoch: int) -> Any:
    return lambda logs, more=object(): more if epoch else logs  # noqa: B008


def by_other_code(epoch: int) -> Any:
    return (lambda logs: 1) if epoch else (lambda logs: 2)


@pytest.mark.parametrize(
    ("given", "is_exact"),
    [(by_the_same_code, True), (with_another_default, False), (by_other_code, False)],
)
def test_a_function_that_the_same_code_makes_anew_is_no_news(
    given: Any, is_exact: bool, tmp_path: Path
):
    x = np.zeros((32, 6), "float32")
    training = {"epochs": 3, "callbacks": [made_anew(given)], "progress": False}
    verdict = colabkit.fit(model(), (x, x[:, :2]), tmp_path / "run", **training).verdict
    assert (verdict.grade.value == "exact") is is_exact, verdict
