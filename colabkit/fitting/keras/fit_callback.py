"""The callback between ``model.fit`` and a run: told of each step, it counts, saves, restores."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from colabkit.fitting.callbacks import CallbackList
from colabkit.fitting.fit_run import TRAINING, VALIDATION
from colabkit.fitting.keras.callbacks import (
    keep_rows,
    stopping,
    watches_batches,
    watches_tests,
)
from colabkit.fitting.keras.data_arguments import EmptyEpochError, Supply
from colabkit.fitting.keras.fit_run import KerasRun
from colabkit.frameworks.base import Start
from colabkit.frameworks.keras.beside import Beside
from colabkit.frameworks.keras.places import KerasFeed
from colabkit.frameworks.keras.randomness import STREAMS
from colabkit.frameworks.seeding import derive

Logs = Mapping[str, Any]


class FitProgress:
    """What a checkpoint holds of ``fit`` itself.

    Attributes:
        values: What the newest step reported.
        names: What that of an earlier session called it; a name may be one of several values.
        is_over: Whether the training came to its end, on_train_end included.
        supply: How far the data reaches.
        drawn: How many orders each source had drawn before the phase, or none are known.

    Args:
        supply: How far the data reaches.
        drawing: The sources that draw an order for whoever reads them.
    """

    def __init__(self, supply: Supply, drawing: Sequence[Any]) -> None:
        self._drawing = drawing
        self.drawn: list[int] = []
        self.newest: Logs = {}
        self.names: set[str] = set()
        self.is_over = False
        self.supply = supply

    @property
    def values(self) -> dict[str, float]:
        """The newest step's values, read when someone asks."""
        return plain_values(self.newest)

    def state_dict(self) -> dict[str, Any]:
        """Returns all of it."""
        return {
            "drawn": self.drawn,
            "read_beside": [each.readers.state() for each in self._drawing],
            "values": self.values,
            "names": sorted(self.newest),
            "is_over": self.is_over,
            "supply": self.supply.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores all of it."""
        self.drawn = list(state.get("drawn", ()))
        for each, read in zip(self._drawing, state.get("read_beside", ()), strict=False):
            each.readers.restore(read)
        self.newest, self.is_over = dict(state["values"]), state["is_over"]
        self.names = set(state.get("names", self.newest))
        if "supply" in state:
            self.supply.load_state_dict(state["supply"])


class _LastToHear(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Stands behind the user's callbacks, and hears what they add to an epoch's values."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: Logs = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        del epoch
        self.heard = logs or {}


class FitCallback(keras.callbacks.CallbackList):  # type: ignore[misc]  # Keras has no types
    """Stands in for Keras' own list of callbacks, and passes on what the user's wait for.

    Args:
        run: The run.
        model: The compiled model.
        passes: What Keras reads as training data, and as validation data or None.
        feeds: The sources of the training data, and of the validation data or none.
        progress: What the checkpoint holds of fit.
        callbacks: The user's Keras callbacks.
        beside: What they know, and what they and the step use beside the model.
        as_made: Gives the model the values that it had before a checkpoint was put back.
        own: The user's other callbacks, in colabkit's form.
        verbose: Keras' own words: 0 none, 2 a line for each epoch.
        epochs: Epochs in all.
        validations_until: Returns how many of the first epochs end with a validation.
    """

    def __init__(
        self,
        run: KerasRun,
        model: Any,
        *,
        passes: Sequence[Any],
        feeds: Sequence[KerasFeed],
        progress: FitProgress,
        callbacks: Sequence[Any],
        beside: Beside,
        as_made: Callable[[], None] | None,
        own: CallbackList,
        verbose: int,
        epochs: int,
        validations_until: Callable[[int], int],
    ) -> None:
        self._run = run
        # Keras' own ``self.model`` brings the variables back on JAX, which costs as much as a step.
        self._trained = model
        self._passes = passes
        self._feeds, self._feed = feeds, feeds[0]
        self._progress = progress
        self._beside = beside
        self._own = own
        self._epochs = epochs
        self._validations_until = validations_until
        self._skipped = self._begun_at = 0
        self._due: int | None = None
        self._may_idle = keras.backend.backend() == "jax"
        self._tested: int | None = None
        self._steps_per_execution = max(1, int(model.steps_per_execution or 1))
        self._begun = False
        goes_on = run.is_mid_epoch or run.epoch > run.phase_began_at
        self._as_made = as_made if goes_on else None
        self._is_announced = run.is_mid_epoch  # of the epoch that begins
        self._restores_metrics = run.is_mid_epoch
        self._measured: Logs = {}  # by metrics, as the session began
        self._callbacks = callbacks
        self._last = _LastToHear()
        self._bar = keras.callbacks.ProgbarLogger() if verbose else None
        with self._with_the_model_as_made():
            self._users = keras.callbacks.CallbackList(
                [*callbacks, *([self._bar] if self._bar else []), self._last],
                add_history=True,
                model=model,
                verbose=verbose,
                epochs=epochs,
                steps=self._feed.length,
            )
        self._watched = any(map(watches_batches, callbacks)) or own.watches_batches
        self._users_watch = any(map(watches_batches, callbacks))
        run.may_be_left = bool(callbacks or own.members or len(passes) > 1)
        self._tests_watched = any(map(watches_tests, callbacks))
        run.draws_at_steps |= self._watched or bool(model.run_eagerly) or not _is_compiled()
        super().__init__(model=model)

    @contextlib.contextmanager
    def _with_the_model_as_made(self) -> Iterator[None]:
        """Has callbacks begin as at the first time: what they see then, and set, is the same."""
        if self._as_made is None:
            yield
            return
        put_back = self._beside.model_as_now()
        self._as_made()
        yield
        put_back()

    # What the user's callbacks see is one training, however often Keras begins it.

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Once for a session: the callbacks begin, and take up what they knew."""
        if self._begun:
            return
        self._begun = True
        if self._run.step:
            keep_rows(self._callbacks, epoch=self._run.epoch)
        with self._with_the_model_as_made():
            self._users.on_train_begin(logs)
        self._as_made = None
        self._own.train_begin(self._run)
        self._beside.begin()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Keras may end several times; ``finish`` is told of the one end."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Opens the pass over the data; after a resume, puts back what Keras just reset."""
        del epoch  # Keras counts one that got no batch as well
        run = self._run
        run.begin_epoch(self._feed, self._passes[0])
        start = dataclasses.replace(run.start(), state=self._progress.supply.turn)
        self._skipped, self._due = start.skip, self._progress.supply.due(start.epoch)
        self._passes[0].begin(start)
        if self._restores_metrics:
            self._restores_metrics = False
            run.restore_metrics()
            self._measured = plain_values(self._trained.get_metrics_result())
            self._beside.begin_epoch_again(run.epoch)
            if self._bar is not None:
                self._bar.on_epoch_begin(run.epoch)
        if not self._is_announced:
            self._is_announced = True
            self._users.on_epoch_begin(run.epoch, logs)
            self._own.epoch_begin(run, run.epoch)
            self._beside.has_begun_epoch()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each execution, of which there is none beyond the epoch's batches."""
        if self._due is not None and self._skipped + batch >= self._due:
            if self._may_idle and not batch:
                return  # an epoch that is complete, of which Keras on JAX wants a step
            raise StopIteration  # as an empty iterator would, but before Keras takes a step
        self._begun_at = batch
        self._run.begin_step()
        if self._users_watch:
            self._run.sync()
            with STREAMS:
                self._users.on_train_batch_begin(self._skipped + batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each execution: the boundary at which a run is saved or stopped."""
        count = self._steps_taken()
        if not count:
            return
        values = self._progress.newest = logs or {}
        if self._watched:
            self._run.sync()
            self._tell(self._skipped + batch, count, values)
        self._run.end_steps(count, scalars(values))

    def _steps_taken(self) -> int:
        """Returns how many steps the execution took: fewer where the data ended."""
        count = self._steps_per_execution
        if count > 1 or self._may_idle:
            count = getattr(self._trained.train_function, "steps_taken", count)
            if self._due is not None and count > 1:
                count = min(count, self._due - self._skipped - self._begun_at)
        return count

    def _tell(self, batch: int, count: int, values: Logs) -> None:
        with STREAMS:
            if self._users_watch:
                self._users.on_train_batch_end(batch, values)
            self._own.batch_end(self._run, values, steps=count)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After validation: the user's callbacks, then the history, then a checkpoint."""
        del epoch
        run, model = self._run, self.model
        self._require_batches()
        run.note_trained()
        values = self._of_epoch(logs or {})
        self._beside.begin_epoch_end()
        with STREAMS:
            run.reseed("after validation")
            self._users.on_epoch_end(run.epoch, values)
            values |= plain_values(self._last.heard)
            if validated := {n: v for n, v in values.items() if n.startswith("val_")}:
                self._own.validation_end(run, run.epoch, validated)
            run.skips_validation = len(self._passes) > 1 and not validated
            self._own.epoch_end(run, run.epoch, values)
        self._is_announced = False
        if not model.stop_training:
            self._progress.supply.end_epoch(self._epoch_of_phase, batches=run.batch)
        run.keep_first(TRAINING, self._feed, run.epoch, self._passes[0].watch)
        stops = bool(model.stop_training) or run.should_stop
        model.stop_training = stops
        finished, by = run.epoch + 1 >= self._epochs, stopping(self._callbacks, run.epoch)
        run.end_epoch(scalars(values), stops=stops, finished=finished, by=by)

    def _require_batches(self) -> None:
        """Raises EmptyEpochError where the data gave nothing, now or before a resume."""
        if not self._run.batch and not self.model.stop_training:
            raise EmptyEpochError

    def _of_epoch(self, logs: Logs) -> dict[str, Any]:
        """The epoch's values; those of a pass that the resume found complete were kept."""
        values = plain_values(logs)
        start = self._run.start()
        if start.skip and start.skip == self._skipped:
            kept = self._progress.values
            # As Keras has it: metrics say what an epoch was, where steps report nothing else.
            values |= self._measured if self._measured.keys() == self._progress.names else kept
        if self._tested == 0:
            # A validation of no batch says 0 for all.
            values = {n: v for n, v in values.items() if not n.startswith("val_")}
        return values

    # Validation.

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Opens the pass over the validation data."""
        self._require_batches()
        self._run.note_trained()
        self._tested = 0
        if len(self._passes) > 1:
            key = derive(self._run.seed, "validation", self._run.epoch)
            self._passes[1].begin(Start(key, self._validations_done()))
        self._users.on_test_begin(logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After validation."""
        batches = (self._tested or 0) * self._steps_per_execution
        self._progress.supply.end_validation(self._run.epoch, batches=batches)
        if batches and len(self._passes) > 1:
            number, watch = self._validations_done(), self._passes[1].watch
            self._run.keep_first(VALIDATION, self._feeds[1], number, watch)
        self._users.on_test_end(logs)

    def _validations_done(self) -> int:
        """Validations of the phase before this epoch's."""
        run = self._run
        return self._validations_until(run.epoch) - self._validations_until(run.phase_began_at)

    @property
    def _epoch_of_phase(self) -> int:
        return self._run.epoch - self._run.phase_began_at

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """For those who wait for it."""
        if self._tests_watched:
            self._users.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """For those who wait for it."""
        self._tested = (self._tested or 0) + 1
        if self._tests_watched:
            self._users.on_test_batch_end(batch, logs)
        self._run.stop_in_evaluation()

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
    return keras.backend.backend() in {"tensorflow", "jax"}
