"""A run of several processes: rank 0 reads, writes, shows and decides, and the others follow.

The processes meet at steps that rank 0 has announced at the meeting before; there is no other
way for one to learn that it is interrupted, out of time, or done. No thread but the main one
takes part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from colabkit.checkpoint import LoadedCheckpoint, SaveStatus
from colabkit.errors import ReplicasDifferError
from colabkit.fitting.torch.fit_run import TorchRun
from colabkit.frameworks.base import Feed, FrameworkAdapter
from colabkit.frameworks.torch.world import World
from colabkit.runs.checkpoint_manager import CheckpointManager, CheckpointOptions
from colabkit.runs.limits import Limits
from colabkit.runs.options import RunOptions
from colabkit.storage import RemountResult

_MEET_EVERY_S = 0.25
_MEET_STEPS_MAX = 256


class SeveralRun(TorchRun):
    """The same run, in step with those of the other processes.

    Args:
        world: The processes.
        options: As for ``Run``; the processes that follow show and publish nothing.
        kwargs: As for ``TorchRun``.
    """

    def __init__(
        self,
        world: World,
        ckpt_dir: str | Path,
        options: RunOptions,
        objects: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        self._world = world
        self._met_step = self._next_meeting_step = 0
        self._met_s = time.monotonic()
        self._digest: Callable[[], str] = str
        self._has_compared = False
        super().__init__(ckpt_dir, options, objects, **kwargs)
        self._agreed = AgreedLimits(options.max_steps, options.max_time)
        self._limits = self._agreed
        if not world.leads:
            # What is kept of batches is of the parts that rank 0 takes.
            self._state.forget_batches()

    def _kept_in(self, ckpt_dir: str | Path, options: CheckpointOptions) -> CheckpointManager:
        if not self._world.leads:
            return FollowingManager(ckpt_dir, self._adapter, self._world)
        return LeadingManager(
            self._world,
            ckpt_dir,
            self._adapter,
            options,
            take=self._snapshot,
            where=self._state.place,
            told=self._display.mended,
        )

    def _boundary(self) -> None:
        self._position.step = step = self._position.step + 1
        is_due = step >= self._next_meeting_step or step >= self._limits.last_step
        if is_due and not self.is_mid_update():
            self._look(time.monotonic())

    def _look(self, now_s: float, *, counts: bool = False) -> None:
        self._meet(now_s)
        # Values are read at the same step everywhere: what ends one process ends all.
        self._next_look_s = 0.0
        super()._look(now_s, counts=counts)

    def _meet(self, now_s: float) -> None:
        """Tells all processes what any of them knows, and where they meet again."""
        is_late = self._world.leads and self._agreed.is_time_up()
        asked = [self._interrupts.pending, is_late, self._stride(now_s)]
        pending, is_over, stride = self._world.largest(asked)
        self._interrupts.pending = bool(pending)
        self._agreed.time_is_up = bool(is_over)
        if not self._has_compared:
            self._has_compared = True
            self._require_replicas()
        self._met_step, self._met_s = self.step, now_s
        self._next_meeting_step = self.step + stride

    def _stride(self, now_s: float) -> int:
        """Returns after how many steps rank 0 is to be met again."""
        if not self._world.leads:
            return 0
        steps, seconds = self.step - self._met_step, now_s - self._met_s
        if self._checkpoints.counts_steps or steps < 1:
            return 1
        return max(1, min(int(steps * _MEET_EVERY_S / max(seconds, 1e-6)), _MEET_STEPS_MAX))

    def _ends(self) -> bool:
        return bool(self._world.largest([super()._ends()])[0])

    def _save_and_wait(self) -> None:
        super()._save_and_wait()
        # Nobody goes on before rank 0 has written, or has failed to.
        self._world.share(None)

    def _save_unraised(self, *, wait: bool) -> None:
        """Saves what an error has left: the others may be anywhere, and are not waited for."""
        if self._world.leads and not self.is_mid_update():
            with self._unraised():
                super()._save_and_wait() if wait else self._checkpoints.save_if_due(self.step)

    def compare_replicas(self, digest: Callable[[], str]) -> None:
        """Takes what hashes the weights, to be compared after a first step and each epoch."""
        self._digest = digest

    def _require_replicas(self) -> None:
        """Raises ReplicasDifferError where a process holds other weights than rank 0."""
        found = self._world.gather(self._digest())
        if apart := [rank for rank, each in enumerate(found) if each != found[0]]:
            message = (
                f"By step {self.step} the weights in process {apart[0]} are no longer those in"
                " process 0."
            )
            hint = (
                "Something changes them in one process alone: look for callbacks that ask for the"
                " rank. The newest checkpoint is what process 0 had."
            )
            raise ReplicasDifferError(message, hint=hint)

    def _end_epoch(self, *, has_steps: bool = True) -> None:
        self._require_replicas()
        self._state.stop = self._world.share(self._state.stop)
        super()._end_epoch(has_steps=has_steps)

    def agreed_logs(self) -> dict[str, float]:
        """Returns the values of the epoch that rank 0 has, by which schedules go."""
        return self._world.share(self.epoch_logs)

    def check_data(self, feed: Feed, validation: Feed | None) -> None:
        """Compares the data of rank 0 with what the run was trained on; all hear what follows."""
        begins = self.begins_phase
        if self._world.leads:
            super().check_data(feed, validation)
        if self._world.share(self.begins_phase and not begins) and not self._world.leads:
            self.turns_to_other_data()


class AgreedLimits(Limits):
    """Limits whose time is up when rank 0's clock says so, at the meeting where it does."""

    time_is_up = False

    def is_time_up(self) -> bool:
        """Whether this process's own clock says so."""
        return bool(super().reached(-1))

    def reached(self, step: int) -> str:
        """Returns which limit is reached, "" when none is."""
        if step >= self.last_step:
            return super().reached(step)
        return f"max_time is {self._max_time}" if self.time_is_up else ""


class LeadingManager(CheckpointManager):
    """Rank 0's: what it reads, the others are given."""

    def __init__(self, world: World, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._world = world

    def newest(self) -> LoadedCheckpoint | None:
        """Returns the newest checkpoint that is whole."""
        return self._world.share(super().newest())

    def chosen(self, which: str | int) -> LoadedCheckpoint:
        """Returns the best checkpoint, or that of a step."""
        return self._world.share(super().chosen(which))

    def named(self, name: str) -> LoadedCheckpoint | None:
        """Returns a checkpoint by its name, None where it is not whole any more."""
        return self._world.share(super().named(name))

    def has_trained(self) -> bool:
        """Whether any checkpoint holds more than the first weights."""
        return self._world.share(super().has_trained())


class FollowingManager(CheckpointManager):
    """What every other process has: the checkpoints that rank 0 reads, and nothing to write.

    Args:
        ckpt_dir: The run folder.
        adapter: The framework's adapter.
        world: The processes.
    """

    def __init__(self, ckpt_dir: str | Path, adapter: FrameworkAdapter, world: World) -> None:
        self.location, self.warning = str(ckpt_dir), ""
        self._adapter = adapter
        self._world = world

    @property
    def folder(self) -> Any:
        """Nothing: the folder is rank 0's."""
        return None

    @property
    def counts_steps(self) -> bool:
        """Whether every step must be looked at: rank 0 says so."""
        return False

    @property
    def wait_s(self) -> float:
        """Seconds that saves have held the training thread."""
        return 0.0

    def newest(self) -> LoadedCheckpoint | None:
        """Returns what rank 0 has read."""
        return self._world.share(None)

    def chosen(self, which: str | int) -> LoadedCheckpoint:  # noqa: ARG002  # rank 0's word counts
        """Returns what rank 0 has read."""
        loaded: Any = self._world.share(None)
        assert isinstance(loaded, LoadedCheckpoint)  # noqa: S101  # rank 0 raises otherwise
        return loaded

    def named(self, name: str) -> LoadedCheckpoint | None:  # noqa: ARG002  # rank 0's word counts
        """Returns what rank 0 has read."""
        return self._world.share(None)

    def has_trained(self) -> bool:
        """Returns what rank 0 has found."""
        return bool(self._world.share(None))

    def open(self) -> None:
        """Watches the optimizers."""
        self._adapter.open(lambda: None)

    def close(self) -> SaveStatus | None:
        """Stops watching."""
        self._adapter.close()
        return None

    def status(self) -> SaveStatus | None:
        """Returns None: what is saved is rank 0's to say."""
        return None

    def save_if_due(self, step: int, *, counts: int | bool = False) -> bool:  # noqa: ARG002
        """Saves nothing."""
        return False

    def save(self, step: int, *, wait: bool) -> None:
        """Saves nothing."""

    def flush(self) -> None:
        """Waits for nothing."""

    def mend(self, *, now: bool = False) -> RemountResult | None:  # noqa: ARG002
        """Mends nothing."""
        return None

    def begin_attempt(self) -> None:
        """Leaves the folder alone."""

    def publish_history(self, csv_text: str) -> None:
        """Leaves the folder alone."""

    def tidy(self, csv_text: str) -> None:
        """Leaves the folder alone."""

    def forget_place(self) -> None:
        """Keeps no place."""
