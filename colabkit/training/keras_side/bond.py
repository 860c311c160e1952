"""The bond between ``model.fit`` and a run: told of each step, it counts, saves and restores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from colabkit.training.callbacks import CallbackList
from colabkit.training.feed import Feed, Start
from colabkit.training.keras_side.callbacks import CallbackState, watches_batches, watches_tests
from colabkit.training.keras_side.randomness import STREAMS
from colabkit.training.keras_side.run import KerasRun
from colabkit.training.seeding import derive

Logs = Mapping[str, Any]


class FitProgress:
    """What a checkpoint holds of ``fit`` itself.

    Attributes:
        values: What the newest step reported.
        is_over: Whether the training came to its end, on_train_end included.
    """

    def __init__(self) -> None:
        self.newest: Logs = {}
        self.is_over = False

    @property
    def values(self) -> dict[str, float]:
        """The newest step's values, read when someone asks."""
        return plain_values(self.newest)

    def state_dict(self) -> dict[str, Any]:
        """Returns both."""
        return {"values": self.values, "is_over": self.is_over}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores both."""
        self.newest, self.is_over = dict(state["values"]), state["is_over"]


class Bond(keras.callbacks.CallbackList):  # type: ignore[misc]  # Keras has no types
    """Stands in for Keras' own list of callbacks, and passes on what the user's wait for.

    Args:
        run: The run.
        model: The compiled model.
        passes: What Keras reads as training data, and as validation data or None.
        feed: The source of the training data.
        progress: What the checkpoint holds of fit.
        callbacks: The user's Keras callbacks.
        states: Their states.
        own: The user's other callbacks, in colabkit's form.
        verbose: Keras' own words: 0 none, 2 a line for each epoch.
        epochs: Epochs in all.
    """

    def __init__(
        self,
        run: KerasRun,
        model: Any,
        *,
        passes: Sequence[Any],
        feed: Feed,
        progress: FitProgress,
        callbacks: Sequence[Any],
        states: Sequence[CallbackState],
        own: CallbackList,
        verbose: int,
        epochs: int,
    ) -> None:
        self._run = run
        self._passes = passes
        self._feed = feed
        self._progress = progress
        self._states = states
        self._own = own
        self._epochs = epochs
        self._skipped = 0
        self._steps_per_execution = max(1, int(model.steps_per_execution or 1))
        self._begun = False
        self._resumes_mid_epoch = run.is_mid_epoch
        self._users = keras.callbacks.CallbackList(
            list(callbacks),
            add_history=True,
            add_progbar=verbose > 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=self._feed.length,
        )
        self._watched = any(map(watches_batches, callbacks)) or own.watches_batches
        self._users_watch = any(map(watches_batches, callbacks))
        self._tests_watched = any(map(watches_tests, callbacks))
        run.draws_at_steps = self._watched or bool(model.run_eagerly) or not _is_compiled()
        super().__init__(model=model)

    # What the user's callbacks see is one training, however often Keras begins it.

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Once for a session: the callbacks begin, and take up what they knew."""
        if self._begun:
            return
        self._begun = True
        self._users.on_train_begin(logs)
        for state in self._states:
            state.begin()
        self._own.train_begin(self._run)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Keras may end several times; ``finish`` is told of the one end."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Opens the pass over the data; after a resume, puts back what Keras just reset."""
        run = self._run
        start = run.start()
        run.begin_epoch(self._feed)
        self._skipped = start.skip
        self._passes[0].begin(start)
        if self._resumes_mid_epoch:
            self._resumes_mid_epoch = False
            run.restore_metrics()
            return
        self._users.on_epoch_begin(epoch, logs)
        self._own.epoch_begin(run, epoch)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each execution; a pass that the resume found complete gets none."""
        if self._skipped == self._feed.length:
            raise StopIteration  # as an empty iterator would, but before Keras takes a step
        self._run.begin_step()
        if self._users_watch:
            with STREAMS:
                self._users.on_train_batch_begin(self._skipped + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each execution: the boundary at which a run is saved or stopped."""
        count = self._steps_per_execution
        if self._feed.length is not None:
            count = min(count, self._feed.length - self._skipped - batch + count - 1)
        values = self._progress.newest = logs or {}
        if self._watched:
            self._tell(self._skipped + batch, count, values)
        self._run.end_steps(count, scalars(values))

    def _tell(self, batch: int, count: int, values: Logs) -> None:
        with STREAMS:
            if self._users_watch:
                self._users.on_train_batch_end(batch, values)
            self._own.batch_end(self._run, values, steps=count)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After validation: the user's callbacks, then the history, then a checkpoint."""
        run, model = self._run, self.model
        values = self._of_epoch(logs or {})
        with STREAMS:
            run.reseed("after validation")
            self._users.on_epoch_end(epoch, values)
            if validated := {n: v for n, v in values.items() if n.startswith("val_")}:
                self._own.validation_end(run, epoch, validated)
            self._own.epoch_end(run, epoch, values)
        stops = bool(model.stop_training) or run.should_stop
        model.stop_training = stops
        run.end_epoch(scalars(values), stops=stops, finished=epoch + 1 >= self._epochs)

    def _of_epoch(self, logs: Logs) -> dict[str, Any]:
        """The epoch's values; those of a pass that the resume found complete were kept."""
        values = plain_values(logs)
        start = self._run.start()
        if start.skip and start.skip == self._skipped:
            values |= self._progress.values
        return values

    # Validation.

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Opens the pass over the validation data."""
        if len(self._passes) > 1:
            epoch = self._run.epoch
            start = Start(derive(self._run.seed, "validation", epoch), epoch)
            self._passes[1].begin(start)
        self._users.on_test_begin(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After validation."""
        self._users.on_test_end(logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """For those who wait for it."""
        if self._tests_watched:
            self._users.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """For those who wait for it."""
        if self._tests_watched:
            self._users.on_test_batch_end(batch, logs)

    def finish(self) -> None:
        """Tells the callbacks that the training is over, also one that was over before."""
        self.on_train_begin()
        self._users.on_train_end(self._run.history.newest_epoch_values())
        self._own.train_end(self._run)


def scalars(logs: Logs) -> dict[str, Any]:
    """Returns the values that are numbers, those of inner dicts among them, unread."""
    found: dict[str, Any] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            found |= scalars(value)
        elif isinstance(value, int | float) or getattr(value, "shape", None) == ():
            found[name] = value
    return found


def plain_values(logs: Logs) -> dict[str, float]:
    """Returns them as floats."""
    return {name: _as_float(value) for name, value in scalars(logs).items()}


def _as_float(value: Any) -> float:
    if isinstance(value, int | float):
        return float(value)
    return float(keras.ops.convert_to_numpy(value))


def _is_compiled() -> bool:
    return bool(keras.backend.backend() == "tensorflow")
