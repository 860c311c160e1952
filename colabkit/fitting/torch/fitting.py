"""fit for PyTorch modules: a Run whose loop body is a TrainStep."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from colabkit.fitting.callbacks import CallbackList
from colabkit.fitting.torch.batch_statistics import require_last_batch
from colabkit.fitting.torch.call_checks import check_call, check_is_no_pair_in_a_list
from colabkit.fitting.torch.cutting import agree_on_call, cut_among, require_cuttable
from colabkit.fitting.torch.ddp_step import PartsForward, PartsStep
from colabkit.fitting.torch.devices import fit_on_devices
from colabkit.fitting.torch.first_look import require_adding_up, what_remembers
from colabkit.fitting.torch.fit_run import TorchRun
from colabkit.fitting.torch.loss import named_loss
from colabkit.fitting.torch.metrics import Metrics
from colabkit.fitting.torch.microbatch import SplitStep
from colabkit.fitting.torch.optimizers import make_optimizer, own_weights, set_mode
from colabkit.fitting.torch.options import TorchOptions
from colabkit.fitting.torch.passed_call import settings_of
from colabkit.fitting.torch.several_run import SeveralRun
from colabkit.fitting.torch.step import Evaluation, TrainConfig, TrainStep
from colabkit.fitting.torch.weighing import OneDeviceError, require_gain
from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.generators import find_generators
from colabkit.frameworks.torch.code_memory import memory_of_given
from colabkit.frameworks.torch.device import choose_device, choose_precision
from colabkit.frameworks.torch.parts import PartsFeed, Share
from colabkit.frameworks.torch.pieces import reshard
from colabkit.frameworks.torch.savable import check_is_built
from colabkit.frameworks.torch.sources import feed_of
from colabkit.frameworks.torch.tensor_values import TensorValues
from colabkit.frameworks.torch.world import (
    World,
    device_of_rank,
    join,
    telling_before_joining,
)
from colabkit.frameworks.torch.wrapped import replicas_digest
from colabkit.frameworks.users_own import carries_attributes
from colabkit.notebook import say
from colabkit.runs.checks import as_validation_data
from colabkit.runs.history import History
from colabkit.runs.release_when_done import ReleaseWhenDone
from colabkit.runs.verdict import ResumeVerdict

_logger = logging.getLogger(__name__)


def fit_with(
    model: nn.Module, data: Any, ckpt_dir: str | Path, arguments: Mapping[str, Any]
) -> History:
    """Trains a module with the arguments of ``colabkit.fit``."""
    with telling_before_joining():
        options = TorchOptions(**arguments)
    return fit_module(model, data, ckpt_dir, options)


def fit_module(model: nn.Module, data: Any, ckpt_dir: str | Path, options: TorchOptions) -> History:
    """Trains a module; see ``colabkit.fit``."""
    with telling_before_joining():
        check_is_built("model", model)
        check_call(model, data, options)
    say_or_log = say if options.progress else _logger.warning
    return fit_on_devices(model, data, ckpt_dir, options, train=_fit_here, say=say_or_log)


def _fit_here(model: nn.Module, data: Any, ckpt_dir: str | Path, options: TorchOptions) -> History:
    """Trains in this process, which may be one of several that were started together."""
    with telling_before_joining():
        device = choose_device(device_of_rank(options.device))
    world = join(device)
    if world is None:
        return _trained(model, data, ckpt_dir, options, device)
    if not world.leads:
        options = dataclasses.replace(
            options, progress=False, tensorboard=False, logger=None, release_when_done=False
        )
    with world.session():
        return _trained(model, data, ckpt_dir, options, device, world)


def _trained(
    model: nn.Module,
    data: Any,
    ckpt_dir: str | Path,
    options: TorchOptions,
    device: torch.device,
    world: World | None = None,
) -> History:
    model.to(device)
    reshard(model)
    if isinstance(options.loss, nn.Module):
        options.loss.to(device)
    check_is_no_pair_in_a_list(data)
    feed = feed_of(data, batch_size=options.batch_size, shuffle=True, device=device)
    options.check_is_read_often_enough(feed, instead="a list, or a Dataset")
    own = own_weights(options.loss, model)
    optimizer = make_optimizer(options.optimizer, model, own, settings=options.optimizer_settings)
    trained = {id(each) for group in optimizer.param_groups for each in group["params"]}
    config = TrainConfig(
        model=model,
        optimizer=optimizer,
        loss=None if options.loss is None else named_loss(options.loss),
        schedule=options.schedule_for(optimizer, feed, epochs=options.epochs),
        metrics=Metrics(options.metrics),
        device=device,
        precision=choose_precision(options.precision, device),
        accumulate=options.accumulate,
        clip_grad_norm=options.clip_grad_norm,
        left_out=tuple(each for each in own if id(each) not in trained),
    )
    if world is not None:
        agree_on_call(world, config, feed, options)
    return _Fitting(config, feed, ckpt_dir, options, world).train()


class _Fitting:
    def __init__(
        self,
        config: TrainConfig,
        feed: Any,
        ckpt_dir: str | Path,
        options: TorchOptions,
        world: World | None,
    ) -> None:
        self._config = config
        self._world = world
        self._feed = feed
        self._options = options
        self._release = ReleaseWhenDone(wanted=options.release_when_done, shown=options.progress)
        self._callbacks = CallbackList(options.callbacks, TensorValues())
        # Whatever an earlier loop or a step that broke off has left there.
        config.model.zero_grad()
        config.optimizer.zero_grad()
        config.model.train()
        self._step = self._make_step(options.microbatch)
        self._evaluate = Evaluation(config)
        self._validation = None
        if options.validation_data is not None:
            with as_validation_data():
                check_is_no_pair_in_a_list(options.validation_data)
                self._validation = feed_of(
                    options.validation_data,
                    batch_size=options.batch_size,
                    shuffle=False,
                    device=config.device,
                )
        else:
            self._callbacks.require_validation(["loss", *config.metrics.names])
        of_run = options.for_run(validates=self._validation is not None)
        self._monitor = of_run.monitor
        kind = TorchRun if world is None else functools.partial(SeveralRun, world)
        self._run: TorchRun = kind(
            ckpt_dir,
            of_run,
            self._objects(),
            epochs=options.epochs,
            call=settings_of(config, options),
            settings=_settings(options, config.loss),
            has_own_optimizers=isinstance(options.optimizer, torch.optim.Optimizer),
        )
        self._run.data_may_grow = bool(self._callbacks.members)
        self._run.move_schedule(self._step)
        if world is None and not self._runs_others_between():
            self._run.wants_no_place_between()
        self._run.note(self._step.verdict())
        self._run.history.params = {
            "verbose": int(options.progress),
            "epochs": options.epochs,
            "steps": feed.length,
        }
        self._drive: TrainStep | PartsStep = self._step
        if options.stays_on_one:
            self._step.cut = dataclasses.replace(self._step.cut, stays_whole=True)
        if world is not None or self._step.cut.parts > 1:
            self._take_parts()

    def _runs_others_between(self) -> bool:
        """Whether code that is not the library's runs between two epochs, and may fail there."""
        config = self._config
        theirs = (self._callbacks.members, config.metrics.accumulating, config.schedule.scheduler)
        return self._validation is not None or any(theirs)

    def _take_parts(self) -> None:
        """Takes batches in parts, as many as there are processes or once were."""
        run, step, config, world = self._run, self._step, self._config, self._world
        cutting = cut_among(step.cut, world, config)
        require_cuttable(step, self._feed, self._options)
        share = cutting.share
        feed = PartsFeed(self._feed, share)
        adds_up = require_adding_up(config, feed, share, world)
        if world is not None:
            self._require_gain(share, world)
        if len(share.numbers) > 1 and (names := what_remembers(config, feed, share)):
            words = f"{names} changes with each part that a process takes"
            run.note(ResumeVerdict(reasons=(f"{words}, and each takes several",)))
        self._feed = feed
        if cutting.cut.parts != step.cut.parts:
            run.forget_batches()
        step.cut = cutting.cut
        run.note(cutting.verdict)
        run.say(cutting.words)
        if world is not None and not world.leads:
            # What one process has gathered before it was cut is rank 0's.
            config.optimizer.zero_grad()
        if isinstance(run, SeveralRun):
            run.compare_replicas(lambda: replicas_digest(config.model))
            config.metrics.leave_syncing_to_us()
        run.save_only_between(lambda: not step.begins_group)
        if self._validation is not None:
            with as_validation_data():
                self._validation = PartsFeed(self._validation, share)
        finish_copying = run.finish_copying
        self._drive = PartsStep(step, config, share, world, finish_copying, adds_up=adds_up)
        self._evaluate = Evaluation(config, PartsForward(config, share, world, adds_up=adds_up))

    def _require_gain(self, share: Share, world: World) -> None:
        """Raises OneDeviceError where all may be left to one device, and it takes no longer."""
        cut, clock = self._step.cut, self._options.weighs_by
        if clock is None or cut.parts > 1:
            return
        if cut.stays_whole:
            message = f"so it was decided when this run began (devices={world.size} takes all)"
            raise OneDeviceError(message)
        require_gain(self._config, self._feed, share, world, clock=clock)

    def _make_step(self, microbatch: int | str | None) -> TrainStep:
        if microbatch is None:
            return TrainStep(self._config)
        size = None if isinstance(microbatch, str) else microbatch
        return SplitStep(self._config, size=size, say=lambda sentence: self._run.say(sentence))

    def _objects(self) -> dict[str, Any]:
        config = self._config
        return {
            "model": config.model,
            "loss": config.loss if _keeps_state(config.loss) else None,
            "optimizer": config.optimizer,
            "scheduler": _kept(config.schedule.scheduler),
            "scaler": self._step.scaler,
            "step": self._step,
            **{f"metric {n}": _kept(m) for n, m in config.metrics.stateful.items()},
            **self._callbacks.stateful(),
            **self._callbacks.generators((torch.Generator,)),
            **self._kept_by_code(),
        }

    def _kept_by_code(self) -> dict[str, Any]:
        """Returns what loss, metrics and callbacks keep in variables, and the generators there."""
        config, callbacks = self._config, self._callbacks
        called = [config.loss, *config.metrics.functions, *callbacks.functions]
        roots = [each for each in called if not _keeps_state(each)]
        known = [*callbacks.members, config.model, config.optimizer, self._feed]
        found = {
            f"generator {number} of {_name_of(root)}": generator
            for root in roots
            for number, generator in enumerate(find_generators(root, (torch.Generator,)))
        }
        return {**found, **memory_of_given(roots, map(type, callbacks.members), but=known)}

    def train(self) -> History:
        run, callbacks = self._run, self._callbacks
        self._say_what_the_loss_trains()
        run.reconsider_end(callbacks.members)
        callbacks.reconsider(run)
        run.check_data([self._feed, *([] if self._validation is None else [self._validation])])
        if run.is_closed or run.has_passed(self._options.epochs):
            return self._found_done()
        require_last_batch(self._config, self._feed, self._options, run.say)
        if run.begins_phase:
            callbacks.begin_phase()
            self._fit_schedule_to_phase()
        self._begin_callbacks()
        try:
            for epoch in run.epochs(self._options.epochs):
                if not run.is_mid_epoch:
                    # Before the callbacks, which may freeze a layer's statistics by its mode.
                    self._config.model.train()
                    callbacks.epoch_begin(run, epoch)
                set_mode(self._config.optimizer, training=True)
                self._train_epoch()
                set_mode(self._config.optimizer, training=False)
                if run.is_over:
                    continue
                # Before validation, which counts with the same metrics.
                run.log_epoch(**self._config.metrics.of_epoch())
                validated = self._validate(epoch)
                run.log_epoch(**validated)
                if validated:
                    callbacks.validation_end(run, epoch, validated)
                self._log_rate()
                logs = run.agreed_logs()
                self._config.schedule.after_epoch(
                    epoch, logs, self._monitor, lacks_validation=run.skips_validation
                )
                callbacks.epoch_end(run, epoch, logs)
            if not run.is_over:
                callbacks.train_end(run)
                run.agree_on_end()
        except KeyboardInterrupt:
            if not run.was_interrupted:
                raise
            set_mode(self._config.optimizer, training=False)
            self._take_buffers()
        finally:
            run.let_go()
        self._release.finish(run)
        return run.history

    def _begin_callbacks(self) -> None:
        run, callbacks = self._run, self._callbacks
        callbacks.train_begin(run)
        if self._world is None and not run.begins_phase and callbacks.begin_with_something:
            callbacks.keep_clocks(self._put_back)

    def _put_back(self) -> None:
        """Gives all what a checkpoint has of it, in place of what callbacks set as they began."""
        run, step, cut = self._run, self._step, self._step.cut
        run.put_back()
        step.cut = cut
        run.move_schedule(step)
        self._callbacks.reconsider(run)

    def _log_rate(self) -> None:
        rate = self._config.optimizer.param_groups[0].get("lr")
        if rate is not None:  # Adafactor may set its own from step to step
            self._run.log_epoch(lr=float(rate))

    def _fit_schedule_to_phase(self) -> None:
        """Makes a schedule by name as long as the phase that begins, not as all of them."""
        options, scheduler = self._options, self._config.schedule.scheduler
        if "scheduler" in _settings(options, None):
            left = options.epochs - self._run.epoch
            rest = options.schedule_for(self._config.optimizer, self._feed, epochs=left)
            scheduler.load_state_dict(rest.scheduler.state_dict())

    def _found_done(self) -> History:
        """For a call whose training went on beyond its end: that is nothing of its own."""
        if not self._run.is_closed:
            self._run.say_done()
        self._run.pass_on(self._options.epochs)
        return self._run.history

    def _say_what_the_loss_trains(self) -> None:
        loss = self._config.loss
        own = own_weights(loss, self._config.model)
        if own and not self._config.left_out and isinstance(loss, nn.Module):
            known = set(map(id, own))
            names = ", ".join(n for n, each in loss.named_parameters() if id(each) in known)
            self._run.say(f"{type(loss).__name__} has weights of its own ({names}): trained too.")

    def _train_epoch(self) -> None:
        run, step, callbacks = self._run, self._drive, self._callbacks
        watched = callbacks.watches_batches
        step.begin_epoch(self._feed.length)
        for batch in run.pass_over(self._feed):
            outcome = step(batch)
            run.log_outcome(outcome.values, samples=outcome.samples)
            if watched:
                callbacks.batch_end(run, outcome.values)
        if not run.is_over:
            step.finish_epoch()
        self._take_buffers()
        run.note_trained()

    def _take_buffers(self) -> None:
        """Gives the model what process 0 keeps: the last step left each with those of its part."""
        if self._world is not None:
            self._world.take_buffers(self._config.model)

    def _validate(self, epoch: int) -> dict[str, float]:
        run = self._run
        if self._validation is None:
            return {}
        run.skips_validation = (epoch + 1) % self._options.eval_every > 0
        if run.skips_validation:
            return {}
        with as_validation_data():
            means = self._evaluate(run.validated(self._validation, epoch))
        run.reseed("after validation")
        # Early stopping and plateaus follow what it gives.
        found = tuple(f"in the validation data, {why}" for why in self._validation.reasons())
        run.note(ResumeVerdict(reasons=found))
        return {f"val_{name}": value for name, value in means.items()}


def _keeps_state(loss: object) -> bool:
    """Whether a loss may change in training: it has weights, counts, or says so itself."""
    return hasattr(loss, "state_dict") and hasattr(loss, "load_state_dict")


def _kept(value: Any) -> Any:
    """Returns what a checkpoint holds of a metric or schedule: of one's own, its attributes."""
    is_kept_whole = _keeps_state(value) or not carries_attributes(value)
    return value if is_kept_whole else Attributes(value, TensorValues())


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _settings(options: TorchOptions, loss: Any) -> dict[str, Any]:
    """Returns what of a call's settings its optimizer and scheduler do not say."""
    given = options.scheduler[0] if isinstance(options.scheduler, tuple) else options.scheduler
    # A schedule by name is as long as the call's epochs say.
    schedule: dict[str, Any] = {"scheduler": given} if isinstance(given, str) else {}
    if options.warmup:
        schedule = {"scheduler": given or "constant", "warmup": options.warmup}
    kind = "" if loss is None else getattr(loss, "__qualname__", type(loss).__qualname__)
    return {"loss": kind, **schedule}
