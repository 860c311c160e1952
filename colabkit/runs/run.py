"""Run: any loop over data, made to go on where it stopped."""

from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.detect import adapter_for
from colabkit.frameworks.processes import process_count, require_one_process
from colabkit.frameworks.seeding import derive
from colabkit.notebook import stop_with_cell
from colabkit.runs import checks
from colabkit.runs.checkpoint_manager import CheckpointOptions
from colabkit.runs.data_check import DataCheck
from colabkit.runs.display import Display
from colabkit.runs.evaluation import Evaluation
from colabkit.runs.folds import is_another_fold, nothing_trained, require_other_epochs
from colabkit.runs.history import History
from colabkit.runs.interrupts import InterruptGuard
from colabkit.runs.items import ItemsFeed
from colabkit.runs.kept_values import KeptValues
from colabkit.runs.known_feeds import KnownFeeds
from colabkit.runs.leaving import Loop, is_read_behind, was_left_on_purpose
from colabkit.runs.left_loops import LeftLoops
from colabkit.runs.limits import Limits
from colabkit.runs.loggers import events_for
from colabkit.runs.monitor import Monitor
from colabkit.runs.options import RunOptions
from colabkit.runs.own_variables import OwnVariables
from colabkit.runs.pictures import Pictures
from colabkit.runs.position import Cursor, Position
from colabkit.runs.release_when_done import ReleaseWhenDone
from colabkit.runs.reporting import Reporting
from colabkit.runs.resume import Asked, check_resume, restore_run
from colabkit.runs.same_data import Leniency, check_data_changed
from colabkit.runs.shared_iterators import SharedIterators
from colabkit.runs.state import RunState
from colabkit.runs.step_log import StepLog
from colabkit.runs.verdict import ResumeVerdict
from colabkit.runs.waiting import Pace, Waiting
from colabkit.runs.way import Way


class Run(LeftLoops, Reporting):
    """A training loop of your own that survives being killed at any instant.

    Give it every object whose state matters; then loop over epochs and batches through it.
    When the notebook is run again after a disconnect, the loops begin at the very batch
    where they stopped, with bitwise the same numbers. A loop left by ``break`` or ``return``
    is done; one left by an error is entered again at the newest checkpoint.

    Args:
        ckpt_dir: The run folder, on Drive or any disk, or a URL such as "gs://bucket/run".
        seed: Any integer; every random draw of the run follows from it. Default 0.
        save_every: "auto", a time such as "90s" or "5min", or a number of steps.
        keep: How many of the newest checkpoints to keep, at least 2.
        monitor: Name of the value whose best epoch is kept as well, "val_loss" for example.
        resume: True goes on from the newest checkpoint; "best" or a step goes on from that
            one; "weights" takes the weights that fit and starts anew; so does False without
            them. Nothing is ever deleted.
        data_changed: "error" stops a resume where the data gives other batches than before;
            "accept" goes on with the data as it is now.
        progress: Whether to show progress and say what happens.
        tensorboard: Whether to write event files, for ``%tensorboard --logdir`` on the folder.
        logger: Who else draws the curves: "wandb", "mlflow", "trackio", an object with
            ``log(values, step=...)``, or a list of these. All sessions are one run there, and no
            step is told twice; what a service raises does not stop training.
        release_when_done: Whether the machine is given back when ``epochs`` has yielded the last
            and all is on Drive; an interrupted or failed run keeps it.
        must_be_finite: Names of logged values whose NaN or infinity ends the run.
        max_steps: Batches in all, those of earlier sessions included, after which the loops end.
        max_time: Time that this session may train, in seconds or as "90min" or "11h"; then all
            is saved, and the loops end.
        phase: A name for what this run trains, where another one on the same folder went before
            with other layers, rates or optimizers; without a name they are told apart by these.
        save_base: Whether frozen quantized weights, and the frozen base under adapters of PEFT,
            are written too. Without, their hashes are noted: where this goes on, the same base
            model must be loaded, and another one is an error.
        objects: Objects by name where a name is that of an argument: ``{"seed": generator}``.
        named: Modules, optimizers, schedulers, and anything with ``state_dict`` and
            ``load_state_dict``, under names of your own.

    Raises:
        ArgumentError: An argument cannot be used, or an object has no state to save.
        CheckpointMismatchError: The folder's checkpoint is of another model, optimizer or data.

    Example:
        >>> import tempfile, torch, colabkit
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> data = [(torch.ones(4, 2), torch.ones(4, 1))] * 3
        >>> run = colabkit.Run(tempfile.mkdtemp(), model=model, optimizer=optimizer, progress=False)
        >>> for epoch in run.epochs(2):
        ...     for x, y in run.batches(data):
        ...         loss = ((model(x) - y) ** 2).mean()
        ...         optimizer.zero_grad(); loss.backward(); optimizer.step()
        ...         run.log(loss=loss)
        >>> run.step
        6
    """

    # fit's own loop changes nothing but what it is given.
    is_users_loop = True
    trains_alone = True
    # Callbacks may give the next epoch other samples.
    data_may_grow = False
    # That in which the loop over epochs stands.
    _thread: int | None = None

    @checks.answered
    def __init__(
        self,
        ckpt_dir: str | Path,
        *,
        seed: int | None = None,
        save_every: str | int | None = "auto",
        keep: int = 2,
        monitor: str | None = None,
        resume: bool | str | int = True,
        data_changed: str = "error",
        progress: bool = True,
        tensorboard: bool = False,
        logger: Any = None,
        release_when_done: bool = False,
        must_be_finite: Sequence[str] = (),
        max_steps: int | None = None,
        max_time: str | float | None = None,
        phase: str | None = None,
        save_base: bool = False,
        objects: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        options = RunOptions(
            seed=seed,
            save_every=save_every,
            keep=keep,
            monitor=monitor,
            resume=resume,
            data_changed=data_changed,
            progress=progress,
            tensorboard=tensorboard,
            logger=logger,
            release_when_done=release_when_done,
            must_be_finite=must_be_finite,
            max_steps=max_steps,
            max_time=max_time,
            phase=phase,
            save_base=save_base,
        )
        if type(self) is Run and process_count() > 1:
            from colabkit.runs.several_loop import RunOfSeveral  # imported on use

            # What people see of Run stays its own signature, which __new__ would hide.
            self.__class__ = RunOfSeveral
        known = [field.name for field in dataclasses.fields(options)]
        with checks.answering_names(named, known=known):
            self._begin(ckpt_dir, options, checks.joined_objects(objects, named))

    def _begin(self, ckpt_dir: str | Path, options: RunOptions, objects: Mapping[str, Any]) -> None:
        """Makes the parts of the run, and puts back what its folder holds."""
        checks.require_folder(ckpt_dir)
        if self.is_users_loop:
            stop_with_cell("this run does not begin")
        if self.is_users_loop and self.trains_alone:
            require_one_process("a loop over colabkit.Run")
        check_resume(options.resume)
        check_data_changed(options.data_changed)
        self.history = History()
        self.was_interrupted = self.is_over = self.has_trained = self._has_said_all = False
        self._is_best = self._is_open = False
        self.seed = checks.seed_of(options.seed)
        self._limits = Limits(options.max_steps, options.max_time)
        self._adapter = adapter_for(objects, owner=self, save_base=options.save_base)
        self._given = tuple(n for n, each in objects.items() if each is not None or n in vars(self))
        self._position = Position()
        finite, to_floats = options.must_be_finite, self._adapter.to_floats
        self._log = StepLog(self.history, to_floats, must_be_finite=finite)
        self._state = RunState(
            position=self._position,
            history=self.history,
            log=self._log,
            monitor=Monitor(options.monitor),
            kept=KeptValues(self._adapter.backend.is_tensor, lambda: self._position.is_behind),
            names=self._adapter.second_names(),
        )
        self._waiting = Waiting()
        pace = Pace(self._waiting, lambda: None if self.is_users_loop else self._log.samples)
        shown, monitor = options.progress, options.monitor
        self._display = Display(self.history, shown=shown, monitor=monitor, pace=pace)
        self._news = options.news
        self._interrupts = InterruptGuard(self._display.interrupted, self._stops_at_once)
        self._verdict = ResumeVerdict(reasons=self._adapter.reasons())
        self._feeds = KnownFeeds(self._position.keeps)
        self._position.between.lend = self._feeds.lend
        self._release = ReleaseWhenDone(wanted=options.release_when_done, shown=options.progress)
        self._next_look_s = 0.0
        self._iterators = SharedIterators()
        self._read: dict[str, None] = {}
        self._epochs_total = self._epochs_done = None
        self._epoch_began_s = time.monotonic()
        often = CheckpointOptions(options.save_every, options.keep)
        self._checkpoints = self._kept_in(ckpt_dir, often)
        where, say = self._checkpoints.location, self._display.say
        self._events = events_for(
            options.tensorboard, options.logger, self.history, self._checkpoints.folder, say=say
        )
        self._pictures = Pictures(self._checkpoints.folder, self._display)
        # Nobody but a loop of the user's own has averages stand in for weights.
        weights = self._adapter.weights_mark if self.is_users_loop else _none
        self._evaluation = Evaluation(self._state, self._adapter.evaluation_mark, weights)
        self._own = OwnVariables(self, self._adapter, objects, self._state.kept)
        self._way = Way(self._state, self._adapter, is_users_loop=self.is_users_loop)
        self._state.passed = self._adapter.passed()
        own = options.settings()
        self._state.settings = {**self._call_settings, **own, **self._adapter.told()}
        call = self._call(checks.name_of(options.phase))
        asked = Asked(self.seed, options.resume, call, self._owned())
        is_strict = options.resume is True and options.data_changed == "error"
        self._is_fold = self.is_users_loop and is_strict and is_another_fold(where, asked.owned)
        changed = restore_run(self._checkpoints, self._adapter, self._state, self._display, asked)
        self.is_over = self._state.is_closed
        changed += self._state.go_on_in(process_count(), sums=self.is_users_loop)
        self._verdict = self._verdict.adding(reasons=(*changed, *self._state.reasons))
        leniency = Leniency.towards(options.data_changed, changed)
        record = self._adapter.watch().record
        expected = self._position.data_reasons
        self._data = DataCheck(record, leniency, location=where, say=say, expected=expected)
        self._position.between.accepts = leniency.accepts

    @property
    def verdict(self) -> ResumeVerdict:
        """How exactly this run goes on after an interruption; complete after the first batch."""
        opened = (cursor.feed for cursor in self._position.open if cursor.feed is not None)
        verdict = self._feeds.added_to(self._verdict).adding_feeds(opened)
        seen = (*self._position.data_reasons, *self._iterators.reasons, *self._data.reasons)
        seen = (*seen, *self._own.reasons, *self._evaluation.reasons)
        seen = (*seen, *self._adapter.unsaved(), *self._state.kept_names.said())
        return verdict.adding(reasons=seen, vouched=self._vouched() if self.is_users_loop else ())

    def _vouched(self) -> tuple[str, ...]:
        # A booster that is yet to be made is None for as long.
        given = (name for name in self._given if vars(self).get(name, self) is not None)
        return (*given, *self._state.kept, *self._read, "the global random generators")

    def epochs(self, count: int) -> Loop[int]:
        """Yields the epochs still to do, up to ``count`` in all, from 0.

        One in which nothing came through ``batches`` or ``items`` counts as one step: all of the
        data at once, a generation, a round of boosting.

        Raises:
            ArgumentError: ``count`` is not a whole number of at least 1.
        """
        checks.require_count("epochs", count)
        return Loop.knowing_itself(lambda own: self._epochs_up_to(count, own))

    def _epochs_up_to(
        self, count: int, own: Sequence[weakref.ref[Any]]
    ) -> Generator[int, None, None]:
        self.ask_for(count)
        if self.is_over:
            self.pass_on(count)
            return
        if self.epoch >= count or self.has_stopped:
            if self._is_fold:
                raise nothing_trained(self._checkpoints.location)
            require_other_epochs(count, self._epochs_done)
            self._epochs_done = count
            self.say_done()
            self._checkpoints.tidy(self.history.csv_text())
            self._events.finish(self.step)
            self._events.close()
            self.pass_on(count)
            self._release.finish(self)
            return
        with self._session():
            self._iterators.note_loop(own[0], lambda: self._own.counts_for_eye(own[0]))
            if self.is_users_loop:
                self._way.uses = self._own.note_epochs(own[0])
            while self.epoch < count and not (self.has_stopped or self._ends_at_head()):
                self._epoch_began_s, begun_at = time.monotonic(), self.step
                self._adapter.seed(derive(self.seed, "epoch", self.epoch))
                self._come_to_head()
                self._thread = threading.get_ident()
                try:
                    yield self.epoch
                except GeneratorExit:
                    if was_left_on_purpose():
                        self._leave_epochs(begun_at)
                        self.pass_on(count)
                    else:
                        self._leave_by_error()
                    raise
                if not self.is_over:
                    self._end_epoch(has_steps=self.step != begun_at)
            if not self.is_over:
                self._save_and_wait()
                self._epochs_done = count
        self.pass_on(count)
        self._release.finish(self)

    def batches(self, data: Any, *, batch_size: int = 32, shuffle: bool = True) -> Loop[Any]:
        """Yields the batches of one pass that are still to do; ``run.batch`` numbers them.

        Args:
            data: A DataLoader, Dataset, arrays, or any iterable of batches.
            batch_size: Samples in a batch, for a Dataset or arrays.
            shuffle: Whether each pass has its own order, for a Dataset or arrays.

        Raises:
            CheckpointMismatchError: The data is not as long as when the pass began.
        """
        data = self._iterators.noted(data)
        feed = self._feeds.feed_for(
            data, self._adapter.feed, batch_size=batch_size, shuffle=shuffle, epoch=self.epoch
        )
        return self.pass_over(feed)

    def items(self, items: Iterable[Any]) -> Loop[Any]:
        """Yields the items still to do, in their own order; for any long loop.

        Example:
            >>> import tempfile, colabkit
            >>> run = colabkit.Run(tempfile.mkdtemp(), progress=False)
            >>> [item for item in run.items(["a", "b"])]
            ['a', 'b']
        """
        return self.pass_over(ItemsFeed(self._iterators.noted(items)))

    def pass_over(self, feed: Feed) -> Loop[Any]:
        """Yields what is still to do of one pass over a feed."""
        return Loop.knowing_itself(lambda own: self._pass_over(feed, own))

    def _pass_over(self, feed: Feed, own: Sequence[weakref.ref[Any]]) -> Generator[Any, None, None]:
        position = self._position
        if self.is_over:
            return
        checks.require_thread(self._thread, self._interrupts.raise_in_main)
        self._read["the items" if isinstance(feed, ItemsFeed) else "the data"] = None
        self._way.arrive()
        if self.is_users_loop:
            self._evaluation.before_pass(holds_weights=self._way.holds_weights)
        cursor = position.enter(feed, has_one_feed=not self.is_users_loop)
        if cursor is None:
            return self._pass_by()
        if cursor.batches_done:
            self._adapter.restore_again()
        with self._session() as is_outermost:
            try:
                self._look_at(own[0])
                self._check_same_data(cursor, feed)
                why = self._limits.reached(self.step)
                if why and cursor.outermost and not self._is_at_an_end():
                    self._end_early(why)
                    return
                yield from self._steps(cursor, feed)
            except GeneratorExit:
                on_purpose = was_left_on_purpose()
                self._close_pass(cursor, on_purpose=on_purpose, is_outermost=is_outermost)
                raise
            finally:
                position.leave(cursor)
            if self.is_users_loop:
                is_read_on = is_read_behind(own[0])
                self._evaluation.after_pass(is_saved=is_outermost, is_read_on=is_read_on)
            self._seed_between(cursor)
            if is_outermost and not (self.is_over or self._lacks_something()):
                self._save_and_wait()

    def _pass_by(self) -> None:
        if self._is_fold:
            raise nothing_trained(self._checkpoints.location)
        self._adapter.restore_again()
        if self.is_users_loop and not self._position.is_behind:
            self._evaluation.after_pass(is_saved=True)
        self._seed_between()

    def _look_at(self, loop: weakref.ref[Any]) -> None:
        own, way = self._own, self._way
        self._iterators.note_loop(loop, lambda: own.counts_for_eye(loop))
        if self.is_users_loop:
            if self._epochs_total is None:
                way.uses |= own.used_around(loop)
            first, anew = self._position.outermost_passed == 0, self._evaluation.knows_place
            self._data.expect(own.note_pass(loop, first, begins_anew=anew, lacks=way.lacks()))

    def _check_same_data(self, cursor: Cursor, feed: Feed) -> None:
        self._state.check_same_data(
            cursor,
            feed.describe(),
            self._checkpoints.location,
            in_every_epoch=not (self.is_users_loop or self.data_may_grow or self.has_trained),
            accepts=self._data.may_change,
        )
        while self._state.remarks:
            self._display.say(self._state.remarks.pop(0))

    def _steps(self, cursor: Cursor, feed: Feed) -> Iterator[Any]:
        key = self._key_of_pass(cursor)
        step_key = derive(key, "step")
        watched = getattr(feed, "new_watch", self._adapter.watch)
        cursor.watch = watch = watched(first=cursor.batches_done)
        seed, begin_step, leads = self._adapter.seed, self._adapter.begin_step, cursor.outermost
        start = Start(key=key, epoch=self.epoch, skip=cursor.batches_done, state=cursor.feed_state)
        batches = self._batches_left(cursor, feed, start)
        first = cursor.batches_done
        for batch in self._fetched(batches, feed, leads=leads):
            if not self._has_said_all:
                self._announce()
            if leads and cursor.batches_done == first:
                self._tell_length(feed)
            cursor.batches_done += 1
            watch.see(batch)
            seed(derive(step_key, cursor.batches_done))
            if leads:
                begin_step()
            yield batch
            if cursor.is_over:
                return
            if leads:
                self._boundary()
                if self.is_over:
                    return

    def _key_of_pass(self, cursor: Cursor) -> int:
        return derive(self.seed, "pass", self.epoch, cursor.call)

    def _fetched(self, batches: Iterator[Any], feed: Feed, *, leads: bool) -> Iterator[Any]:
        """Yields the batches; where the data fails between two steps, what is done is saved."""
        try:
            yield from self._waiting.over(batches) if leads else batches
        except Exception:
            if leads and self.has_trained and feed.state() is None:
                self._save_unraised(has_failed=True)
                self._evaluation.forget()
            raise

    def _batches_left(self, cursor: Cursor, feed: Feed, start: Start) -> Iterator[Any]:
        return self._data.batches_left(cursor, feed, start)


def _none() -> None:
    """Returns no mark."""
