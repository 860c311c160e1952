"""fit for Keras models: Keras' own training loop, bound to a run."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from colabkit.errors import ArgumentError
from colabkit.fitting.callbacks import CallbackList
from colabkit.fitting.keras.callbacks import begins_by_own_code, check_callbacks, reconsider
from colabkit.fitting.keras.data_arguments import EmptyEpochError, Supply
from colabkit.fitting.keras.fit_callback import FitCallback, FitProgress
from colabkit.fitting.keras.fit_run import KerasRun
from colabkit.fitting.keras.options import KerasOptions
from colabkit.fitting.keras.own_fit import has_own_fit, through_own_fit
from colabkit.fitting.keras.passed_call import settings_of
from colabkit.frameworks.base import Start
from colabkit.frameworks.keras.beside import Beside
from colabkit.frameworks.keras.build import build, check_is_compiled, is_looked_at
from colabkit.frameworks.keras.empty_parts import check_parts
from colabkit.frameworks.keras.places import KerasFeed, Turn
from colabkit.frameworks.keras.randomness import GeneratorState, generator_kinds
from colabkit.frameworks.keras.replicas import check_length, check_strategy, scope_of, strategy_of
from colabkit.frameworks.keras.sources import FeedOptions, feed_of
from colabkit.frameworks.keras.step_inspect import StepFindings, inspect_step, roots_of
from colabkit.frameworks.keras.structure import ClassWeights, Parts, is_arrays, split_off
from colabkit.frameworks.keras.variables import backend_name
from colabkit.runs.checks import as_validation_data
from colabkit.runs.history import History
from colabkit.runs.release_when_done import ReleaseWhenDone

_AS_MADE_BYTES_MAX = 1 << 30


def fit_keras(model: Any, data: Any, ckpt_dir: str | Path, options: KerasOptions) -> History:
    """Trains a compiled Keras model; see ``colabkit.fit``."""
    backend_name()
    check_is_compiled(model)
    check_strategy(model)
    if has_own_fit(model):
        data, options = through_own_fit(model, data, options)
    check_callbacks(options.callbacks)
    _require_pair(data, model)
    data, validation_data = _with_weights_and_split(data, options)
    weights = ClassWeights(options.class_weight) if options.class_weight is not None else None
    feed = feed_of(
        data,
        FeedOptions(
            batch_size=options.batch_size,
            shuffle=options.shuffle,
            seed=options.run_seed,
            steps_per_epoch=options.steps_per_epoch,
            class_weights=weights,
            is_shared=data is validation_data,
            as_keras_fit=strategy_of(model) is None,
        ),
    )
    if options.steps_per_epoch is None:
        options.check_is_read_often_enough(feed, instead="or steps_per_epoch")
    validation = None
    if validation_data is not None:
        with as_validation_data():
            shared = data is validation_data
            validation = _validation_feed(
                validation_data, options, is_shared=shared, as_keras_fit=strategy_of(model) is None
            )
    check_length(model, [each.length_of(0) for each in (feed, validation) if each is not None])
    with scope_of(model):
        fitting = _Fitting(model, feed, validation, ckpt_dir, options)
    return fitting.train()


def _validation_feed(
    data: Any, options: KerasOptions, *, is_shared: bool, as_keras_fit: bool
) -> KerasFeed:
    feed = feed_of(
        data,
        FeedOptions(
            batch_size=options.validation_batch_size or options.batch_size,
            shuffle=False,
            seed=options.run_seed,
            limit=options.validation_steps,
            validates=True,
            is_shared=is_shared,
            as_keras_fit=as_keras_fit,
        ),
    )
    if options.validation_steps is None and options.validations_until(options.epochs) > 1:
        options.check_is_read_often_enough(feed, instead="or validation_steps")
    return feed


class _Fitting:
    def __init__(
        self,
        model: Any,
        feed: KerasFeed,
        validation: KerasFeed | None,
        ckpt_dir: str | Path,
        options: KerasOptions,
    ) -> None:
        self._model = model
        self._options = options
        self._release = ReleaseWhenDone(wanted=options.release_when_done, shown=options.progress)
        self._feeds = [feed] if validation is None else [feed, validation]
        self._supply = Supply(
            feed,
            steps_per_epoch=options.steps_per_epoch,
            validation_steps=options.validation_steps,
        )
        ahead = not model.run_eagerly
        self._passes = [_passes_over(model, each, ahead=ahead) for each in self._feeds]
        self._drawing: list[Any] = [each for each in self._feeds if hasattr(each, "catch_up")]
        if is_looked_at(model):
            getattr(feed, "be_looked_at", lambda: None)()
        example = _example(self._passes[0], feed)
        graph, roots = build(model, example), roots_of(model, ())
        findings = inspect_step(model, example, roots, graph)
        if strategy_of(model) is not None and hasattr(feed, "batch_sizes"):
            sizes = feed.batch_sizes(options.epochs)
            check_parts(model, example, roots, graph, sizes=sizes)
        self._beside = beside = Beside(model, options.callbacks, findings.variables)
        users = [c for c in options.callbacks if isinstance(c, keras.callbacks.Callback)]
        own = CallbackList(
            [c for c in options.callbacks if not isinstance(c, keras.callbacks.Callback)]
        )
        if validation is None and not users:
            own.require_validation(["loss", "acc", "accuracy"])
        self._own = own
        generators: dict[str, Any] = {
            name: GeneratorState(generator)
            for name, generator in own.generators(generator_kinds()).items()
        }
        begins = any(map(begins_by_own_code, users))
        as_made = beside.model_as_now(bytes_max=_AS_MADE_BYTES_MAX) if begins else None
        self._has_an_end = bool(users or own.members or _averages(model.optimizer))
        self._progress = FitProgress(self._supply, self._drawing)
        self._run = KerasRun(
            ckpt_dir,
            dataclasses.replace(
                options.for_run(validates=validation is not None),
                progress=options.progress and options.verbose in {"auto", 1},
            ),
            dict(
                model=model,
                fit=self._progress,
                beside=beside,
                **own.stateful(),
                **generators,
            ),
            epochs=options.epochs,
            call=settings_of(options),
        )
        if options.initial_epoch:
            self._run.count_from(options.initial_epoch)
        self._begin_phase()
        self._run.note(findings)
        self._run.note(StepFindings(reasons=_reasons_beside(self._feeds)))
        self._run.validation = validation
        self._run.history.params = {
            "verbose": 1 if options.verbose == "auto" else options.verbose,
            "epochs": options.epochs,
            "steps": feed.length,
        }
        self._fit_callback = FitCallback(
            self._run,
            model,
            passes=self._passes,
            feeds=self._feeds,
            progress=self._progress,
            callbacks=users,
            beside=beside,
            as_made=as_made,
            own=own,
            verbose=2 if options.verbose == 2 and options.progress else 0,
            epochs=options.epochs,
            validations_until=options.validations_until,
        )

    def _begin_phase(self) -> None:
        """Has the data begin with the phase, and come in other orders than in those before."""
        run, drawn, drawing = self._run, self._progress.drawn, self._drawing
        if run.begins_phase:
            self._supply.turn = Turn()
            for feed in drawing:
                feed.readers.restore(())
        if run.begins_phase or not run.step or run.goes_on_in_session:
            self._progress.drawn = [feed.drawn for feed in drawing]
        elif not (run.is_closed or run.is_idle):
            for feed, count in zip(drawing, drawn, strict=False):
                feed.catch_up(count)
        if since := run.phase_began_at:
            for feed in self._feeds:
                feed.reseed(since)

    def _inspect_data(self) -> None:
        """Compares it with what it was; where nothing is left to train, passes it on."""
        self._run.turn = self._supply.turn
        if self._run.check_data(self._feeds):
            self._begin_phase()
        if not (self._is_left() or self._run.is_idle):
            self._pass_data_on()

    def _pass_data_on(self, feeds: Sequence[Any] | None = None) -> None:
        """Leaves the data, or these, to the phases after this one as if its epochs were read."""
        often, since = self._options.validations_until, self._run.phase_began_at
        until = max(since, min(self._run.epoch, self._options.epochs))
        done = [until - since, often(until) - often(since)]
        for feed, count in zip(self._feeds, done, strict=False):
            if feeds is None or feed in feeds:
                feed.pass_on(Start(0, count))

    def train(self) -> History:
        run, epochs = self._run, self._options.epochs
        if run.is_closed:
            self._pass_data_on()
            run.pass_on(epochs)
            return run.history
        run.ask_for(epochs)
        self._inspect_data()
        if run.begins_phase:
            self._own.begin_phase()
        reconsider(run, self._options.callbacks, self._own, self._beside)
        if not self._is_left() and not self._is_end_due():
            run.say_done()
            run.pass_on(epochs)
            self._release.finish(run)
            return run.history
        try:
            with (
                run.training(epochs),
                _weights_left_open(self._model.optimizer),
                _steps_end_with_the_data(self._model, self._feeds),
                _noting_readers(self._drawing),
            ):
                if self._is_left():
                    self._progress.is_over = False
                step, is_more = run.step, True
                with run.saving_what_is_left():
                    while is_more and self._is_left():
                        is_more = self._fit(until=run.epoch + 1 if run.is_mid_epoch else epochs)
                if run.step > step or not self._is_left():
                    self._end()
        except KeyboardInterrupt:
            if not run.was_interrupted:
                raise
        finally:
            for feed in self._feeds:
                feed.close()
        run.pass_on(epochs)
        self._release.finish(run)
        return run.history

    def _is_end_due(self) -> bool:
        """Whether a kill came between the last epoch and the training's end."""
        run, is_open = self._run, self._has_an_end and not self._progress.is_over
        return is_open and not (run.is_idle or run.has_passed(self._options.epochs))

    def _is_left(self) -> bool:
        return self._run.epoch < self._options.epochs and not self._run.has_stopped

    def _fit(self, *, until: int) -> bool:
        """Trains up to an epoch; returns whether the data has more for those that follow."""
        passes, options, run = self._passes, self._options, self._run
        for each, feed in zip(passes, self._feeds, strict=True):
            each.length = feed.length
        # What a BackupAndRestore of an earlier fit has left would count before initial_epoch.
        self._model._initial_epoch = None
        run.open_pass(self._feeds[0], passes[0])
        begun_at = run.start()
        if passes[0].length is not None:
            # None where nothing is left: Keras takes no epoch of zero steps.
            passes[0].length = (passes[0].length - begun_at.skip) or None
        with (
            warnings.catch_warnings(),
            contextlib.suppress(EmptyEpochError),
            _mistakes_explained(),
            _not_built_again(self._model),
        ):
            # Keras says so at the end of all data whose length it does not know.
            warnings.filterwarnings("ignore", "Your input ran out of data; ", UserWarning)
            # What a fit of the model's own does to the data is done.
            keras.Model.fit(
                self._model,
                passes[0],
                initial_epoch=run.epoch,
                epochs=until,
                shuffle=False,
                callbacks=self._fit_callback,
                validation_data=passes[1] if len(passes) > 1 else None,
                validation_freq=options.validation_freq,
            )
            return run.epoch > begun_at.epoch
        return self._supply.renews(run.epoch, step=run.step)

    def _end(self) -> None:
        """What Keras does once after the last epoch, and a checkpoint of what it changed."""
        if not self._is_left():
            self._pass_data_on(self._drawing)
        if not self._has_an_end:
            if self._is_left():
                self._run.save()  # the data ended before the last epoch
            return
        model = self._model
        if _averages(model.optimizer):
            type(model.optimizer).finalize_variable_values(model.optimizer, model.trainable_weights)
        self._fit_callback.finish()
        self._progress.is_over = True
        self._run.save_anew()


def _passes_over(model: Any, feed: KerasFeed, *, ahead: bool) -> Any:
    if backend_name() == "tensorflow":
        from colabkit.fitting.keras.tf_epoch_dataset import epoch_dataset  # imported where it is

        passes, strategy = epoch_dataset(feed, ahead=ahead), strategy_of(model)
        if strategy is None:
            return passes
        from colabkit.fitting.keras.tf_replicas import ReplicaPasses  # imported where it is

        return ReplicaPasses(passes, strategy)
    if backend_name() == "jax":
        from colabkit.fitting.keras.jax_epoch_batches import JaxPasses  # imported where it is

        return JaxPasses(feed)
    from colabkit.fitting.keras.torch_epoch_dataset import TorchPasses  # imported where it is

    return TorchPasses(feed)


def _example(passes: Any, feed: Any) -> Any:
    """Returns what a batch looks like: the specs of one, or the first."""
    if hasattr(passes, "element_spec"):
        return passes.element_spec
    if hasattr(feed, "template"):
        return feed.template.element_spec  # to read a pipeline is to draw an order of it
    if hasattr(feed, "first"):
        return feed.first()
    return next(iter(feed.batches(Start(key=0, epoch=0))))


def _reasons_beside(feeds: Sequence[Any]) -> tuple[str, ...]:
    """Returns why training data cannot be repeated where it is read in turn with other data."""
    told = getattr(feeds[0], "reasons_beside", None)
    return () if told is None or len(feeds) < 2 else told(feeds[1])


def _averages(optimizer: Any) -> bool:
    # Mixed precision has its optimizer wrapped, for which Keras asks the one within.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return bool(getattr(inner, "use_ema", False))


@contextlib.contextmanager
def _weights_left_open(optimizer: Any) -> Iterator[None]:
    """Keeps ``model.fit`` from writing averages over the weights before the training is over."""
    if not _averages(optimizer):
        yield
        return
    optimizer.finalize_variable_values = lambda *_: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values


@contextlib.contextmanager
def _not_built_again(model: Any) -> Iterator[None]:
    """Keeps Keras from reading a batch to build layers that a call of the model leaves unbuilt."""
    if not is_looked_at(model):
        yield
        return
    model._symbolic_build = lambda **_: None  # all is built that a step without a value can build
    try:
        yield
    finally:
        del model._symbolic_build


@contextlib.contextmanager
def _noting_readers(drawing: Sequence[Any]) -> Iterator[None]:
    with contextlib.ExitStack() as told:
        for feed in drawing:
            told.enter_context(feed.noting_readers())
        yield


def _steps_end_with_the_data(
    model: Any, feeds: Sequence[KerasFeed]
) -> contextlib.AbstractContextManager[None]:
    """On PyTorch, a step is given its batch, and needs no such care."""
    if backend_name() == "jax":
        from colabkit.fitting.keras.jax_steps import steps_counted  # imported where it is

        return steps_counted(model)
    if backend_name() != "tensorflow":
        return contextlib.nullcontext()
    from colabkit.fitting.keras.tf_end import steps_end_with_the_data  # imported where it is

    unknown = [feed.length_of(0) is None for feed in feeds]
    return steps_end_with_the_data(model, training=unknown[0], testing=any(unknown[1:]))


def _mistakes_explained() -> contextlib.AbstractContextManager[None]:
    """PyTorch's own error is one sentence, and JAX has none."""
    if backend_name() != "tensorflow":
        return contextlib.nullcontext()
    from colabkit.fitting.keras.tf_mistakes import mistakes_explained  # imported where it is

    return mistakes_explained()


def _require_pair(data: Any, model: Any) -> None:
    """Raises ArgumentError for x and y in a list, which Keras takes for the inputs of a model."""
    inputs = getattr(model, "inputs", None)
    has_one = isinstance(model, keras.Sequential) or (inputs is not None and len(inputs) == 1)
    if has_one and isinstance(data, list) and len(data) > 1 and is_arrays(data):
        message = f"data is a list of {len(data)} arrays, each an input, and the model has one."
        raise ArgumentError(message, argument="data", hint="Pass a tuple: (x, y).")


def _with_weights_and_split(data: Any, options: KerasOptions) -> tuple[Any, Any]:
    validation_data = options.validation_data
    if isinstance(validation_data, list) and is_arrays(validation_data):
        validation_data = tuple(validation_data)  # as Keras itself takes it
    if options.sample_weight is not None:
        parts = Parts.of(data) if is_arrays(data) else None
        if parts is None or parts.y is None or parts.sample_weight is not None:
            message = "sample_weight needs data of two parts, (x, y) arrays."
            hint = "Let each batch be (x, y, sample_weight) instead."
            raise ArgumentError(message, argument="sample_weight", hint=hint)
        data = (parts.x, parts.y, options.sample_weight)
    if options.validation_split:
        if not is_arrays(data) or validation_data is not None:
            message = "validation_split needs arrays as data, and no validation_data."
            hint = "Pass validation_data, or set validation_split=0."
            raise ArgumentError(message, argument="validation_split", hint=hint)
        training, held_out = split_off(Parts.of(data), options.validation_split)
        data, validation_data = training.as_tuple(), held_out.as_tuple()
    return data, validation_data
