"""Keeps a run's checkpoints: opens the run folder, restores, saves when due, finishes."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TypeVar

from colabkit.checkpoint import (
    FindWriters,
    LoadedCheckpoint,
    RunFolder,
    SaveFacts,
    SavePolicy,
    Saver,
    SaveStatus,
    Section,
    Uploader,
)
from colabkit.errors import CheckpointWriteError, DiskFullError, DriveLostError, StorageError
from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.processes import Processes
from colabkit.runs.inspect import chosen
from colabkit.storage import RemountOutcome, RemountResult

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)
_MEND_EVERY_S = 1.0
# A look at a mount that hangs takes seconds, and training waits for it.
_MEND_COST_SHARE, _MEND_PAUSE_MAX_S = 20.0, 60.0
_HANGING_S = 60.0
_ARRIVAL_S = 1.0
_TRIES = 3
_FLUSH_PAUSES_S = (0.5, 2.0, 5.0, 15.0)
# Torn in another process, then taken by this one alone, which may be torn too.
_RETAKES_MAX = 5


@dataclasses.dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """How often to save, and what to keep."""

    save_every: str | int | None = "auto"
    keep: int = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What one checkpoint is made of."""

    sections: list[Section]
    facts: SaveFacts


class CheckpointManager:
    """Owns the saver of one run; every method is called on the main thread.

    Args:
        ckpt_dir: The run folder.
        adapter: The framework's adapter.
        options: How often to save, and what to keep.
        take: Makes a snapshot of the run as it stands, without copying tensors.
        where: Names the place of the run; another name means something new to save.
        on_remount: Tells the user what became of a mount.
        clock: Seconds that only grow.
    """

    processes: Processes | None = None
    """Those that train together, where there are several."""

    def __init__(
        self,
        ckpt_dir: str | Path,
        adapter: FrameworkAdapter,
        options: CheckpointOptions,
        *,
        take: Callable[[], Snapshot],
        where: Callable[[], Hashable],
        on_remount: Callable[[RemountResult], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = RunFolder(ckpt_dir, keep=options.keep)
        self.location = self._folder.location
        self.warning = self._folder.warning
        self._policy = SavePolicy.parse(options.save_every)
        self._adapter = adapter
        self._take = take
        self._where = where
        self._on_remount = on_remount
        self._clock = clock
        self._saver: Saver | None = None
        self._last_save_s = clock()
        self._last_step = -1
        self._last_place: Hashable = None
        self._wait_s = 0.0
        self._next_mend_s = 0.0

    def newest(self) -> LoadedCheckpoint | None:
        """Returns the newest checkpoint that is whole; mounts Drive again if it is lost.

        Raises:
            DriveLostError: Drive is lost and cannot be mounted again.
        """
        mount, tries = self._folder.mount, _TRIES
        while True:
            try:
                return self._folder.newest_valid(self._adapter.backend)
            except DriveLostError:
                tries -= 1
                if (
                    mount is None
                    or not tries
                    or mount.remount(now=True).outcome is RemountOutcome.REFUSED
                ):
                    raise

    def chosen(self, which: str | int) -> LoadedCheckpoint:
        """Returns the best checkpoint, or that of a step.

        Raises:
            CheckpointNotFoundError: There is none.
        """
        info = chosen(self._folder.store.infos(), self.location, which)
        return self._folder.load(info, self._adapter.backend)

    def named(self, name: str) -> LoadedCheckpoint | None:
        """Returns a checkpoint by its name, None where it is not whole any more."""
        return self._folder.load_named(name, self._adapter.backend)

    def known_to_first(self, value: _T) -> _T:
        """Returns what process 0 of several has: others may be there for this call alone."""
        at = "what calls before have left"
        return value if self.processes is None else self.processes.share(value, at=at)

    def has_trained(self) -> bool:
        """Whether any checkpoint holds more than the first weights, or cannot be read."""
        return any(info.step or info.problem for info in self._folder.store.infos())

    @property
    def counts_steps(self) -> bool:
        """Whether every step must be looked at, because saves are counted in steps."""
        return self._policy.steps is not None

    @property
    def last_step(self) -> int:
        """Step of the newest save of this session, -1 before it."""
        return self._last_step

    @property
    def folder(self) -> RunFolder:
        return self._folder

    def begin_attempt(self) -> None:
        """Saves beside the checkpoints already there, none of which is touched."""
        self._folder.begin_attempt()

    def publish_history(self, csv_text: str) -> None:
        """Writes history.csv into the run folder, which matters less than going on."""
        try:
            self._folder.publish_table("history.csv", csv_text)
        except StorageError as error:
            _logger.warning("history.csv is not written: %s", error)

    def tidy(self, csv_text: str) -> None:
        """Finishes what a session killed at the very end of a run left undone, if it may."""
        try:
            self._folder.tidy("history.csv", csv_text)
        except StorageError:
            _logger.info("The run folder could not be tidied.", exc_info=True)

    def open(self) -> None:
        """Takes the lease on the run folder and starts the saver.

        Raises:
            StorageError: The folder cannot be written.
            DiskFullError: There is no checkpoint yet, and no room for one.
        """
        if not self._folder.names():
            self._folder.require_room(self._take().sections, self._adapter.backend)
        self._saver = self._folder.open_saver(
            self._adapter.backend,
            period_s=self._policy.seconds,
            clock=self._clock,
            find=self._find_writers(),
        )
        self._adapter.open(self.finish_copying)
        self._last_save_s = self._clock()

    def _find_writers(self) -> FindWriters | None:
        """Returns what asks other processes whether they find a place; None where none writes."""
        return None

    def finish_copying(self) -> None:
        """Waits until the snapshot under way no longer needs the tensors."""
        if self._saver is not None and self._saver.copying:
            began_s = time.perf_counter()
            self._saver.barrier()
            self._wait_s += time.perf_counter() - began_s

    def save_if_due(self, step: int, *, counts: bool = False) -> bool:
        """Begins a save when the policy asks for one and the last is done.

        Args:
            step: Batches trained.
            counts: Whether what was done since counts as a step, although it was no batch.

        Raises:
            LeaseLostError: Another session has taken the run folder over.
        """
        self._opened().raise_if_failed()
        return self.is_due(step, counts=counts) and self._offer(step)

    def is_due(self, step: int, *, counts: bool = False, in_s: float = 0.0) -> bool:
        """Whether the policy asks for a save, so many seconds from now; see ``save_if_due``."""
        status = self._opened().status()
        return status.wants_retake or self._policy.due(
            steps_since=max(step - self._last_step, counts),
            seconds_since=self._clock() - self._last_save_s + in_s,
            timings=status.timings,
        )

    def save(self, step: int, *, wait: bool) -> None:
        """Saves now, whatever the policy says; ``wait`` until it is on the volume.

        Raises:
            CheckpointWriteError: It could not be written.
        """
        saver = self._opened()
        if self._where() != self._last_place or saver.status().error is not None:
            while not self._offer(step):
                # What became of the one before is told by the status, or by the flush below.
                with contextlib.suppress(CheckpointWriteError):
                    saver.flush()
        if wait:
            saver.flush()
            for _ in range(_RETAKES_MAX):
                if not saver.status().wants_retake:
                    break
                self._offer(step)
                saver.flush()
            self.flush()

    def flush(self) -> None:
        """Waits until the save under way is on the volume.

        Raises:
            CheckpointWriteError: It could not be written; where Drive is lost for good, it
                lies on this machine's disk.
        """
        if self._saver is None:
            return
        self.finish_copying()
        self._saver.flush()
        pauses_s = iter(_FLUSH_PAUSES_S)
        while not self._has_arrived():
            error = self._uploading().status().error
            result = self.remount(now=True)
            if result is not None and result.outcome is RemountOutcome.REFUSED:
                raise self._stranded(error)
            if error is not None:
                # A mount may answer, and be mounted again, while every write into it fails.
                self._try_again(error, next(pauses_s, None))
        self._require_newest()

    def _try_again(self, error: OSError, pause_s: float | None) -> None:
        """A failure may pass: Drive refuses now and then for a moment."""
        if pause_s is None or isinstance(error, DiskFullError):
            raise self._stranded(error)
        time.sleep(pause_s)
        self._uploading().hurry()

    def _uploading(self) -> Uploader:
        uploader = self._opened().uploader
        assert uploader is not None  # noqa: S101  # without one everything has arrived
        return uploader

    def _has_arrived(self) -> bool:
        saver = self._opened()
        uploader = saver.uploader
        if uploader is None:
            return True
        while not uploader.wait_copied(timeout_s=_ARRIVAL_S):
            # What hangs without a mount of ours ends by an error, or takes its time.
            if self._folder.mount is not None and uploader.status().busy_s > _HANGING_S:
                return False
        saver.raise_if_failed()
        return uploader.status().error is None

    def _require_newest(self) -> None:
        """Whatever has arrived, it must not have overtaken one that the staging area has lost."""
        status = self._opened().status()
        if status.upload is None or (status.upload.committed_step or 0) >= status.step:
            return
        message = (
            f"The checkpoint of step {status.step} cannot be read in"
            f" {self._folder.staging_location} any more, and is not in {self.location}."
        )
        hint = "Look whether this machine's disk is full. To go on from the one before, run again."
        raise CheckpointWriteError(message, path=self.location, step=status.step, hint=hint)

    def _stranded(self, error: OSError | None) -> CheckpointWriteError:
        status = self._opened().status()
        why = error or "nothing there answers."
        message = f"The checkpoint of step {status.step} is not in {self.location}: {why}"
        hint = (
            f"It is whole in {self._folder.staging_location} on this machine: run the cell again"
            " here once that is put right, and it is copied."
        )
        return CheckpointWriteError(message, path=self.location, step=status.step, hint=hint)

    def remount(self, *, now: bool = False) -> RemountResult | None:
        """Mounts Drive again where it was lost, between two steps.

        Args:
            now: Whether to look and to try at once, whatever the last tries came to.

        Returns:
            What was done, None when there is nothing to remount.
        """
        uploader, mount = self._opened().uploader, self._folder.mount
        if uploader is None or mount is None or not (now or self._clock() >= self._next_mend_s):
            return None
        status, began_s = uploader.status(), self._clock()
        if isinstance(status.error, DriveLostError) or status.busy_s >= _HANGING_S:
            result = mount.remount(now=now)
        elif mount.wants_renewal and status.is_idle:
            result = mount.renew()
        else:
            return None
        self._on_remount(result)
        pause_s = min(_MEND_COST_SHARE * (self._clock() - began_s), _MEND_PAUSE_MAX_S)
        self._next_mend_s = self._clock() + max(_MEND_EVERY_S, pause_s)
        if result.outcome in {
            RemountOutcome.FINE,
            RemountOutcome.REMOUNTED,
            RemountOutcome.RENEWED,
        }:
            uploader.hurry()
        return result

    def forget_place(self) -> None:
        """Has the next ``save`` write, although no step was taken since the last."""
        self._last_place = None

    def _offer(self, step: int) -> bool:
        if self._opened().is_busy:
            return False
        began_s = time.perf_counter()
        accepted = self._offer_now(step)
        self._wait_s += time.perf_counter() - began_s
        return accepted

    def _offer_now(self, step: int) -> bool:
        snapshot = self._take()
        accepted = self._opened().offer(
            snapshot.sections,
            snapshot.facts,
            is_guarded=self._adapter.guard(),
            still_valid=self._adapter.unchanged(),
        )
        if accepted:
            self._last_place = self._where()
            self._last_save_s, self._last_step = self._clock(), step
        return accepted

    def _opened(self) -> Saver:
        assert self._saver is not None, "the manager is used between open() and close()"  # noqa: S101
        return self._saver

    @property
    def wait_s(self) -> float:
        """Seconds that saves have held the training thread, the final one left out."""
        return self._wait_s

    def status(self) -> SaveStatus | None:
        """Returns where the newest save is, None outside a loop."""
        return self._saver.status() if self._saver is not None else None

    def close(self) -> SaveStatus | None:
        """Finishes the save under way and stops the saver; returns what came of it."""
        saver, self._saver = self._saver, None
        if saver is None:
            return None
        try:
            if saver.copying:
                saver.barrier()
        finally:
            self._adapter.close()
            saver.close()
        self._folder.note_saved(saver)
        return saver.status()
